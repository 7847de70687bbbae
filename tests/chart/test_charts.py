"""The charts as a whole: lint, Kubernetes' schemas, environments, reproducible renders, generated files, size."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from tests.chart.kubernetes_schemas import BETWEEN, NEWEST, OLDEST, kubeconform
from tests.chart.policy import pods
from tests.chart.render import (
    BUNDLED,
    CHARTS,
    ENVIRONMENTS,
    LEDGER,
    RELEASE_VALUES,
    ROOT,
    WITHOUT_CLUSTER,
    Object,
    RenderError,
    layers_of,
    load,
    merged,
    one,
    render,
    render_text,
    run_helm,
    values_of,
)  # fmt: skip


def run(*arguments: str, cwd: Path = ROOT, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=cwd, input=stdin, check=False, capture_output=True, text=True, timeout=120)


def output(result: subprocess.CompletedProcess[str]) -> str:
    return result.stdout + result.stderr


@pytest.mark.parametrize(
    "values", sorted((Path(__file__).parent / "released").glob("*.yaml")), ids=lambda path: path.stem
)
def test_the_values_of_an_earlier_chart_are_enough(values: Path, tmp_path: Path) -> None:
    """`helm upgrade --reuse-values` uses the earlier chart's values, which released/ has, instead of the new ones."""
    chart = shutil.copytree(CHARTS / "flaskapp", tmp_path / "flaskapp")
    shutil.copy(values, chart / "values.yaml")

    def kinds(path: Path, *layers: dict[str, Any]) -> list[str]:
        stdin = json.dumps(merged(LEDGER, WITHOUT_CLUSTER, *layers))
        return [item["kind"] for item in load(run_helm("template", "web", str(path), "--values", "-", stdin=stdin))]

    with pytest.raises(RenderError, match=r"database\.enabled: gone; the database is on when postgresql\.enabled"):
        kinds(chart)
    assert kinds(chart, {"database": {"enabled": None}}) == kinds(CHARTS / "flaskapp")


OLD_VALUES = values_of(Path(__file__).parent / "released/0.2.0.yaml")
# What an installation of version 0.2.0 set for itself, beside each of its keys; `database.enabled` is answered.
OLD_RELEASE = merged(WITHOUT_CLUSTER, {"postgresql": {"enabled": True}, "migrations": {"command": ["migrate"]}})


def keys_of(values: dict[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from keys_of(value, (*path, key))
        else:
            yield (*path, key)


def test_every_value_of_the_last_version_is_taken_or_answered() -> None:
    answers = {}
    for path in keys_of(OLD_VALUES):
        value: Any = OLD_VALUES
        for key in path:
            value = value[key]
        for key in reversed(path):
            value = {key: value}
        try:
            render("flaskapp", merged(OLD_RELEASE, value, WITHOUT_CLUSTER))
        except RenderError as error:
            answers[".".join(path)] = str(error)
    assert list(answers) == ["database.enabled"]
    assert "database.enabled: gone; the database is on when" in answers["database.enabled"]


def test_each_guard_has_its_exact_message_in_a_unit_suite() -> None:
    fail = re.compile(r'fail (?:\(printf\s+)?"((?:[^"\\]|\\.)*)"')
    guards = [text for path in CHARTS.glob("*/templates/*validate*") for text in fail.findall(path.read_text())]
    assert len(guards) > 60
    suites = [yaml.safe_load(path.read_text()) for path in CHARTS.glob("*/tests/*_test.yaml")]
    asserted = [one for suite in suites for case in suite["tests"] for one in case["asserts"]]
    messages = {one["failedTemplate"].get("errorMessage", "") for one in asserted if "failedTemplate" in one}

    def shown(guard: str) -> bool:
        pattern = re.compile(".+".join(map(re.escape, re.split(r"%[a-z]", guard.replace('\\"', '"')))))
        return any(map(pattern.fullmatch, messages))

    assert [guard for guard in guards if not shown(guard)] == []


@pytest.mark.parametrize("name", RELEASE_VALUES)
def test_lint_strict(name: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(RELEASE_VALUES[name]))
    assert "0 chart(s) failed" in run_helm("lint", "--strict", "charts/flaskapp", "--values", str(values))


def test_lint_postgresql_strict() -> None:
    assert "0 chart(s) failed" in run_helm(
        "lint", "--strict", "charts/postgresql", "-f", "charts/postgresql-values.yaml"
    )


ACCEPTED_BY = {OLDEST: [*RELEASE_VALUES], **{version: ["everything"] for version in BETWEEN}, NEWEST: [*RELEASE_VALUES]}


@cache
def check_rendered(version: str) -> dict[str, list[tuple[str, str]]]:
    """Return (status, message) of each rendered object, by the values; kubeconform reads a version's schemas once."""
    with TemporaryDirectory() as folder:
        for name in ACCEPTED_BY[version]:
            text = render_text("flaskapp", RELEASE_VALUES[name], "--kube-version", version)
            Path(folder, name).with_suffix(".yaml").write_text(text)
        report = json.loads(kubeconform("", version, "-output=json", "-verbose", folder).stdout)
    results: dict[str, list[tuple[str, str]]] = {}
    for item in report["resources"]:
        results.setdefault(Path(item["filename"]).stem, []).append((item["status"], item["msg"]))
    return results


@pytest.mark.parametrize(
    ("name", "version"), [(name, version) for version, names in ACCEPTED_BY.items() for name in names]
)
def test_kubernetes_accepts_every_object(name: str, version: str) -> None:
    objects = render("flaskapp", RELEASE_VALUES[name], "--kube-version", version)
    assert check_rendered(version)[name] == [("statusValid", "")] * len(objects)


@pytest.mark.parametrize(
    ("kind", "key", "mistake"),
    [
        ("Deployment", "progressDeadlineSeconds", "progressDeadlineSecond"),
        ("HTTPRoute", "backendRefs", "backendRef"),
        ("PrometheusRule", "alert", "alarm"),
        ("ServiceMonitor", "interval", "intervals"),
        ("ExternalSecret", "secretStoreRef", "secretStore"),
    ],
)
def test_kubeconform_sees_a_mistake(kind: str, key: str, mistake: str) -> None:
    objects = render("flaskapp", RELEASE_VALUES["everything"])
    text = yaml.safe_dump(next(item for item in objects if item["kind"] == kind))
    assert f"{key}:" in text
    result = kubeconform(text.replace(f"{key}:", f"{mistake}:"), NEWEST)
    assert result.returncode == 1
    assert mistake in output(result)


def test_the_cluster_in_the_docs_is_the_one_that_the_environment_names() -> None:
    text = (ROOT / "docs/postgresql.md").read_text()
    manifest = text[text.index("apiVersion: postgresql.cnpg.io") :].partition("```")[0]
    result = kubeconform(manifest, NEWEST)
    assert result.returncode == 0, output(result)
    cluster, database = yaml.safe_load(manifest), values_of(ROOT / "environments/production-cnpg.yaml")["database"]
    name = cluster["metadata"]["name"]
    assert (database["host"], database["existingSecret"]) == (f"{name}-rw", f"{name}-app")
    assert database["caSecret"] == f"{name}-ca"
    initdb = cluster["spec"]["bootstrap"]["initdb"]
    assert (database["name"], database["username"]) == (initdb["database"], initdb["owner"])


def test_the_values_in_the_readme() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (CHARTS / "flaskapp/README.md").read_text(), re.DOTALL)
    typical, fetched = map(yaml.safe_load, blocks)
    assert len([line for line in blocks[0].splitlines() if not line.strip().startswith("#")]) <= 20
    application = merged(typical, WITHOUT_CLUSTER)
    for values in (application, merged(application, fetched, {"postgresql": {"enabled": False}})):
        text = render_text("flaskapp", values)
        assert kubeconform(text, NEWEST).returncode == 0
        assert "name: DATABASE_URL" in yaml.safe_dump_all(load(text))
    template = fetched["database"]["externalSecret"]["target"]["template"]["data"]["url"]
    awkward = {"kind": "ConfigMap", "metadata": {"name": "url"}, "url": template.replace(".password", '"+ p/?"')}
    objects = render("flaskapp", merged(application, {"extraObjects": [awkward]}))
    assert one(objects, "ConfigMap", "url")["url"] == "postgresql://shop:%2B%20p%2F%3F@db.example.org:5432/shop"


def test_the_values_in_the_docs_for_rds_by_iam() -> None:
    document = (ROOT / "docs/postgresql.md").read_text()
    values = yaml.safe_load(document[document.index("# production-rds by IAM") :].partition("```")[0])
    objects = render("flaskapp", merged(RELEASE_VALUES["production-rds"], values))
    assert kubeconform(yaml.safe_dump_all(objects), NEWEST).returncode == 0
    web = one(objects, "Deployment")["spec"]["template"]["spec"]
    [migration] = [spec for name, spec in pods(objects) if "-migrate-" in name]
    mine, owners = (
        {item["name"]: item.get("value") for item in spec["containers"][0]["env"]} for spec in (web, migration)
    )
    assert not {name for name in mine if "PASSWORD" in name or name == "DB_AUTH"}
    assert "flaskapp-database" not in str(web["volumes"])
    assert one(objects, "ConfigMap", "web")["data"]["DB_AUTH"] == "rds-iam"
    assert (owners["DB_AUTH"], owners["DB_USERNAME"]) == ("password", "flaskapp_owner")
    assert owners["DB_PASSWORD_FILE"] == "/run/secrets/database/password"


@pytest.mark.parametrize("name", RELEASE_VALUES)
def test_two_renders_are_equal(name: str) -> None:
    values = yaml.safe_dump(RELEASE_VALUES[name])
    command = ("template", "web", "charts/flaskapp", "--values", "-")
    assert run_helm(*command, stdin=values) == run_helm(*command, stdin=values)


def test_nothing_is_rendered_where_a_password_could_not_stay() -> None:
    with pytest.raises(RenderError, match=r"postgresql\.auth\.existingSecret: helm does not reach the cluster"):
        render("flaskapp", merged(BUNDLED, {"postgresql": {"auth": {"existingSecret": ""}}}))


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_environment_holds_only_differences(path: Path) -> None:
    """An environment repeats no default, and holds no secret."""

    def same(layer: dict[str, Any], base: dict[str, Any], at: str = "") -> list[str]:
        repeated = []
        for key, value in layer.items():
            if isinstance(value, dict) and isinstance(base.get(key), dict):
                repeated += same(value, base[key], f"{at}{key}.")
            elif key in base and base[key] == value:
                repeated.append(at + key)
        return repeated

    values = values_of(path)
    postgresql = {"postgresql": values_of(CHARTS / "postgresql" / "values.yaml")}
    # The values of development are for other applications too, so they go over the chart's alone.
    ledger = {} if path.stem == "dev" else LEDGER
    base = merged(postgresql, values_of(CHARTS / "flaskapp" / "values.yaml"), ledger, *layers_of(path)[:-1])
    # Whether it brings the server itself, each says.
    assert set(same(values, base)) <= {"postgresql.enabled"}
    assert "values" not in values.get("secrets", {})
    assert not set(values.get("postgresql", {}).get("auth", {})) & {"password", "ownerPassword"}


def without_release(objects: list[Object]) -> list[Object]:
    for item in objects:
        for labels in (item["metadata"]["labels"], item["spec"]["selector"] if item["kind"] == "Service" else {}):
            labels.pop("app.kubernetes.io/instance", None)
    return sorted(objects, key=lambda item: (item["kind"], item["metadata"]["name"]))


def test_postgresql_alone_is_what_the_release_brings() -> None:
    alone = values_of(CHARTS / "postgresql-values.yaml")
    defaults, ledgers = values_of(CHARTS / "postgresql/values.yaml"), {**LEDGER["postgresql"], "enabled": False}
    assert merged(defaults, alone) == merged(defaults, ledgers)

    def objects(text: str) -> list[Object]:
        text = text.replace("app.kubernetes.io/instance: web-postgresql", "app.kubernetes.io/instance: web")
        documents = [part for part in text.split("\n---\n") if "charts/postgresql/templates" in part or name_is_alone]
        return [item for part in documents for item in yaml.safe_load_all(part) if item]

    passwords = {"auth": {"password": "one", "ownerPassword": "two"}}
    name_is_alone = True
    first = objects(render_text("postgresql", merged(alone, passwords), name="web-postgresql"))
    name_is_alone = False
    image = {"image": WITHOUT_CLUSTER["image"]}
    second = objects(render_text("flaskapp", merged(LEDGER, image, {"postgresql": passwords})))
    assert {item["kind"] for item in first} == {"StatefulSet", "Service", "Secret", "ConfigMap"}
    assert without_release(first) == without_release(second)


def test_schemas_say_what_the_values_say() -> None:
    result = run(sys.executable, "charts/schema.py", "--check")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("chart", ["flaskapp", "postgresql"])
def test_every_value_is_described(chart: str) -> None:
    schema = yaml.safe_load((CHARTS / chart / "values.schema.json").read_text())

    def undescribed(node: dict[str, Any], at: str) -> list[str]:
        missing = [] if node.get("description") or "properties" in node else [at]
        return missing + [
            name for key, inner in node.get("properties", {}).items() for name in undescribed(inner, f"{at}.{key}")
        ]

    assert undescribed(schema, chart) == [f"{chart}.postgresql.enabled"] * (chart == "flaskapp")


def test_readmes_say_what_the_values_say(tmp_path: Path) -> None:
    copy = tmp_path / "charts"
    shutil.copytree(CHARTS, copy, ignore=shutil.ignore_patterns("*.tgz"))
    result = run("helm-docs", "--chart-search-root", str(copy), "--sort-values-order", "file", "--log-level", "warning")
    assert result.returncode == 0, output(result)
    for chart in ("flaskapp", "postgresql"):
        assert (copy / chart / "README.md").read_text() == (CHARTS / chart / "README.md").read_text(), (
            "run `make generate`"
        )


def test_files_stay_small(tmp_path: Path) -> None:
    for path in CHARTS.glob("*/templates/**/*"):
        if path.is_file():
            assert len(path.read_text().splitlines()) <= 250, path
    run_helm("package", "charts/flaskapp", "--destination", str(tmp_path))
    # helm keeps it in a Secret, of at most 1 MiB, with each revision.
    assert next(tmp_path.glob("*.tgz")).stat().st_size < 80 * 1024


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with the charts, whose `main` is published; tests may change it."""
    origin, work = tmp_path / "origin", tmp_path / "work"
    origin.mkdir()
    shutil.copytree(CHARTS, origin / "charts", ignore=shutil.ignore_patterns("*.tgz"))
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-qm", "charts"]):
        assert run(*git, *command, cwd=origin).returncode == 0
    assert run("git", "clone", "-q", str(origin), str(work)).returncode == 0
    return work


def commit(repository: Path) -> None:
    git = ("git", "-c", "user.name=test", "-c", "user.email=test@example.org")
    assert run(*git, "commit", "-qam", "change", cwd=repository).returncode == 0


def test_ct_lint() -> None:
    result = run("ct", "lint", "--config", "charts/ct.yaml", "--charts", "charts/postgresql,charts/flaskapp")
    assert result.returncode == 0, output(result)
    assert "All charts linted successfully" in result.stdout


def test_ct_refuses_a_change_without_a_new_version(repository: Path) -> None:
    values = repository / "charts/postgresql/values.yaml"
    values.write_text(values.read_text().replace("maxConnections: 100", "maxConnections: 200"))
    commit(repository)
    refused = run("ct", "lint", "--config", "charts/ct.yaml", cwd=repository)
    assert refused.returncode == 1
    assert "chart version not ok. Needs a version bump" in output(refused)
    chart = repository / "charts/postgresql/Chart.yaml"
    chart.write_text(re.sub(r"^version: .*", "version: 99.0.0", chart.read_text(), flags=re.MULTILINE))
    commit(repository)
    accepted = run("ct", "lint", "--config", "charts/ct.yaml", cwd=repository)
    assert accepted.returncode == 0, output(accepted)


def test_each_alert_has_its_runbook() -> None:
    rule = one(
        render("flaskapp", merged(RELEASE_VALUES["everything"], {"migrations": {"mode": "job"}})), "PrometheusRule"
    )
    alerts = {item["alert"].removeprefix("Web") for item in rule["spec"]["groups"][0]["rules"]}
    headings = set(re.findall(r"^## (\w+)$", (ROOT / "docs" / "alerts.md").read_text(), re.MULTILINE))
    assert len(alerts) == 9
    assert alerts == headings


def test_plain_manifests(tmp_path: Path) -> None:
    result = run(sys.executable, "charts/manifests.py", str(tmp_path))
    assert result.returncode == 0, output(result)
    text = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert set(text) == {
        "db-configmap.yml",
        "db-secret.yml",
        "kubernetes-postgresql.yml",
        "kubernetes-flaskapp-api.yml",
    }
    kinds = {name: {item["kind"] for item in yaml.safe_load_all(one_file)} for name, one_file in text.items()}
    assert kinds["db-configmap.yml"] == {"ConfigMap"}
    assert kinds["db-secret.yml"] == {"Secret"}
    assert kinds["kubernetes-postgresql.yml"] == {"StatefulSet", "Service"}
    assert {"Deployment", "Service", "Job", "ServiceAccount"} <= kinds["kubernetes-flaskapp-api.yml"]
    assert "managed-by" not in "".join(text.values())
    conform = kubeconform("\n---\n".join(text.values()), NEWEST)
    assert "illegal base64" in output(conform) or conform.returncode == 0, output(conform)
    for value in yaml.safe_load(text["db-secret.yml"])["data"].values():
        with pytest.raises(ValueError, match="base64"):
            base64.b64decode(value, validate=True)
