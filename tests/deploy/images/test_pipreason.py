"""pip's reason out of what pip 25.1 and 26.3 print on Python 3.13 (`pip/`), and out of BuildKit's log around it."""

from pathlib import Path

import pytest

from flaskapp_deploy.images import buildkit, pipreason

PRINTED = Path(__file__).parent / "pip"
SOURCE = "has no wheel for Python 3.13, and building it from source failed: "
# What is said, by the file's name; the end is what to do.
REASONS = {
    "no-wheel": (
        f"psycopg2-binary==2.9.9 {SOURCE}Error: pg_config executable not found.",
        "has a wheel for Python 3.13",
    ),
    "compiler": (f"psutil==5.6.0 {SOURCE}error: [Errno 2] No such file or directory: 'gcc'", "no compilers"),
    "build-backend": (f"numpy==1.21.0 {SOURCE}", "has a wheel for Python 3.13"),
    "no-version": (
        "no matching distribution found for flask==99; there are …, 3.0.3, 3.1.0, 3.1.1, 3.1.2, 3.1.3",
        "versions",
    ),
    "no-package": (
        "no matching distribution found for flask-no-such-thing-xyz==1: the package index has none",
        "the name",
    ),
    "requires-python": ("scipy==1.10.1 needs Python >=3.8,<3.12, and the image has 3.13", "for Python 3.13"),
    "foreign": (
        "no wheel for Python 3.13 on arm64 found for psycopg2-binary==2.9.9; there are 2.9.10, 2.9.11, 2.9.12, 2.9.13",
        "name one of these versions",
    ),
    "hash": (
        "hash mismatch: click==8.1.8 is not what the requirements name: expected aaaaaaaaaaaa…, got 63c132bbbed0…",
        "write the hashes anew",
    ),
    "unpinned": ("click>=8: not pinned with ==, though other requirements have hashes", "requirements.lock"),
    "conflict": (
        "the requirements conflict: The user requested werkzeug==1.0.0; flask 2.0.0 depends on Werkzeug>=2.0",
        "loosen one of these versions",
    ),
    "git": ("hello@git+https://example.invalid/hello.git@v1: the image build has no git", ".tar.gz"),
    "git-url": ("git+https://example.invalid/hello.git@v1: the image build has no git", ".tar.gz"),
    "invalid": ("Invalid requirement: 'flask=2.0': Expected", "Did you mean == ?"),
    "path": ("Invalid requirement: './lib': Expected", "File './lib' does not exist"),
    "no-file": (
        "Could not open requirements file: [Errno 2] No such file or directory: '/requirements/more.txt'",
        "correct the requirements",
    ),
    "no-index": ("the package index can't be reached: [Errno 111] Connection refused", "proxy"),
    "url": ("[Errno 111] Connection refused", "proxy"),
}
WRITTEN = {
    "another Python": (
        "Collecting demo==1 (from -r requirements.txt (line 1))\n"
        "ERROR: Package 'demo' requires a different Python: 3.13.5 not in '<3.12,>=3.8'",
        "demo needs Python >=3.8,<3.12, and the image has 3.13",
    ),
    "no hash": (
        "Collecting flask==3.1.3 (from -r requirements.txt (line 1))\n"
        "ERROR: Hashes are required in --require-hashes mode, but they are missing from some requirements. Here is a\n"
        "    click==8.1.8 --hash=sha256:63c1",
        "click==8.1.8: without a hash, though other requirements have hashes",
    ),
    "no header": (
        "Collecting demo==1 (from -r requirements.txt (line 1))\n  Downloading demo-1.tar.gz (2 kB)\n"
        "  error: subprocess-exited-with-error\n  │ exit code: 1\n"
        "  ╰─> [3 lines of output]\n      demo.c:1:10: fatal error: Python.h: No such file or directory\n"
        "      compilation terminated.\n      error: command '/usr/bin/gcc' failed with exit code 1\n"
        "      [end of output]\n  ERROR: Failed building wheel for demo",
        f"demo==1 {SOURCE}demo.c:1:10: fatal error: Python.h: No such file or directory",
    ),
    "Rust": (
        "Collecting demo_one>=1 (from -r requirements.txt (line 1))\n  Using cached demo_one-1.0.tar.gz (2 kB)\n"
        "  ╰─> [2 lines of output]\n      error: can't find Rust compiler\n      [end of output]\n"
        "ERROR: Failed building wheel for demo-one",
        f"demo_one>=1 {SOURCE}error: can't find Rust compiler",
    ),
    "setup.py": (
        "Collecting demo==1\n  Downloading demo-1.zip (2 kB)\n  ╰─> [4 lines of output]\n"
        "      Traceback (most recent call last):\n"
        "        File \"<string>\", line 2, in <module>\n      ModuleNotFoundError: No module named 'pkg_resources'\n"
        "      [end of output]\nerror: metadata-generation-failed",
        f"demo==1 {SOURCE}ModuleNotFoundError: No module named 'pkg_resources'",
    ),
    "its own directory": (
        "Processing ./lib (from -r requirements.txt (line 1))\n  ╰─> [1 lines of output]\n      error: no packages\n"
        "      [end of output]\nerror: metadata-generation-failed",
        "./lib can't be built: error: no packages",
    ),
    "git that fails": (
        "Collecting demo @ git+https://index.invalid/demo.git\n  fatal: unable to access 'https://index.invalid/'\n"
        "  error: subprocess-exited-with-error\n  ╰─> No available output.\n"
        "ERROR: Failed to build 'demo' when git clone",
        "demo @ git+https://index.invalid/demo.git can't be built: fatal: unable to access 'https://index.invalid/'",
    ),
    "disk": (
        "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
        "Could not install packages due to an OSError: [Errno 28] No space left on device",
    ),
    "pip itself": (
        'ERROR: Exception:\nTraceback (most recent call last):\n  File "/usr/lib/python3/pip/a.py", line 1, in run\n'
        "AssertionError: no",
        "pip failed: AssertionError: no",
    ),
    "nothing known": ("something else", ""),
}


@pytest.mark.parametrize("path", sorted(PRINTED.iterdir()), ids=lambda path: path.stem)
def test_what_pip_prints(path: Path) -> None:
    what, next_step = REASONS[path.stem.rpartition("-")[0]]
    foreign = path.stem.startswith("foreign")
    lines = pipreason.reason(path.read_text().splitlines(), "3.13", "arm64", foreign=foreign).splitlines()
    assert len(lines) == 2, lines
    assert what in lines[0].replace("hello @ git", "hello@git").replace("hello@ git", "hello@git")
    assert next_step in lines[1]
    assert max(map(len, lines)) <= 400


@pytest.mark.parametrize("name", WRITTEN)
def test_written(name: str) -> None:
    printed, what = WRITTEN[name]
    assert pipreason.reason(printed.splitlines(), "3.13", "amd64").partition("\n")[0] == what


def log(printed: str, last: str) -> str:
    """BuildKit's plain progress around a step, with another step beside it."""
    lines = [f"#12 {number / 10:.3f} {line}" for number, line in enumerate(printed.splitlines())]
    end = '------\nDockerfile:130\nerror: failed to solve: process "/bin/sh -c" did not complete: exit code: 1'
    return "\n".join(
        ["#10 [app 2/2] RUN", "#10 0.100 error-free", *lines, f"#12 9.000 {last}", "#12 ERROR: process", end]
    )


@pytest.mark.parametrize(
    ("name", "where"), [("no-wheel-25.1", "amd64"), ("no-wheel-26.3", "amd64"), ("foreign-26.3", "arm64 from wheels")]
)
def test_in_a_builds_log(name: str, where: str) -> None:
    last = f"error: the requirements can't be installed for Python 3.13 on {where}: see pip's lines above"
    message = buildkit.cause(log((PRINTED / f"{name}.txt").read_text(), last))
    assert message.startswith(REASONS[name.rpartition("-")[0]][0])
    assert message.count("\n") == 1


def test_an_error_of_the_dockerfiles_own() -> None:
    assert buildkit.cause(log("", "error: no requirements.txt: add one")) == "no requirements.txt: add one"


def test_a_reason_that_is_not_known_is_shown_as_it_is() -> None:
    last = "error: the requirements can't be installed for Python 3.13 on amd64: see pip's lines above"
    message = buildkit.cause(log("Killed", last))
    assert message == "the requirements can't be installed; pip's last lines:\nKilled"
