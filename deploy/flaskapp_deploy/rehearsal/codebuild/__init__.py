"""Runs a buildspec on this machine as AWS CodeBuild does; it knows nothing of what is built (docs/codebuild.md)."""
