"""release.toml: what it takes and what it refuses."""

from pathlib import Path

import pytest

from flaskapp_deploy.release import config
from flaskapp_deploy.resources import ROOT
from flaskapp_deploy.shell import DeployError

GOOD = (ROOT / "release.toml").read_text()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A repository that release.toml fits."""
    (tmp_path / "charts/flaskapp").mkdir(parents=True)
    (tmp_path / "charts/flaskapp/Chart.yaml").touch()
    (tmp_path / "environments").mkdir()
    for name in ("dev", "staging", "ledger"):
        (tmp_path / f"environments/{name}.yaml").touch()
    return tmp_path


def test_ours() -> None:
    release = config.load()
    assert release.is_ledger
    assert (release.name, release.namespace) == ("flaskapp", "flaskapp")


def test_another_directory_goes_by_its_name(tmp_path: Path) -> None:
    release = config.load().with_application(tmp_path / "My_Shop")
    assert (release.name, release.namespace) == ("my-shop", "my-shop")
    assert [path.name for path in release.values] == ["dev.yaml"]
    assert not release.is_ledger


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("name =", "title =", "'name' is missing; 'title' is unknown$"),
        ("name =", 'color = "red"\nname =', "'color' is unknown$"),
        ("namespace =", "namespce =", "'namespace' is missing; 'namespce' is unknown, did you mean 'namespace'"),
        ('"flaskapp"  ', "7  ", "'name' must be a string"),
        ('["environments/dev.yaml"]', '"environments/dev.yaml"', "'values' must be a list"),
        ('["environments/dev.yaml"]', "[7]", "'values.0' must be a path"),
        ("environments/dev.yaml", "environments/prod.yaml", "no values file"),
        ("environments/staging.yaml", "environments/prod.yaml", "no values file"),
        ('["python -m tests', '[7, "python -m tests', "'checks.0' must be a string"),
        ("charts/flaskapp", "charts/other", "no chart in"),
        ('application = "."', 'application = "nowhere"', "no directory"),
        ('application = "."', "application = .", "release.toml: "),
    ],
)
def test_mistakes_are_named(tree: Path, before: str, after: str, message: str) -> None:
    assert before in GOOD
    file = tree / "release.toml"
    file.write_text(GOOD.replace(before, after, 1))
    with pytest.raises(DeployError, match=message) as refused:
        config.load(file)
    assert "\n" not in str(refused.value)
