"""The steps from a commit to a release: what production runs. steps.py has their order."""
