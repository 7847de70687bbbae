"""The pages name the commands of examples/migrations, which tests/examples/test_migrations.py rolls back under load."""

import re

import pytest
import yaml

from tests.docs.pages import ROOT


@pytest.mark.parametrize("tool", ["flask-migrate", "alembic", "django"])
def test_the_commands_are_the_ones_that_are_tested(tool: str) -> None:
    values = yaml.safe_load((ROOT / "examples/migrations" / tool / "values.yaml").read_text())
    command = f"[{', '.join(values['migrations']['command'])}]"
    assert f"`{command}`" in (ROOT / "docs/your-application.md").read_text().replace("migrations.command: ", "")


def test_the_charts_readme_has_the_example_with_flask_migrate() -> None:
    page = (ROOT / "charts/flaskapp/README.md.gotmpl").read_text()
    [block] = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "migrations:" in block]
    values = yaml.safe_load((ROOT / "examples/migrations/flask-migrate/values.yaml").read_text())
    assert yaml.safe_load(block)["migrations"] == values["migrations"]
