"""checkov reports nothing in the templates, except what ignored.yaml lists with a reason."""

from pathlib import Path

import yaml

from tests.chart.analyzers import failed_checks
from tests.infra import template as t

IGNORED: dict[str, dict[str, str]] = yaml.safe_load((Path(__file__).parent / "ignored.yaml").read_text())
MISTAKES = {
    "rds": ("StorageEncrypted: true", "StorageEncrypted: false"),
    "backup": ("BlockPublicPolicy: true", "BlockPublicPolicy: false"),
    "secrets": ('Action: ["secretsmanager:DescribeSecret", "secretsmanager:GetSecretValue"]', 'Action: ["*"]'),
}


def test_checkov(tmp_path: Path) -> None:
    """Check all templates and three mistakes in one run, as checkov starts slowly."""
    for path in t.paths():
        (tmp_path / path.name).write_text(path.read_text())
    for name, (right, wrong) in MISTAKES.items():
        text = (t.INFRA / f"{name}.yaml").read_text()
        assert right in text
        (tmp_path / f"mistake-{name}.yaml").write_text(text.replace(right, wrong))

    failures: dict[str, set[str]] = {}
    for failed in failed_checks(tmp_path, "cloudformation"):
        name = failed["resource"].partition(".")[2]
        failures.setdefault(Path(failed["file_path"]).stem, set()).add(f"{failed['check_id']} {name}")
    ignored: dict[str, set[str]] = {}
    for check, names in IGNORED.items():
        for file, _, name in (key.partition(".") for key in names):
            ignored.setdefault(file, set()).add(f"{check} {name}")
    assert {file: each for file, each in failures.items() if not file.startswith("mistake-")} == ignored
    for name in MISTAKES:
        assert failures[f"mistake-{name}"] > failures[name], f"checkov did not see the mistake in {name}"
