# The words of this repository. What they do is written in the folders that they name.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up down clean shell run test test-fast lint bench reliability pipeline generate manifests screenshots

export PYTHONPATH := src:deploy:.
python := deploy/python
# A NAME in the environment is somebody else's: WSL's holds the machine's name.
name = $(if $(filter command,$(origin NAME)),--name '$(NAME)')
suites = $(or $(SUITE),lint infra programs docs cluster service images release chart examples pipeline)

# What was given on the command line: deploy/venv.sh refuses a misspelled name, which would be ignored otherwise.
export MAKE_NAMES := $(strip $(foreach variable,$(.VARIABLES),$(if $(filter command,$(origin $(variable))),$(variable))))

help: ## Show these words
	@echo "usage: make WORD [NAME=value …]"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

up: ## Run the release ledger on a real Kubernetes here; APP=dir VALUES=file NAME=name for another application
	@deploy/flaskapp-deploy up $(name)

down: ## Stop the local cluster and delete its data; APP=dir or NAME=name for one application alone
	@deploy/flaskapp-deploy down $(or $(name),$(if $(APP),,--all))

clean: ## Delete the caches: programs, image builds, Python packages
	@deploy/flaskapp-deploy clean

shell: ## Open a shell with kubectl and helm set up for the local cluster
	@deploy/flaskapp-deploy cluster shell

run: ## Run the service alone on localhost, with an embedded PostgreSQL
	@deploy/flaskapp-deploy run

test: ## Run all tests, or SUITE="chart release"
	@$(python) -m tests $(suites)

test-fast: ## Run lint, service and chart tests
	@$(python) -m tests lint service chart

lint: ## Check style and types
	@$(python) -m tests lint

bench: ## Measure, and print one table (docs/benchmarks.md); PART="render image", or SUITE=service for more of one
	@$(python) -m benchmarks $(or $(SUITE),figures) $(if $(PART),-- $(PART))

reliability: ## Change and hurt a release under load, on two local nodes (docs/reliability.md); PART="drain node-killed"
	@$(python) -m reliability $(PART)

pipeline: ## Run buildspec.yml here on the last commit: local registry and cluster in place of AWS's
	@deploy/flaskapp-deploy rehearse

generate: ## Write what is generated: the charts' schemas and READMEs, docs/openapi.json
	@charts/generate.sh

manifests: ## Write plain manifests for people with kubectl alone, into build/manifests
	@tools="$$(deploy/flaskapp-deploy programs chart)" && PATH="$$tools:$$PATH" $(python) charts/manifests.py

screenshots: ## Take pictures of the service's pages, into build/screenshots
	@$(python) -m tests.service.screenshots build/screenshots
