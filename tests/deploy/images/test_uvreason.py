"""uv's reason out of what it prints on Python 3.13 (`uv/`), and out of BuildKit's log around it."""

from pathlib import Path

import pytest

from flaskapp_deploy.images import buildkit, uvreason

PRINTED = Path(__file__).parent / "uv"
SOURCE = "has no wheel for Python 3.13 on amd64, and building it from source failed: "
# What is reported, by the file's name; the end is what to do.
REASONS = {
    "no-wheel": (
        f"psycopg2-binary==2.9.9 {SOURCE}Error: pg_config executable not found.",
        "has a wheel for Python 3.13",
    ),
    "foreign": ("psycopg2-binary==2.9.9 has no wheel for Python 3.13 on arm64, and building it", "has a wheel"),
    "compiler": (f"psutil==5.6.0 {SOURCE}error: [Errno 2] No such file or directory: 'gcc'", "no compilers"),
    "build-backend": (f"numpy==1.21.0 {SOURCE}ModuleNotFoundError: No module named 'distutils'", "has a wheel"),
    "requires-python": (f"numpy==1.26.4 {SOURCE}", "has a wheel for Python 3.13"),
    "no-version": (
        "no versions satisfy the requirements: Because there is no version of flask==99 and you require flask==99",
        "these versions",
    ),
    "no-package": ("Because flask-no-such-thing-xyz was not found in the package registry", "these versions"),
    "hash": (
        "hash mismatch: click==8.1.8 is not what the requirements name: expected aaaaaaaaaaaa…, got 63c132bbbed0…",
        "write the hashes anew",
    ),
    "unpinned": ("all requirements must have their versions pinned with `==`, but found: click>=8", "correct"),
    "conflict": (
        "Because flask==3.1.0 depends on werkzeug>=3.1 and you require flask==3.1.0, we can conclude that you require"
        " werkzeug>=3.1. And because you require werkzeug==2.0.0, we can conclude",
        "these versions",
    ),
    "git": ("hello @ git+https://index.invalid/hello.git: the image build has no git", ".tar.gz"),
    "git-url": ("https://index.invalid/hello.git: the image build has no git", ".tar.gz"),
    "invalid": ('no such comparison operator "=", must be one of ~= == != <= >= < > === flask=3.1', "correct"),
    "path": ("Distribution not found at: file:///requirements/lib", "correct the requirements"),
    "no-file": ("failed to read from file `/requirements/more.txt`: No such file or directory", "correct"),
    "no-index": (
        "the package index can't be reached: http://127.0.0.1:1/simple/flask/: Connection refused (os error 111)",
        "proxy",
    ),
    "url": ("https://127.0.0.1:1/hello.tar.gz: Connection refused (os error 111)", "proxy"),
    "certificate": ("failed to lookup address information", "proxy"),
}
HEAD = "Using CPython 3.13.5 interpreter at: /usr/local/bin/python3\n"
BUILD = "  cause: The build backend returned an error\n  cause: Call to `x` failed (exit status: 1)\n\n"
WRITTEN = {
    "no header": (
        f"{HEAD}error: Failed to build `demo==1`\n{BUILD}         [stderr]\n"
        "         demo.c:1:10: fatal error: Python.h: No such file or directory\n         compilation terminated.\n"
        "         error: command '/usr/bin/gcc' failed with exit code 1\n",
        "demo==1 has no wheel for Python 3.13, and building it from source failed:"
        " demo.c:1:10: fatal error: Python.h: No such file or directory",
    ),
    "Rust": (
        f"{HEAD}error: Failed to build `demo-one==1`\n{BUILD}         [stderr]\n"
        "         error: can't find Rust compiler\n",
        "demo-one==1 has no wheel for Python 3.13, and building it from source failed: error: can't find Rust compiler",
    ),
    "its own directory": (
        f"{HEAD}error: Failed to build `lib @ file:///requirements/lib`\n{BUILD}         [stderr]\n"
        "         error: no packages\n",
        "lib @ file:///requirements/lib can't be built: error: no packages",
    ),
    "no output": (
        f"{HEAD}error: Failed to build `demo==1`\n  cause: The build backend returned an error\n",
        "demo==1 has no wheel for Python 3.13, and building it from source failed: The build backend returned an error",
    ),
    "no retries": (
        "error: Failed to fetch: http://127.0.0.1:1/simple/flask/\n  cause: Connection refused (os error 111)",
        "the package index can't be reached: http://127.0.0.1:1/simple/flask/: Connection refused (os error 111)",
    ),
    "disk": (
        "error: Failed to install: flask.whl\n  cause: No space left on device (os error 28)",
        "Failed to install: flask.whl: No space left on device (os error 28)",
    ),
    "an error of the Dockerfile's own": ("error: no requirements.txt: add one", "no requirements.txt: add one"),
    "no error": ("something else", ""),
}


@pytest.mark.parametrize("path", sorted(PRINTED.iterdir()), ids=lambda path: path.stem)
def test_what_uv_prints(path: Path) -> None:
    what, next_step = REASONS[path.stem]
    lines = uvreason.reason(path.read_text().splitlines()).splitlines()
    assert len(lines) == 2, lines
    assert what in lines[0]
    assert next_step in lines[1]
    assert max(map(len, lines)) <= 500


@pytest.mark.parametrize("name", WRITTEN)
def test_written(name: str) -> None:
    printed, what = WRITTEN[name]
    assert uvreason.reason(printed.splitlines()).partition("\n")[0] == what


def log(printed: str) -> str:
    """BuildKit's plain progress around a step, with another step beside it."""
    lines = [f"#12 {number / 10:.3f} {line}" for number, line in enumerate(printed.splitlines())]
    end = (
        '------\nDockerfile:130\nerror: failed to solve: process "/bin/sh -c" did not complete successfully:'
        " exit code: 137"
    )
    return "\n".join(["#10 [app 2/2] RUN", "#10 0.100 error-free", *lines, "#12 ERROR: process", end])


@pytest.mark.parametrize("name", ["no-wheel", "foreign", "conflict", "hash"])
def test_in_a_builds_log(name: str) -> None:
    message = buildkit.cause(log((PRINTED / f"{name}.txt").read_text()))
    assert REASONS[name][0] in message
    assert message.count("\n") == 1


def test_an_error_of_the_dockerfiles_own() -> None:
    assert buildkit.cause(log("error: no requirements.txt: add one")) == "no requirements.txt: add one"


def test_a_reason_that_is_not_known_is_shown_as_it_is() -> None:
    assert buildkit.cause(log("Killed")) == "it failed; its last lines:\nerror-free\nKilled\nexit code: 137"
