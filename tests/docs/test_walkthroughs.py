"""docs/contributing-walkthroughs.md: each file that it names has what it says; editors find the schemas."""

import json
import re

import jsonschema
import pytest
import yaml

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs/contributing-walkthroughs.md").read_text()
CHART, LEDGER = (re.findall(r"^\| (`.*?) \|", part, re.MULTILINE) for part in PAGE.split("## Add a field")[:2])
SCHEMAS = json.loads((ROOT / ".vscode/settings.json").read_text())["yaml.schemas"]
PAIRS = [
    (schema, path.relative_to(ROOT))
    for schema, patterns in SCHEMAS.items()
    for pattern in ([patterns] if isinstance(patterns, str) else patterns)
    for path in sorted(ROOT.glob(pattern))
]


def test_each_file_has_the_field() -> None:
    files = re.findall(r"`([^`]+)`", " ".join(LEDGER))
    assert len(files) == 9
    assert not [file for file in files if "chart_version" not in (ROOT / file).read_text()]
    others = {str(path.relative_to(ROOT)) for path in ROOT.glob("src/**/*.*") if path.suffix in (".py", ".html")}
    missed = [file for file in others - set(files) if re.search(r"\bchart_version\b", (ROOT / file).read_text())]
    assert not missed, "these have the field, too"


def test_each_file_of_the_chart_is_there() -> None:
    files = re.findall(r"`([^`]+)`", " ".join(CHART))
    assert len(files) == 13
    assert all((ROOT / file).is_file() for file in files)
    assert "shareProcessNamespace" not in (ROOT / "charts/flaskapp/values.yaml").read_text(), "take another example"


@pytest.mark.parametrize("schema", SCHEMAS)
def test_editors_know_values_files(schema: str) -> None:
    assert [path for used, path in PAIRS if used == schema]


@pytest.mark.parametrize(("schema", "path"), PAIRS, ids=str)
def test_values_files_pass_what_editors_check(schema: str, path: object) -> None:
    jsonschema.validate(yaml.safe_load((ROOT / str(path)).read_text()) or {}, json.loads((ROOT / schema).read_text()))
