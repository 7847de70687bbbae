"""What each phase of a release does, runnable by hand."""
