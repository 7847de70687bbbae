"""One table of all figures, ours beside those of others."""
