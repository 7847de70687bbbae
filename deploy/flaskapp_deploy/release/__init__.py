"""The steps from a commit to a release: what production runs. Each can be run by hand."""
