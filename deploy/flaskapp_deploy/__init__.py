"""From a directory with a Flask application to a release on Kubernetes."""

__version__ = "0.2.0"
