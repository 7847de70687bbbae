"""A real Kubernetes on a machine with no Docker engine: upstream components, each node in namespaces of its own."""
