"""The names that make's command line takes: without a look at them, `make up AP=shop` would run another application."""

from collections.abc import Iterable

from flaskapp_deploy.machine import did_you_mean

NAMES = {
    "APP": "another application's directory",
    "EGRESS": "0: pods of the local cluster reach nothing outside",
    "IMAGE": "an image that the nodes can pull, for KUBE_CONTEXT",
    "INSTANCE": "which local cluster",
    "KEEP": "1: tests leave their cluster",
    "KEEP_GOING": "1: later suites run in spite of a failure",
    "KUBECONFIG": "the file with your clusters",
    "KUBE_CONTEXT": "a cluster of your kubeconfig",
    "LONG": "1: the long form of a suite",
    "METRICS_PORT": "for `make run`",
    "NAME": "name of the release",
    "PART": "for bench and reliability",
    "PORT": "port on 127.0.0.1",
    "PYTHON": "the Python to use",
    "SUITE": "for test and bench",
    "TIMEOUT_FACTOR": "3: three times the usual limits",
    "VALUES": "a values file of the application",
    "WSGI": "module:callable",
}
# Settings of programs that make starts.
PREFIXES = ("COSIGN_", "DOCKER_", "FLASKAPP_", "GO", "LC_", "LEDGER_", "OSV_", "PIP_", "RELEASE_", "UV_", "XDG_")


def problem(names: Iterable[str]) -> str:
    """What is wrong with the first unknown name, and the names that there are; empty where all are known."""
    for name in names:
        if name not in NAMES and not name.startswith(PREFIXES):
            return f"{name}= is unknown to make{did_you_mean(name, NAMES)}\n  the names are {', '.join(NAMES)}"
    return ""
