"""flux.yaml: Flux's own schemas, and what it has in common with the templates, the pipeline and the environments."""

import copy
import re
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.chart import crds
from tests.infra import template as t

OPERATOR = "github.com/controlplaneio-fluxcd/flux-operator@v0.59.0"
DIGEST = "h1:jByuiWYtjSJxucGHuz68tV0DeVFz5CYrKQYfxAwE7lE="
FLUX = {
    kind: crds.Source(OPERATOR, DIGEST, f"config/data/flux/v2.9.5/{controller}.yaml")
    for kind, controller in {"OCIRepository": "source-controller", "HelmRelease": "helm-controller"}.items()
}
OBJECTS = {item["kind"]: item for item in yaml.safe_load_all((t.INFRA / "flux.yaml").read_text())}
RELEASE, REPOSITORY = OBJECTS["HelmRelease"], OBJECTS["OCIRepository"]
ROOT = t.INFRA.parent


def mistakes(item: dict[str, Any]) -> list[str]:
    """Return the errors by the schema of the object's kind and version."""
    version = item["apiVersion"].partition("/")[2]
    validator = Draft202012Validator(crds.schemas(item["kind"], FLUX[item["kind"]])[version])
    return [error.message for error in validator.iter_errors(item)]


@pytest.mark.parametrize("kind", FLUX)
def test_flux_knows_the_object(kind: str) -> None:
    assert mistakes(OBJECTS[kind]) == []


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("OCIRepository", "provider", "amazon"),
        ("OCIRepository", "layerselector", {}),
        ("OCIRepository", "interval", "5"),
        ("HelmRelease", "chartRef", {"kind": "OCI", "name": "flaskapp"}),
        ("HelmRelease", "tests", {"enable": True}),
    ],
)
def test_a_mistake_is_found(kind: str, key: str, value: Any) -> None:
    wrong = copy.deepcopy(OBJECTS[kind])
    wrong["spec"][key] = value
    assert mistakes(wrong) != []


def test_it_reads_the_repository_that_the_pipeline_writes() -> None:
    template = t.load("ecr")
    defaults = {name: each["Default"] for name, each in template["Parameters"].items()}
    repository = t.substituted(template["Resources"]["Chart"]["Properties"]["RepositoryName"], **defaults)
    assert REPOSITORY["spec"]["url"] == f"oci://ACCOUNT.dkr.ecr.REGION.amazonaws.com/{repository}"


def test_tagged_versions_are_taken_and_a_commits_are_not() -> None:
    wanted = REPOSITORY["spec"]["ref"]
    assert re.search(
        wanted["semverFilter"], yaml.safe_load((ROOT / "charts/flaskapp/Chart.yaml").read_text())["version"]
    )
    assert not re.search(wanted["semverFilter"], "0.2.0-g0123456789ab")
    assert "-" not in wanted["semver"], "a range with a pre-release takes pre-releases"


def test_it_has_the_rights_of_a_release() -> None:
    role, _ = yaml.safe_load_all((t.INFRA / "helm-release-role.yaml").read_text())
    binding, account = OBJECTS["RoleBinding"], OBJECTS["ServiceAccount"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [account["metadata"]["name"]]
    assert RELEASE["spec"]["serviceAccountName"] == account["metadata"]["name"]


def test_its_values_are_the_overlays_that_readme_gives_it() -> None:
    readme = (t.INFRA / "README.md").read_text()
    [command] = re.findall(r"kubectl create configmap flaskapp-values (?:.*\\\n)*.*$", readme, re.MULTILINE)
    paths = re.findall(r"--from-file=(\S+)", command)
    assert [path.rpartition("/")[2] for path in paths] == [each["valuesKey"] for each in RELEASE["spec"]["valuesFrom"]]
    assert all((ROOT / path).is_file() for path in paths)
