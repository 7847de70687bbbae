"""What fits on t4g.small nodes, and what a release uses there."""
