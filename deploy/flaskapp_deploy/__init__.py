"""From a directory with a Flask application to a release on Kubernetes."""
