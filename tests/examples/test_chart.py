"""The chart under other tools: chart-testing, kubectl alone, the API server's validation, Helm 3 and then 4."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import requests
import yaml
from hypothesis import HealthCheck, Phase, given, settings

from flaskapp_deploy import programs
from flaskapp_deploy.cluster import lifecycle
from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.shell import DeployError
from tests import pages
from tests.chart import crds
from tests.chart.render import RELEASE_VALUES, RenderError, load, one, render, render_text, run_helm
from tests.chart.test_values_property import DRAWS, Draw, render_draw
from tests.infra.test_flux import FLUX
from tests.kubernetes import LEDGER, ROOT
from tests.reliability.test_release import get, url, wait

Releaser = Callable[[str], Cluster]
CHART = "charts/flaskapp"


@pytest.mark.parametrize("chart", ["postgresql", "flaskapp"])
def test_ct_install(releaser: Releaser, images: dict[str, str], chart: str) -> None:
    """Install, test and remove it with each of ci/*-values.yaml, in an existing namespace with a release's rights.

    Without `--namespace` ct creates namespaces of its own, which needs a cluster administrator.
    """
    cluster = releaser(f"ct-{chart}")
    path = f"{programs.binaries('chart')}:{programs.binaries('kubernetes')}:{os.environ['PATH']}"
    command = ["ct", "install", "--config=charts/ct.yaml", f"--charts=charts/{chart}"]
    command += [f"--namespace={cluster.namespace}", "--helm-extra-args=--timeout 180s"]
    if chart == "flaskapp":
        repository, _, tag = images["flaskapp"].rpartition(":")
        command += [f"--helm-extra-set-args=--set=image.repository={repository} --set-string=image.tag={tag}"]
    environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig), "PATH": path}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr
    assert "All charts installed successfully" in result.stdout
    for values in (ROOT / "charts" / chart / "ci").glob("*-values.yaml"):
        assert f"Installing chart with values file 'charts/{chart}/ci/{values.name}'" in result.stdout.replace('"', "'")


def versions(cluster: Cluster) -> dict[str, str]:
    """Return the resource version of every applied object, which the server changes with each write."""
    kinds = "deployments,statefulsets,services,configmaps,serviceaccounts,jobs,poddisruptionbudgets,secrets"
    items = json.loads(cluster.kubectl("get", kinds, "--output=json").stdout)["items"]
    return {f"{item['kind']}/{item['metadata']['name']}": item["metadata"]["resourceVersion"] for item in items}


def test_kubectl_alone(kubernetes: LocalCluster, releaser: Releaser, images: dict[str, str], tmp_path: Path) -> None:
    """Apply what `make manifests` writes to an empty namespace that enforces `restricted`, without helm."""
    cluster = releaser("kubectl-alone")
    result = subprocess.run(["make", "--no-print-directory", "manifests"], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    files = [ROOT / line for line in result.stdout.split()]
    assert "db-secret.yml" in {file.name for file in files}
    for file in files:
        (tmp_path / file.name).write_text(file.read_text())
    [wanted] = re.findall(r"image: (localhost/flaskapp:\S+)$", "".join(map(Path.read_text, files)), re.MULTILINE)[-1:]
    lifecycle.name_image(kubernetes.name, images["flaskapp"], wanted)

    secret = tmp_path / "db-secret.yml"
    with pytest.raises(DeployError, match="illegal base64"):
        cluster.kubectl("apply", "-f", str(secret))
    assert cluster.kubectl("get", "secrets", "--output=name").stdout == ""

    for password in ("b25l", "dHdv"):
        secret.write_text(secret.read_text().replace("<replace-me>", password, 1))
    cluster.kubectl("apply", "-f", str(tmp_path))
    cluster.kubectl("rollout", "status", "deployment/flaskapp", "--timeout=120s")
    assert requests.get(f"{url(cluster, 'flaskapp')}/api/v1/services", timeout=10).status_code == 200

    wait(lambda: get(cluster, "jobs", selector="app.kubernetes.io/component=migration")[0]["status"].get("succeeded"),
         60, "the end of the migration")  # fmt: skip
    before = versions(cluster)
    cluster.kubectl("apply", "-f", str(tmp_path))
    assert versions(cluster) == before

    template = partial(run_helm, "template", "flaskapp", CHART, "--no-hooks", "--namespace", cluster.namespace,
                       "--values", LEDGER, "--set", "image.repository=localhost/flaskapp",
                       "--set-string", f"image.tag={wanted.rpartition(':')[2]}",
                       "--set", "postgresql.auth.existingSecret=flaskapp-postgresql")  # fmt: skip
    cluster.kubectl("apply", "-f", "-", stdin=template())  # adds helm's labels
    before = versions(cluster)
    cluster.kubectl("apply", "-f", "-", stdin=template())
    assert versions(cluster) == before


def test_the_page_for_kubectl_alone(kubernetes: LocalCluster, images: dict[str, str]) -> None:
    """Run docs/local.md unchanged."""
    version = yaml.safe_load((ROOT / CHART / "Chart.yaml").read_text())["appVersion"]
    lifecycle.name_image(kubernetes.name, images["flaskapp"], f"localhost/flaskapp:{version}")
    path = f"{programs.binaries('kubernetes')}:{os.environ['PATH']}"
    environment = os.environ | {"KUBECONFIG": str(kubernetes.kubeconfig), "PATH": path}
    make, passwords, apply, remove = pages.blocks("local.md", "Plain manifests")
    made = pages.run(make, env=environment, timeout=120).stdout.split()
    page = (ROOT / "docs/local.md").read_text()
    assert all(f"| `{Path(file).name}` |" in page for file in made)
    pages.run(passwords, env=environment, timeout=10)
    try:
        assert '"items" : []' in pages.run(apply, env=environment, timeout=240).stdout
    finally:
        pages.run(remove, env=environment, timeout=120)


@pytest.fixture(scope="module")
def definitions(admin: Callable[[str], Cluster]) -> None:
    """The custom resources that the chart can render, registered with the API server."""
    define(admin("default"), {kind: source for kind, source in crds.SOURCES.items() if kind != "Cluster"})


def define(cluster: Cluster, sources: dict[str, crds.Source]) -> None:
    """Register custom resources with the API server."""
    for kind, source in sorted(sources.items()):
        definition = crds.definition(kind, source)
        # No webhook here converts between versions.
        definition["spec"].pop("conversion", None)
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump(definition))
        names = definition["spec"]["names"]["plural"]
        wait(partial(_served, cluster, names), 30, f"the resource {names}")


def _served(cluster: Cluster, names: str) -> bool:
    return cluster.kubectl("get", names, check=False).returncode == 0


def restricted(cluster: Cluster) -> None:
    """Create the cluster's namespace, which enforces Pod Security `restricted`."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": cluster.namespace, "labels": labels}}
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(namespace))


def dry_run(cluster: Cluster, text: str) -> int:
    """Let the API server validate and admit rendered objects; return how many they are."""
    objects = load(text)
    # A pod, unlike a pod template, needs its service account and its priority class to exist.
    for spec in (item["spec"] for item in objects if item["kind"] == "Pod"):
        cluster.kubectl("create", "serviceaccount", spec["serviceAccountName"], check=False)
        if priority := spec.get("priorityClassName"):
            cluster.kubectl("create", "priorityclass", priority, "--value=1", check=False)
    result = cluster.kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=text)
    assert result.stdout.count("(server dry run)") == len(objects)
    assert "Warning" not in result.stderr, result.stderr
    return len(objects)


@pytest.mark.parametrize("name", RELEASE_VALUES)
def test_the_api_server_accepts_each_set_of_values(
    name: str, definitions: None, admin: Callable[[str], Cluster]
) -> None:
    """The server's own validation and admission accept every environment, every example, and everything at once."""
    cluster = admin("every-set")
    restricted(cluster)
    assert dry_run(cluster, render_text("flaskapp", RELEASE_VALUES[name])) >= 4


def test_the_api_server_refuses_a_mistake(admin: Callable[[str], Cluster]) -> None:
    """What no schema sees: two handlers in a probe."""
    cluster = admin("every-set")
    restricted(cluster)
    deployment = one(render("flaskapp", RELEASE_VALUES["default"]), "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["livenessProbe"]["exec"] = {"command": ["true"]}
    with pytest.raises(DeployError, match="may not specify more than 1 handler type"):
        dry_run(cluster, yaml.safe_dump(deployment))


def test_the_api_server_accepts_what_draws_render(definitions: None, admin: Callable[[str], Cluster]) -> None:
    """The server's own validation and admission accept what the property test's values render."""
    wanted = int(os.environ.get("DRY_RUNS", "10"))
    cluster = admin("dry-run")
    restricted(cluster)
    accepted: list[int] = []

    @settings(max_examples=6 * wanted, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(DRAWS)
    def draw(values: Draw) -> None:
        if len(accepted) >= wanted:
            return
        try:
            text = render_draw(values)
        except RenderError:
            return  # in one clear line: tests/chart/test_values_property.py
        accepted.append(dry_run(cluster, text))

    draw()
    print(f"{len(accepted)} draws, {sum(accepted)} objects accepted by the API server")
    assert len(accepted) == wanted


def test_the_api_server_accepts_the_example_for_flux(admin: Callable[[str], Cluster]) -> None:
    """Validate with the rules that only a server evaluates."""
    cluster = admin("flaskapp")
    define(cluster, FLUX)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "flaskapp"}}
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(namespace))
    result = cluster.kubectl("apply", "--dry-run=server", "-f", str(ROOT / "infra/flux.yaml"))
    assert result.stdout.count("(server dry run)") == 4
    chart = "chart: {spec: {chart: x, sourceRef: {kind: HelmRepository, name: x}}}"
    both = (ROOT / "infra/flux.yaml").read_text().replace("  chartRef:", f"  {chart}\n  chartRef:")
    refused = cluster.kubectl("apply", "--dry-run=server", "-f", "-", stdin=both, check=False)
    assert "either chart or chartRef must be set" in refused.stderr, refused.stderr


def test_helm_3_installs_and_helm_4_takes_over(releaser: Releaser, images: dict[str, str]) -> None:
    cluster = releaser("helm-3")
    helm3 = programs.binaries("helm3") / "helm"
    repository, _, tag = images["flaskapp"].rpartition(":")
    values = ["--values", LEDGER, "--values", "environments/dev.yaml", "--set", f"image.repository={repository}"]
    values += ["--set-string", f"image.tag={tag}", "--wait", "--wait-for-jobs", "--timeout=5m"]

    def upgrade(program: Path, *settings: str) -> None:
        command = [
            str(program),
            "upgrade",
            "--install",
            "old",
            str(CHART),
            *values,
            *settings,
            "--namespace",
            cluster.namespace,
        ]
        environment = os.environ | {"KUBECONFIG": str(cluster.kubeconfig)}
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
        assert result.returncode == 0, result.stderr

    def state() -> tuple[list[str], str, list[str]]:
        pods = get(cluster, "pods", selector="app.kubernetes.io/instance=old,app.kubernetes.io/component=web")
        claims = get(cluster, "pvc", selector="app.kubernetes.io/instance=old")
        alive = [pod["metadata"]["uid"] for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        secret = get(cluster, "secret", "old-postgresql")
        return alive, secret["data"]["password"], [claim["metadata"]["uid"] for claim in claims]

    upgrade(helm3)
    upgrade(helm3, "--set", "config.LOG_LEVEL=INFO")
    before = state()
    upgrade(programs.binaries("chart") / "helm", "--set", "config.LOG_LEVEL=INFO")
    assert state() == before, "taking over rolled a pod, or changed a password"
    # Autoscaling continues under Helm 4: ownership of the fields that Helm 3 set is transferred.
    upgrade(programs.binaries("chart") / "helm", "--set", "autoscaling.enabled=true,autoscaling.minReplicas=1")
    upgrade(programs.binaries("chart") / "helm", "--set", "config.LOG_LEVEL=ERROR")
    assert requests.get(f"{url(cluster, 'old')}/api/v1/services", timeout=10).status_code == 200
    assert state()[1:] == before[1:]
    assert cluster.helm("list", "--output=json").stdout.count('"deployed"') == 1
