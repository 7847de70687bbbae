"""How fast the service is, beside what: `make bench SUITE=service`."""
