"""How quick the service is, and against what: `python -m benchmarks.service`."""
