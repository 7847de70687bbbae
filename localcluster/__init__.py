"""A real Kubernetes on a machine with no Docker engine: upstream components, each node in namespaces of its own.

`python -m localcluster up` and read cluster.py from there.
"""


class ClusterError(Exception):
    """The cluster can't do what was asked; the message says what to do next."""
