"""docs/benchmarks.md shows what was measured; a part that can't run lets the others go on."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks.figures import __main__ as bench
from benchmarks.figures import cold, figure, parts
from benchmarks.figures.figure import Figure
from tests.docs.pages import ROOT


def test_the_page_has_the_table_and_the_plot() -> None:
    page, results = (ROOT / "docs/benchmarks.md").read_text(), figure.kept()
    assert "\n".join(figure.table(results)) in page, "run `make bench`, and put its table into docs/benchmarks.md"
    assert "\n".join(figure.machines(results)) in page
    assert (ROOT / "docs/benchmarks.svg").read_text() == figure.plot(results)
    ElementTree.fromstring(figure.plot(results))  # noqa: S314 - our own


def test_ratios_come_first_and_are_of_medians() -> None:
    compared = Figure("b", "s", [1, 2, 9], "c", [4, 4, 1])
    results = {"one": ("", "", [Figure("a", "s", [3])]), "two": ("", "", [compared])}
    rows = figure.table(results)[2:]
    assert rows[0].startswith("| **0.50** | b, s | 2.00 (1.00-9.00) |")
    assert rows[1].startswith("|  | a, s | 3.00 |")


def test_a_part_that_cannot_run_is_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> list[Figure]:
        raise RuntimeError("no cluster here\nmore of it")

    kept = tmp_path / "results.json"
    monkeypatch.setattr(parts, "PARTS", {"broken": broken, "fine": lambda: [Figure("a", "s", [1.0])]})
    monkeypatch.setattr(figure, "keep", lambda part, figures: kept.write_text(json.dumps(part)))
    assert [bench.measure(part) for part in parts.PARTS] == [False, True]
    assert "broken: left out: no cluster here\n" in capsys.readouterr().err
    assert json.loads(kept.read_text()) == "fine"


def test_programs_have_their_shares_of_a_first_start() -> None:
    log = """\
images tools, 1 of 1: buildkitd 0.34.2 is being compiled, once (0 s so far)
kubernetes tools, 1 of 3: pause is being compiled, once (1 s so far)
kubernetes tools, 2 of 3: kubectl 1.37.2 is /usr/bin/kubectl
images tools: 1 ready after 82 s
images tools, 1 of 1: buildctl 0.34.2 is being compiled, once (0 s so far)
images tools: 1 ready after 7 s
kubernetes tools, 3 of 3: kubelet 1.37.2 is being compiled, once (9 s so far)
kubernetes tools: 3 ready after 109 s
"""
    assert cold.shares(log) == {"buildkitd": 82, "buildctl": 7, "pause": 8, "kubelet": 100}
