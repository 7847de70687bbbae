"""release.toml: what it takes and what it refuses."""

from pathlib import Path

import pytest

from flaskapp_deploy import cli
from flaskapp_deploy.release import config
from flaskapp_deploy.resources import ROOT
from flaskapp_deploy.shell import DeployError

GOOD = (ROOT / "release.toml").read_text()
VALUES = '["environments/ledger.yaml", "environments/dev.yaml"]'


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
    assert config.load().with_application(tmp_path / "1web", "web").name == "web"


def test_ours_by_another_name_keeps_its_values() -> None:
    for release in (config.load().with_application(ROOT, "other"), config.load().with_name("other")):
        assert release.name == "other"
        assert release.values == config.load().values


def test_another_application_gets_none_of_our_values() -> None:
    """VALUES go over development's."""
    other, named = cli._release(ROOT / "examples/hello", (Path("mine.yaml"),)), cli._release(None, (), "other")
    assert [path.name for path in other.values] == ["dev.yaml", "mine.yaml"]
    assert named.values == config.load().values


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("name =", "title =", "'name' is missing; 'title' is unknown$"),
        ("name =", 'color = "red"\nname =', "'color' is unknown$"),
        ("namespace =", "namespce =", "'namespace' is missing; 'namespce' is unknown, did you mean 'namespace'"),
        ('"flaskapp"  ', "7  ", "'name' must be a string"),
        (VALUES, '"environments/dev.yaml"', "'values' must be a list"),
        (VALUES, "[7]", "'values.0' must be a path"),
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
