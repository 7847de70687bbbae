"""What values say of pods reaches every pod of a release, each may have its own, and what pods read rolls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from flaskapp_deploy import programs
from tests.chart.render import BUNDLED, CHARTS, Object, load, merged, one, render, run_helm, values_of

ALL = merged(
    BUNDLED,
    {
        "migrations": {"command": ["migrate"]},
        "backup": {"enabled": True},
        "components": {"worker": {}},
        "cronJobs": {"sweep": {"schedule": "0 3 * * *", "command": ["sweep"]}},
    },
)
# Where each workload's own settings are.
OWN: dict[str, tuple[str, ...]] = {
    "worker": ("components", "worker"),
    "migration": ("migrations", "pod"),
    "cron": ("cronJobs", "sweep"),
    "backup": ("backup", "pod"),
    "test": ("tests", "pod"),
}
PROXY = {"name": "proxy", "image": "proxy:1"}
NATIVE = {**PROXY, "restartPolicy": "Always"}
OTHER = {"name": "other", "image": "other:1"}
# The value of all pods, another one, and where a pod has it.
SETTINGS: dict[str, tuple[Any, Any, str]] = {
    "nodeSelector": ({"a": "b"}, {"c": "d"}, "nodeSelector"),
    "tolerations": ([{"key": "a"}], [{"key": "b"}], "tolerations"),
    "affinity": ({"nodeAffinity": {}}, {"podAffinity": {}}, "affinity"),
    "priorityClassName": ("high", "low", "priorityClassName"),
    "initContainers": ([NATIVE], [OTHER], "initContainers"),
    "podSpec": ({"schedulerName": "one"}, {"schedulerName": "two"}, "schedulerName"),
}


def at(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    return dict(value)


def templates(objects: list[Object]) -> dict[str, dict[str, Any]]:
    """Return the pod template of each workload, by its component; the database is another chart's."""
    result: dict[str, dict[str, Any]] = {}
    for item in objects:
        template = item if item["kind"] == "Pod" else item.get("spec", {}).get("template")
        if item["kind"] == "CronJob":
            template = item["spec"]["jobTemplate"]["spec"]["template"]
        if isinstance(template, dict) and "containers" in template.get("spec", {}):
            result[template["metadata"]["labels"]["app.kubernetes.io/component"]] = template
    result.pop("database", None)
    return result


def pods_of(*layers: dict[str, Any]) -> dict[str, dict[str, Any]]:
    pods = templates(render("flaskapp", merged(ALL, *layers)))
    assert set(pods) == {"web", *OWN}
    return pods


@pytest.mark.parametrize("key", SETTINGS)
def test_a_setting_reaches_every_pod_and_each_may_have_its_own(key: str) -> None:
    of_all, own, field = SETTINGS[key]

    def has(template: dict[str, Any], value: Any) -> bool:
        if key == "initContainers":
            return bool(value[0] in template["spec"].get("initContainers", []))
        if key == "podSpec":
            value = value[field]
        return bool(template["spec"].get(field) == value)

    pods = pods_of({key: of_all})
    assert [name for name, template in pods.items() if not has(template, of_all)] == []
    pods = pods_of({key: of_all}, *(at((*path, key), own) for path in OWN.values()))
    assert [name for name, template in pods.items() if has(template, of_all)] == ["web"]
    assert {name for name, template in pods.items() if has(template, own)} == set(OWN)


def test_labels_and_annotations_merge_and_a_mesh_can_be_switched_off_for_jobs() -> None:
    mesh = {"podLabels": {"a": "1", "mesh": "on"}, "podAnnotations": {"b": "2", "inject": "true"}}
    off = {"podLabels": {"mesh": None}, "podAnnotations": {"inject": "false"}}
    pods = pods_of(
        mesh, {"commonLabels": {"team": "x"}}, *(at(path, off) for name, path in OWN.items() if name != "worker")
    )
    for name, template in pods.items():
        metadata, is_job = template["metadata"], name not in ("web", "worker")
        assert metadata["labels"]["a"], name
        assert metadata["labels"]["team"] == "x", name
        assert metadata["annotations"]["b"] == "2", name
        assert ("mesh" in metadata["labels"]) is not is_job, name
        assert metadata["annotations"]["inject"] == ("false" if is_job else "true"), name


def test_a_sidecar_beside_the_pods_that_serve_is_a_native_one_where_pods_end() -> None:
    for name, template in pods_of({"sidecars": [PROXY]}).items():
        spec = template["spec"]
        serves = name in ("web", "worker")
        assert (PROXY in spec["containers"]) is serves, name
        assert (NATIVE in spec.get("initContainers", [])) is not serves, name
        assert spec.get("restartPolicy", "Always") == ("Always" if serves else "Never"), name
    pods = pods_of({"sidecars": [PROXY]}, *(at((*path, "sidecars"), []) for path in OWN.values()))
    assert [name for name, template in pods.items() if "proxy:1" in json.dumps(template)] == ["web"]


def test_a_proxy_in_init_containers_is_up_before_anything_asks_for_the_database() -> None:
    server = {"host": "127.0.0.1", "name": "shop", "username": "clerk", "existingSecret": "database"}
    for name, template in pods_of(
        {"postgresql": {"enabled": False}, "database": server, "initContainers": [NATIVE]}
    ).items():
        assert template["spec"]["initContainers"][0] == NATIVE, name


def test_security_contexts_reach_every_pod() -> None:
    pods = pods_of({"podSecurityContext": {"runAsUser": 4711}, "containerSecurityContext": {"runAsNonRoot": True}})
    for name, template in pods.items():
        # The backup runs a server, as the user of PostgreSQL's image.
        assert template["spec"]["securityContext"]["runAsUser"] == (999 if name == "backup" else 4711), name
        for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
            assert container["securityContext"]["runAsNonRoot"] is True, (name, container["name"])


def test_pull_secrets_accounts_and_the_mirror_reach_every_pod() -> None:
    secrets = {
        "image": {"pullSecrets": [{"name": "a"}]},
        "global": {"imagePullSecrets": [{"name": "b"}, {"name": "a"}]},
    }
    mirror = {"global": {"imageRegistry": "mirror.example.com:5000/"}, "serviceAccount": {"name": "shop"}}
    for name, template in pods_of(secrets, mirror).items():
        spec = template["spec"]
        assert sorted(secret["name"] for secret in spec["imagePullSecrets"]) == ["a", "b"], name
        assert spec["serviceAccountName"] == "shop", name
        assert spec["automountServiceAccountToken"] is False, name
        images = [container["image"] for container in spec["containers"] + spec.get("initContainers", [])]
        assert [image for image in images if not image.startswith("mirror.example.com:5000/")] == [], name
    assert "mirror.example.com:5000/shop:1.2" in json.dumps(pods_of(mirror))


@pytest.mark.parametrize(
    ("repository", "image"),
    [
        ("shop", "m/shop"),
        ("team/shop", "m/team/shop"),
        ("localhost/a", "m/a"),
        ("r:5000/a/b", "m/a/b"),
        ("r.io/a", "m/a"),
    ],
)
def test_the_mirror_takes_the_place_of_the_registry(repository: str, image: str) -> None:
    values = merged(BUNDLED, {"image": {"repository": repository}, "global": {"imageRegistry": "m"}})
    [container] = one(render("flaskapp", values), "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["image"] == f"{image}:1.2"


def test_resources_and_what_is_merged_last_are_the_applications() -> None:
    limits = {"limits": {"memory": "99Mi"}}
    pods = pods_of({"resources": limits, "containerSpec": {"stdin": True}})
    for name, template in pods.items():
        [container] = template["spec"]["containers"]
        ours = name not in ("backup", "test")
        assert container.get("stdin", False) is ours, name
        assert (container["resources"]["limits"]["memory"] == "99Mi") is (name != "backup"), name
    own = {"resources": {"limits": {"memory": "77Mi"}}, "containerSpec": {"stdin": False, "tty": True}}
    pods = pods_of(
        {"containerSpec": {"stdin": True}}, *(at(path, own) for name, path in OWN.items() if name != "backup")
    )
    for name, template in pods.items():
        [container] = template["spec"]["containers"]
        if name in ("web", "backup"):
            continue
        assert container["resources"]["limits"]["memory"] == "77Mi", name
        assert (container["stdin"], container["tty"]) == (False, True), name


def annotations_of(*layers: dict[str, Any], component: str = "worker") -> dict[str, str]:
    return dict(pods_of(*layers)[component]["metadata"]["annotations"])


PASSWORDS = {"existingSecret": "", "password": "one", "ownerPassword": "two"}
ROLLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a setting": ({"config": {"A": "1"}}, {"config": {"A": "2"}}),
    "what a template in a setting says": (
        {"config": {"A": "{{ .Values.port }}"}, "port": 8000},
        {"config": {"A": "{{ .Values.port }}"}, "port": 8001},
    ),
    "a file": ({"files": {"/a": "1"}}, {"files": {"/a": "2"}}),
    "a secret setting": ({"secrets": {"values": {"A": "1"}}}, {"secrets": {"values": {"A": "2"}}}),
    "the scheme of the URL": (
        {"postgresql": {"auth": PASSWORDS}},
        {"postgresql": {"auth": PASSWORDS | {"urlScheme": "postgresql+psycopg"}}},
    ),
    "a password in variables": (
        {"postgresql": {"auth": PASSWORDS}},
        {"postgresql": {"auth": PASSWORDS | {"password": "three"}}},
    ),
}


@pytest.mark.parametrize("component", ["web", "worker"])
@pytest.mark.parametrize("what", ROLLS)
def test_what_pods_read_rolls_them(what: str, component: str) -> None:
    before, after = ROLLS[what]
    assert annotations_of(before, component=component) == annotations_of(before, component=component)
    assert annotations_of(before, component=component) != annotations_of(after, component=component)


def test_a_password_in_files_rolls_nothing() -> None:
    files = {"database": {"env": {"files": True, "url": ""}}}
    before = annotations_of(files, {"postgresql": {"auth": PASSWORDS}})
    assert before == annotations_of(files, {"postgresql": {"auth": PASSWORDS | {"password": "three"}}})


# --- what overlays take away, and sections that are left empty ------------------------------------------------


@pytest.fixture(scope="module", params=["helm", "helm3"])
def helm(request: pytest.FixtureRequest) -> str:
    return "helm" if request.param == "helm" else str(programs.binaries("helm3") / "helm")


def layered(helm: str, folder: Path, *layers: dict[str, Any] | str, chart: str = "charts/flaskapp") -> list[Object]:
    """Render with a values file for each layer."""
    files = []
    for index, layer in enumerate(layers):
        files.append(folder / f"{index}.yaml")
        files[-1].write_text(layer if isinstance(layer, str) else json.dumps(layer))
    return load(run_helm("template", "web", chart, *(f"--values={file}" for file in files), program=helm))


def test_an_overlay_takes_away_by_null(helm: str, tmp_path: Path) -> None:
    base = {
        "env": {"F": "x", "G": "y"},
        "config": {"C": "x", "D": "y"},
        "secrets": {"values": {"S": "x"}},
        "files": {"/a": "x"},
        "cronJobs": {"sweep": {"schedule": "0 3 * * *", "command": ["sweep"], "resources": {"limits": {"cpu": 1}}}},
        "components": {"worker": {"command": ["w"], "env": {"H": "z"}}, "beat": {}},
        "persistence": {"uploads": {"mountPath": "/data", "accessModes": ["ReadWriteMany"]}},
        "podAnnotations": {"a": "b"},
        "podSpec": {"hostname": "a", "dnsConfig": {"options": []}},
        "probes": {"liveness": {"httpGet": {"path": "/"}}, "readiness": {"exec": {"command": ["a"]}}},
        "commonLabels": {"team": "x"},
    }
    overlay = {
        "env": {"F": None, "PORT": None},
        "config": {"C": None},
        "secrets": {"values": {"S": None}},
        "files": {"/a": None},
        "cronJobs": {"sweep": {"resources": None}},
        "components": {"worker": {"command": None, "env": {"H": None}}, "beat": None},
        "persistence": {"uploads": None},
        "podAnnotations": {"a": None},
        "podSpec": {"hostname": None, "dnsConfig": {"options": None}},
        "probes": {"liveness": {"httpGet": None, "exec": {"command": ["b"]}}, "readiness": None},
        "commonLabels": {"team": None},
    }
    objects = layered(helm, tmp_path, BUNDLED, base, overlay)
    assert not [item for item in objects if item["metadata"]["name"] in ("web-files", "web-beat", "web-uploads")]
    assert [item["data"] for item in objects if item["kind"] == "ConfigMap"][-1] == {"D": "y"}
    assert not [item for item in objects if item["kind"] == "Secret"]
    assert "team" not in json.dumps([item["metadata"] for item in objects])
    pods = templates(objects)
    [app] = pods["web"]["spec"]["containers"]
    names = [variable["name"] for variable in app["env"]]
    assert "G" in names
    assert not {"F", "PORT"} & set(names)
    assert "hostname" not in pods["web"]["spec"]
    assert pods["web"]["spec"]["dnsConfig"] == {}
    assert "a" not in pods["web"]["metadata"]["annotations"]
    assert app["livenessProbe"]["exec"] == {"command": ["b"]}
    assert "httpGet" not in app["livenessProbe"]
    assert "readinessProbe" not in app
    [worker] = pods["worker"]["spec"]["containers"]
    assert "command" not in worker
    assert "H" not in [variable["name"] for variable in worker["env"]]
    assert pods["cron"]["spec"]["containers"][0]["resources"] == app["resources"]


SECTIONS = [key for key, value in values_of(CHARTS / "flaskapp/values.yaml").items() if isinstance(value, dict)]
IMAGE = {"image": {"repository": "registry.example.com/shop", "tag": "1.2"}}


def by_name(objects: list[Object]) -> list[Object]:
    return sorted(objects, key=lambda item: (item["kind"], item["metadata"]["name"]))


def test_an_empty_section_is_its_default(helm: str, tmp_path: Path) -> None:
    """All at once, as a file with everything below its headings commented out."""
    text = "".join(f"{section}:\n" for section in SECTIONS if section != "image")
    text += "image:\n  repository: registry.example.com/shop\n  tag: '1.2'\n  pullSecrets:\n"
    assert by_name(layered(helm, tmp_path, text)) == by_name(layered(helm, tmp_path, IMAGE))


def test_an_empty_section_inside_of_one_is_its_default(helm: str, tmp_path: Path) -> None:
    text = "database:\n  secretKeys:\n  owner:\n    env:\n  env:\n  clientImage:\n"
    text += "backup:\n  persistence:\n  s3:\n    image:\n"
    text += "metrics:\n  serviceMonitor:\nsecrets:\n  values:\npostgresql:\n  primary:\n  service:\n  image:\n"
    assert by_name(layered(helm, tmp_path, BUNDLED, text)) == by_name(layered(helm, tmp_path, BUNDLED))


def test_the_same_under_a_parent_chart(helm: str, tmp_path: Path) -> None:
    """The parent's own values empty sections, and its user's overlay takes keys away."""
    run_helm("package", "charts/flaskapp", "--destination", str(tmp_path / "parent/charts"))
    dependency = {"name": "flaskapp", "version": "0.2.0", "repository": ""}
    version = {"apiVersion": "v2", "name": "parent", "version": "0.1.0", "dependencies": [dependency]}
    (tmp_path / "parent/Chart.yaml").write_text(yaml.safe_dump(version))
    sections = {section: None for section in SECTIONS if section not in ("image", "global")}
    own = {**sections, **IMAGE, "env": {"A": "b"}, "config": {"C": "d"}}
    (tmp_path / "parent/values.yaml").write_text(yaml.safe_dump({"flaskapp": own}))
    overlay = {"flaskapp": {"env": {"A": None}, "config": None, "rollout": None}}
    objects = layered(helm, tmp_path, overlay, chart=str(tmp_path / "parent"))
    assert by_name(objects) == by_name(layered(helm, tmp_path, IMAGE))
