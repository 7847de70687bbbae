"""Generate each chart's values.schema.json from its values.yaml: keys, types, defaults, comments as descriptions.

Beside it, in a chart that has one, files/defaults.yaml: what a section is when values leave it empty.

    make generate                      # writes, with the other generated files
    python charts/schema.py --check    # fails when a schema is not what it would write

What a default can't express (limits, choices, which objects are open) is in the chart's schema.yaml, by path. Old names
in the chart's files/renamed.yaml are allowed, so that templates/validate.yaml can print the new one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

CHARTS = Path(__file__).parent
TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "null": "null"}
MARK = "# -- "

Schema = dict[str, Any]


def description(lines: list[str], line: int) -> str:
    """Return the comment directly above a line, from its last mark on; empty if there is none."""
    comment: list[str] = []
    while line > 0 and (text := lines[line - 1].strip()).startswith("# ") and not text.startswith("# ---"):
        comment.insert(0, text.removeprefix("# "))
        line -= 1
        if text.startswith(MARK):
            return " ".join([comment[0].removeprefix("-- "), *comment[1:]])
    return ""


def describe(node: yaml.Node, path: str, lines: list[str], rules: dict[str, Schema]) -> Schema:
    """Return the schema of a value: its type and default, and the rules for its path."""
    rule = dict(rules.get(path, {}))
    is_open = rule.pop("open", False)
    if isinstance(node, yaml.SequenceNode):
        base: Schema = {"type": "array", "items": {"type": "object"}}
    elif isinstance(node, yaml.ScalarNode):
        base = {"type": TYPES[node.tag.rsplit(":", 1)[1]]}
        if base["type"] == "integer":
            base["minimum"] = 0
    elif not node.value or is_open:
        base = {"type": "object"}
    else:
        base = {"type": ["object", "null"] if path else "object", "additionalProperties": False, "properties": {}}
        for key, value in node.value:
            inner = describe(value, f"{path}.{key.value}".lstrip("."), lines, rules)
            text = description(lines, key.start_mark.line)
            base["properties"][key.value] = {"description": text, **inner} if text else inner
        return base | rule
    return base | rule | {"default": yaml.safe_load(yaml.serialize(node))}


def allow(node: Schema, path: list[str], new: str) -> None:
    """Allow an old name with any value."""
    for key in path[:-1]:
        node = node["properties"][key]
    assert path[-1] not in node["properties"], f"{path} is a value"
    node["properties"][path[-1]] = {"description": f"Called {new}.", "deprecated": True}


def schema(chart: Path) -> str:
    """Return the JSON schema of a chart's values."""
    text = (chart / "values.yaml").read_text()
    node = yaml.compose(text)
    assert node is not None
    rules = yaml.safe_load((chart / "schema.yaml").read_text())
    body = describe(node, "", text.splitlines(), rules)
    renamed = chart / "files/renamed.yaml"
    for old, new in yaml.safe_load(renamed.read_text()).items() if renamed.exists() else ():
        allow(body, old.split("."), new)
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"Values of the {chart.name} chart"}
    return json.dumps(head | body, indent=2, ensure_ascii=False) + "\n"


def defaults(node: Schema, top: bool = True) -> dict[str, Any]:
    """Return the defaults of all keys, for templates that fill in what is missing.

    `key=` is a map that is taken as it is, for its keys are anybody's. `key?` may be removed by null, so it comes only
    with its whole section; at the top it is left out.
    """
    result = {}
    for key, value in node["properties"].items():
        if "properties" in value and "default" not in value:
            result[key] = defaults(value, top=False)
        elif value.get("default") is None:
            continue
        elif "null" not in value["type"]:
            result[f"{key}=" if isinstance(value["default"], dict) and value["default"] else key] = value["default"]
        elif not top:
            result[f"{key}?"] = value["default"]
    return result


def generated(chart: Path) -> dict[Path, str]:
    """Return what is generated for a chart, by file."""
    text = schema(chart)
    files = {chart / "values.schema.json": text}
    if (chart / "files/defaults.yaml").exists():
        head = "# Generated from values.yaml by `make generate`: what an empty section is.\n"
        body = yaml.safe_dump(defaults(json.loads(text)), sort_keys=False, width=120)
        files[chart / "files/defaults.yaml"] = head + body
    return files


def main(arguments: list[str]) -> int:
    """Write the files, or with `--check` return 1 if one is out of date."""
    stale = []
    for chart in sorted(path.parent for path in CHARTS.glob("*/schema.yaml")):
        for target, wanted in generated(chart).items():
            if target.exists() and target.read_text() == wanted:
                continue
            stale.append(str(target))
            if "--check" not in arguments:
                target.write_text(wanted)
    if stale and "--check" in arguments:
        print(f"not what values.yaml says, run `make generate`: {', '.join(stale)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
