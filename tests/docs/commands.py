"""Check that the commands in a text exist, by the Makefile's words and by each program's own `--help`."""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import tests.__main__ as suites
from tests.docs.pages import ROOT

MAKEFILE = (ROOT / "Makefile").read_text()
WORDS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
BENCHMARKS = {path.parent.name for path in ROOT.glob("benchmarks/*/__main__.py")}
OWN = {path.parent.name for top in ("", "src/", "deploy/") for path in ROOT.glob(f"{top}*/__init__.py")}
# At the start of a line, or after a pipe, a semicolon, a bracket or variables set for one command.
PROGRAMS = r"make|(?:deploy/)?flaskapp-deploy|python3? -m|helm|kubectl"
COMMAND = re.compile(rf"(?:^|[|;&({{]|\$\()\s*(?:[A-Z_]+=\S+ )*({PROGRAMS})(?= |$)([^|;&)\n]*)", re.MULTILINE)
PLACEHOLDER = re.compile(r"^[A-Z_]+$|…")


def faults(text: str) -> Iterator[str]:
    """Yield a line for each command, option, file or suite in the text that does not exist."""
    for program, rest in COMMAND.findall(text.replace("\\\n", " ")):
        line = re.sub(r"\s#.*", "", rest)
        words = line.split()
        if program == "make":
            yield from of_make(split(line))
        elif program.endswith("flaskapp-deploy"):
            yield from options("flaskapp_deploy", commands_in(words), words)
        elif program.startswith("python"):
            yield from of_python(words)
        else:
            yield from of_program(program, words)


def split(line: str) -> list[str]:
    """Return the words of a line without quotes, or with them if a command ends within quotes."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def of_make(words: list[str]) -> Iterator[str]:
    targets = [word for word in words if "=" not in word and not word.startswith("-")]
    for word in targets:
        if word not in WORDS and not PLACEHOLDER.match(word):
            yield f"make {word}: the Makefile has no such word"
    for name, _, value in (word.partition("=") for word in words if "=" in word):
        if name == "SUITE":
            existing = BENCHMARKS if "bench" in targets else set(suites.SUITES)
            yield from (
                f"SUITE={one}: there is no such suite" for one in re.findall(r"[a-z-]+", value) if one not in existing
            )
        elif not used(name):
            yield f"make … {name}=: nothing reads {name}"
        elif name == "PART":
            yield from of_part(targets, words, value.split())
        elif re.match(r"[\w.]+/", value) and (ROOT / value.partition("/")[0]).is_dir() and not (ROOT / value).exists():
            yield f"make … {name}={value}: there is no such file"


def of_part(targets: list[str], words: list[str], part: list[str]) -> Iterator[str]:
    """Check the options in PART of `make bench` and `make reliability`."""
    suite = next((word.partition("=")[2] for word in words if word.startswith("SUITE=")), "figures")
    module = "reliability" if "reliability" in targets else f"benchmarks.{suite}"
    yield from options(module, [], part)


@cache
def used(variable: str) -> bool:
    sources = [ROOT / "Makefile", *ROOT.glob("deploy/**/*.py"), *ROOT.glob("tests/**/*.py"), ROOT / "deploy/venv.sh"]
    return any(re.search(rf"\b{variable}\b", path.read_text()) for path in sources)


def of_python(words: list[str]) -> Iterator[str]:
    """Refuse this repository's modules: the system's Python has neither them nor what they import."""
    module = words[0].partition(".")[0] if words else ""
    if module in OWN | {"pytest"}:
        yield f"python -m {module}: the system's Python can't; write `make …` or `deploy/flaskapp-deploy …`"
    elif module and importlib.util.find_spec(module) is None:
        yield f"python -m {module}: there is no such module"


def commands_in(words: list[str]) -> list[str]:
    """Return the words that may be a command and its subcommand."""
    return [word for word in words[:2] if re.fullmatch(r"[a-z][a-z-]*", word)]


def options(module: str, groups: list[str], words: list[str]) -> Iterator[str]:
    """Yield options that `python -m module` doesn't have; its commands are the most words that it knows."""
    for count in range(len(groups), -1, -1):
        code, help_text = asked(sys.executable, "-m", module, *groups[:count])
        if code == 0:
            break
    else:
        yield f"python -m {module} --help fails: {help_text}"
        return
    if count == 0 and groups and "COMMAND" in help_text:
        yield f"python -m {module} {groups[0]}: no such command"
    yield from unknown(words, help_text, f"python -m {module}")


def of_program(program: str, words: list[str]) -> Iterator[str]:
    after = words
    while after and after[0].startswith("-"):  # options of every command, each with its value
        after = after[1 if "=" in after[0] else 2 :]
    verbs = [word for word in after if re.fullmatch(r"[a-z][a-z-]*", word)][:3]
    if not verbs:
        return
    answers = [asked(program, *verbs[:count]) for count in range(1, len(verbs) + 1)]
    if answers[0][0] or f'unknown command "{verbs[0]}"' in answers[0][1]:
        yield f"{program} {verbs[0]}: no such command"
    message = "".join(text for _, text in answers) + (asked_options() if program == "kubectl" else "")
    yield from unknown(words[: words.index("--")] if "--" in words else words, message, f"{program} {verbs[0]}")


def unknown(words: list[str], help_text: str, command: str) -> Iterator[str]:
    for word in words:
        name = word.partition("=")[0]
        if re.fullmatch(r"--?[a-z][a-z0-9-]*", name) and not re.search(rf"(?<![\w-]){name}(?![\w-])", help_text):
            yield f"{command}: its help has no {name}"


@cache
def asked(*command: str) -> tuple[int, str]:
    result = subprocess.run([*command, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stdout + result.stderr


@cache
def asked_options() -> str:
    return subprocess.run(["kubectl", "options"], capture_output=True, text=True, check=True).stdout
