# The words of this repository. What they do is written in the folders that they name.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help up down shell run test test-fast lint bench reliability pipeline generate manifests screenshots

export PYTHONPATH := src:deploy:.
python = $(shell deploy/venv.sh)/bin/python
# A NAME in the environment is somebody else's: WSL's holds the machine's name.
name = $(if $(filter command,$(origin NAME)),--name '$(NAME)')
suites = $(or $(SUITE),lint infra programs docs cluster service images release chart examples pipeline)

help: ## Show these words
	@echo "usage: make WORD [NAME=value …]"; echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile | expand -t 14

up: ## Run the release ledger on a real Kubernetes here; APP=dir VALUES=file NAME=name for another application
	@$(python) -m flaskapp_deploy up $(name)

down: ## Remove what `make up` made, with its data
	@$(python) -m flaskapp_deploy down $(name)

shell: ## Open a shell with kubectl and helm set up for the local cluster
	@$(python) -m flaskapp_deploy cluster shell

run: ## Run the service alone on localhost, with an embedded PostgreSQL
	@$(python) -m flaskapp_deploy run

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
	@$(python) -m flaskapp_deploy rehearse

generate: ## Write what is generated: the charts' schemas and READMEs, docs/openapi.json
	@charts/generate.sh

manifests: ## Write plain manifests for people with kubectl alone, into build/manifests
	@PATH="$$($(python) -m flaskapp_deploy programs chart):$$PATH" $(python) charts/manifests.py build/manifests

screenshots: ## Take pictures of the service's pages, into build/screenshots
	@$(python) -m tests.service.screenshots build/screenshots
