"""renovate.json covers every version that it should update. docs/updates.md has the commands to ask Renovate itself."""

import json
import re
from pathlib import Path

import pytest

from tests.lint.test_repository import FILES, ROOT

CONFIGURATION = json.loads((ROOT / "renovate.json").read_text())
WORDS, VALUES, CHARTS = CONFIGURATION["customManagers"]
IMAGE = re.compile(r"public\.ecr\.aws/[a-z0-9/-]+:[\w.-]+")
DIGEST = f"sha256:{'0' * 64}"


def matches(manager: dict[str, list[str]], text: str) -> list[dict[str, str]]:
    """Return what a manager's patterns match in a text; their named groups have another syntax than Python's."""
    patterns = [pattern.replace("(?<", "(?P<") for pattern in manager["matchStrings"]]
    return [match.groupdict() for pattern in patterns for match in re.finditer(pattern, text)]


def manages(manager: dict[str, list[str]], path: Path) -> bool:
    name = str(path.relative_to(ROOT))
    return any(re.search(pattern.strip("/"), name) for pattern in manager["managerFilePatterns"])


def texts() -> list[tuple[Path, str]]:
    kinds = {".py", ".yaml", ".yml", ".toml", ".md", ".sh", ""}
    return [
        (path, path.read_text())
        for path in FILES
        if path.suffix in kinds and not {"docs", "released"} & set(path.relative_to(ROOT).parts)  # not updated
    ]


def test_every_image_in_one_word_is_found() -> None:
    places = {path: IMAGE.findall(text) for path, text in texts() if IMAGE.search(text)}
    assert len(places) >= 6
    for path, images in places.items():
        assert manages(WORDS, path), f"{path.relative_to(ROOT)} names {images[0]}, where Renovate doesn't look"
        assert [f"{each['depName']}:{each['currentValue']}" for each in matches(WORDS, path.read_text())] == images


def test_the_dockerfiles_python_is_found() -> None:
    [python] = matches(WORDS, (ROOT / "Dockerfile").read_text())
    assert (python["depName"], python["currentValue"]) == ("public.ecr.aws/docker/library/python", "3.13")


def test_every_image_in_values_is_found() -> None:
    places = {path: re.findall(r"repository: (public\.ecr\.aws/\S+)", text) for path, text in texts()
              if path.suffix == ".yaml"}  # fmt: skip
    assert sum(map(len, places.values())) >= 4
    for path, images in places.items():
        if images:
            assert manages(VALUES, path), path.relative_to(ROOT)
            assert [each["depName"] for each in matches(VALUES, path.read_text())] == images


@pytest.mark.parametrize(
    ("manager", "text"),
    [
        (WORDS, f"ARG PYTHON=public.ecr.aws/docker/library/python:3.13-slim-trixie@{DIGEST}\n"),
        (
            VALUES,
            f'  repository: registry.example.com/shop\n  # -- Tag.\n  tag: "1.0"\n  # -- Digest.\n  digest: {DIGEST}\n',
        ),
    ],
)
def test_a_digest_moves_with_its_tag(manager: dict[str, list[str]], text: str) -> None:
    assert [each["currentDigest"] for each in matches(manager, text)] == [DIGEST]


def test_every_chart_of_others_is_found() -> None:
    readme = ROOT / "infra/README.md"
    assert manages(CHARTS, readme)
    charts = [each["depName"] for each in matches(CHARTS, readme.read_text())]
    assert charts == re.findall(r"helm upgrade --install ([a-z-]+)", readme.read_text())


LOCKS = [path for path in FILES if path.name.endswith(".lock") and path.name.startswith("requirements")]
OURS = [path for path in LOCKS if "examples" not in path.parts]


@pytest.mark.parametrize("lock", OURS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_lock_says_how_it_is_made(lock: Path) -> None:
    """Renovate runs the command at its top, and does not know uv's short options."""
    command = lock.read_text().splitlines()[1].removeprefix("#").split()
    assert command[:3] == ["uv", "pip", "compile"]
    source, options = command[-1], command[3:-1]
    assert (ROOT / source).is_file()
    assert f"--output-file={lock.relative_to(ROOT)}" in options
    assert {"--universal", "--python-version=3.11", "--generate-hashes"} <= set(options)
    assert all(option.startswith("--") for option in options)
    [pattern] = CONFIGURATION["pip-compile"]["managerFilePatterns"]
    assert re.search(pattern.strip("/"), str(lock.relative_to(ROOT)))
