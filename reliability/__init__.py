"""Load, faults and scenarios against a release on a real cluster."""
