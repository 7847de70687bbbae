"""The GitHub Actions workflow runs commands that exist, and kind is handled as any other cluster."""

import yaml

from flaskapp_deploy.up.target import Context, Kind
from tests.docs import commands
from tests.docs.pages import ROOT


def test_commands_exist() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release-tests.yml").read_text())
    lines = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert len(lines) > 6
    assert not [fault for line in lines for fault in commands.faults(line)]


def test_kind_differs_in_making_the_cluster_alone() -> None:
    own = {name for name, member in vars(Kind).items() if callable(member)}
    assert own == {"__init__", "up", "delete"}
    assert Kind.deliver is Context.deliver
    assert Kind.reach is Context.reach
