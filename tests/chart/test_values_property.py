"""Any values that the schema allows render objects that comply with the policy, or are refused in one clear line.

A draw is what users bring together: a release's name, a values file, and an overlay, which takes keys away by null.
Both Helms render it, and say the same.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from flaskapp_deploy import programs
from tests.chart.kubernetes_schemas import NEWEST, kubeconform
from tests.chart.policy import violations
from tests.chart.render import CHARTS, WITHOUT_CLUSTER, Object, RenderError, load, run_helm

EXAMPLES = int(os.environ.get("CHART_EXAMPLES", "60"))
SCHEMA = json.loads((CHARTS / "flaskapp" / "values.schema.json").read_text())
NAMES = st.sampled_from(["A", "B_1", "DB_HOST", "PORT", "LOG_LEVEL", "NULL", "on"])
TEXTS = st.sampled_from(
    [
        "",
        "x",
        "a b",
        "'quoted' \"twice\"",
        "{{ .Release.Name }}",
        "$(A)",
        "# no comment",
        "yes",
        "0",
        "007",
        "1e3",
        "é\n- b: c",
    ]
)
FROM_SECRET = {"valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
SIMPLE = st.one_of(TEXTS, st.integers(0, 2**54), st.floats(-1e9, 1e9), st.booleans(), st.none())
# Labels may not have spaces; what a label may be is Kubernetes' to say.
LABELS = st.dictionaries(
    st.sampled_from(["a", "example.com/b", "app.kubernetes.io/name"]),
    st.one_of(
        st.sampled_from(["", "x", "yes", "1.0", "007", "{{ .Release.Name }}"]),
        st.integers(0, 10**9),
        st.booleans(),
        st.none(),
    ),
    max_size=2,
)
ANNOTATIONS = st.dictionaries(st.sampled_from(["a", "example.com/b"]), SIMPLE, max_size=2)
HANDLERS: dict[str, Any] = {
    "exec": {"command": ["true"]}, "grpc": {"port": 1}, "httpGet": {"path": "/"}, "tcpSocket": {"port": 9}
}  # fmt: skip
PROBE = st.fixed_dictionaries(
    {},
    optional={"periodSeconds": st.just(9)} | {key: st.sampled_from([value, None]) for key, value in HANDLERS.items()},
)
PROBES = st.one_of(st.just({}), st.sampled_from([{key: value} for key, value in HANDLERS.items()]), PROBE, st.none())
SIDECAR = {
    "name": "proxy", "image": "proxy:1",
    "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"memory": "1Mi"}},
    "securityContext": {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}
    },
}  # fmt: skip
CONTAINERS = st.sampled_from([[], [], [SIDECAR]])
POD: dict[str, st.SearchStrategy[Any]] = {
    "podLabels": LABELS, "podAnnotations": ANNOTATIONS, "sidecars": CONTAINERS, "nodeSelector": st.just({"a": "b"}),
    "podSpec": st.sampled_from([{}, {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}], "schedulerName": None}]),
    "containerSpec": st.sampled_from([{}, {"stdin": True}]), "priorityClassName": st.sampled_from(["", "name", None]),
}  # fmt: skip
OWN = st.fixed_dictionaries({}, optional=POD)
COMPONENT = st.fixed_dictionaries(
    {},
    optional=POD
    | {
        "command": st.sampled_from([["work"], None]), "replicas": st.sampled_from([0, 1, 3, None]),
        "port": st.sampled_from([5555, None]), "env": st.dictionaries(NAMES, SIMPLE, max_size=2),
        "probes": st.fixed_dictionaries({}, optional={"liveness": PROBES}),
        "terminationGracePeriodSeconds": st.sampled_from([0, 90]),
        "rollout": st.sampled_from([{"strategy": "Recreate"}, {"maxSurge": 0}, None]),
        "autoscaling": st.just({"minReplicas": 1, "maxReplicas": 3, "targetCPUUtilizationPercentage": 50}),
    },
)  # fmt: skip
VOLUME = st.fixed_dictionaries(
    {"mountPath": st.sampled_from(["/data", "/media", "/tmp"])},
    optional={
        "accessModes": st.sampled_from([["ReadWriteMany"], ["ReadWriteOnce"], None]),
        "components": st.sampled_from([["web"], ["worker"], ["web", "cron"], None]),
        "size": st.sampled_from(["1Gi", 1073741824, None]), "keep": st.booleans(),
        "existingClaim": st.sampled_from(["", "on"]),
    },
)  # fmt: skip
# Values that the schema leaves to Kubernetes, and values of a certain format.
GIVEN: dict[str, st.SearchStrategy[Any]] = POD | {
    "image.repository": st.sampled_from(["a", "localhost/a", "r.example.org:5000/a/b", "", "a:1"]),
    "image.tag": st.sampled_from(["1.2", "1.2", "012", "1e3", "_x-", "", "latest", 12345678]),
    "image.digest": st.sampled_from(["", "sha256:" + "0" * 64]),
    "image.pullSecrets": st.sampled_from([[], [{"name": "registry"}]]),
    "command": st.lists(TEXTS, max_size=2), "args": st.lists(TEXTS, max_size=2),
    "health.path": st.sampled_from(["", "/healthz", "/a?b=c: d"]),
    "health.livenessPath": st.sampled_from(["", "/livez"]),
    "config": st.dictionaries(NAMES, SIMPLE, max_size=2),
    "secrets.values": st.dictionaries(NAMES, SIMPLE, max_size=2),
    "env": st.dictionaries(NAMES, st.one_of(SIMPLE, st.just(FROM_SECRET))),
    "envFrom": st.sampled_from([[], [{"configMapRef": {"name": "shared"}}]]),
    "files": st.dictionaries(
        st.sampled_from(["/etc/a", "/etc/b/c.toml", "/on"]), st.one_of(TEXTS, st.none()), max_size=2
    ),
    "replicas": st.one_of(st.integers(0, 30), st.none()), "workers": st.sampled_from([None, 1, 4]),
    "threads": st.sampled_from([None, 1, 8]),
    "probes.startup": PROBES, "probes.liveness": PROBES, "probes.readiness": PROBES,
    "rollout.maxSurge": st.sampled_from([0, 1, "25%", "0%"]),
    "rollout.maxUnavailable": st.sampled_from([0, 1, "25%", "0%"]),
    "podDisruptionBudget.maxUnavailable": st.sampled_from([0, 1, "50%"]),
    "migrations.command": st.lists(st.just("migrate"), max_size=2),
    "migrations.waitCommand": st.lists(st.just("wait"), max_size=2),
    "migrations.retry": st.one_of(st.integers(0, 9), st.just("again")),
    "migrations.pod": OWN, "backup.pod": OWN, "tests.pod": OWN,
    "cronJobs": st.dictionaries(
        st.sampled_from(["sweep", "a-command-whose-name-is-as-long-as-can-be-52-letters"]),
        st.one_of(st.none(), st.fixed_dictionaries(
            {"schedule": st.just("0 3 * * *"), "command": st.just(["sweep"])},
            optional=POD | {"account": st.sampled_from(["app", "owner"])},
        )),
        max_size=2,
    ),
    "components": st.dictionaries(
        st.sampled_from(["worker", "a-component-with-a-long-name"]), st.one_of(st.none(), COMPONENT), max_size=2
    ),
    "persistence": st.dictionaries(st.sampled_from(["uploads", "media"]), st.one_of(st.none(), VOLUME), max_size=2),
    "service.annotations": ANNOTATIONS, "ingress.annotations": ANNOTATIONS, "httpRoute.annotations": ANNOTATIONS,
    "serviceAccount.annotations": ANNOTATIONS, "commonLabels": LABELS, "commonAnnotations": ANNOTATIONS,
    "deploymentAnnotations": ANNOTATIONS, "alerts.labels": LABELS, "metrics.serviceMonitor.labels": LABELS,
    "dashboard.labels": LABELS, "metrics.port": st.sampled_from([8000, 9090]), "port": st.sampled_from([8000, 80]),
    "service.nodePort": st.sampled_from([None, 30080]),
    "service.spec": st.sampled_from([{}, {"ipFamilyPolicy": "PreferDualStack"}]),
    "extraPorts": st.sampled_from([[], [{"name": "grpc", "port": 50051}], [{"name": "http", "port": 1}]]),
    "httpRoute.parentRefs": st.sampled_from([[], [{"name": "public"}]]),
    "ingress.hosts": st.sampled_from([
        [], ["shop.example.org"], ["*"],
        [{"host": "a.example.org", "paths": [{"path": "/b"}, {"component": "worker"}]}],
    ]),
    "networkPolicy.databaseTo": st.sampled_from([[], [{"ipBlock": {"cidr": "10.0.0.0/16"}}]]),
    "database.externalSecret": st.sampled_from([{}, {"secretStoreRef": {"name": "store"}}]),
    "secrets.external": st.sampled_from([{}, {"secretStoreRef": {"name": "store"}}]),
    "postgresql": st.fixed_dictionaries({"enabled": st.booleans()}),
    "global": st.sampled_from([{}, {"imageRegistry": "mirror.example.com", "imagePullSecrets": [{"name": "a"}]}, None]),
    "nameOverride": st.sampled_from(["", "shop"]), "fullnameOverride": st.sampled_from(["", "shop"]),
}  # fmt: skip
LEFT_OUT = {"extraObjects", "tests.path", "autoscaling.metrics"}
RELEASES = [
    "web",
    "on",
    "y",
    "flaskapp",
    "1shop",
    "my.shop",
    "e1",
    "a-release-name-that-is-as-long-as-helm-lets-it-be-533",
]
TECHNICAL = ("nil pointer", "error calling", "YAML parse", "can't evaluate", "wrong type", "<no value>", "interface {}")


@dataclass(frozen=True)
class Draw:
    """A release, as a user describes it."""

    release: str
    files: tuple[dict[str, Any], ...]


def strategy(schema: dict[str, Any], path: str) -> st.SearchStrategy[Any]:
    if path in GIVEN:
        return GIVEN[path]
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kinds = schema.get("type", "object")
    kind = kinds[0] if isinstance(kinds, list) else kinds
    if "properties" in schema:
        current = [key for key, inner in schema["properties"].items() if not inner.get("deprecated")]
        keys = {key: f"{path}.{key}".lstrip(".") for key in current}
        # Each key may be null, and is then as if nobody had set it.
        inner = {key: strategy(schema["properties"][key], at) for key, at in keys.items() if at not in LEFT_OUT}
        with_null = {key: st.integers(0, 9).flatmap(_null_or(one)) for key, one in inner.items()}
        return st.fixed_dictionaries({}, optional=with_null)
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        low = schema.get("minimum", 0)
        return st.integers(low, min(schema.get("maximum", low + 200), low + 200))
    if kind == "string" and "pattern" not in schema:
        return st.sampled_from(["", "name"])
    return st.just(schema["default"])


def _null_or(other: st.SearchStrategy[Any]) -> Any:
    return lambda number: other if number else st.none()


DRAWS = st.builds(Draw, st.sampled_from(RELEASES), st.tuples(strategy(SCHEMA, ""), strategy(SCHEMA, "")))


@cache
def helm3() -> str:
    return str(programs.binaries("helm3") / "helm")


def render_draw(draw: Draw, program: str = "helm") -> str:
    """Render what was drawn, on the image and with the passwords that rendering without a cluster needs."""
    passwords = {"postgresql": {"auth": {"password": "one", "ownerPassword": "two"}}}
    with TemporaryDirectory() as folder:
        files = []
        for index, values in enumerate([{"image": WITHOUT_CLUSTER["image"]}, *draw.files, passwords]):
            files.append(Path(folder, f"{index}.yaml"))
            files[-1].write_text(json.dumps(values))
        options = [f"--values={file}" for file in files]
        return run_helm("template", draw.release, "charts/flaskapp", *options, program=program)


RENDERED: list[str] = []
REFUSED: list[str] = []


def sorted_objects(text: str) -> list[Object]:
    return sorted(load(text), key=lambda item: (item["kind"], item["metadata"]["name"]))


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, phases=[Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(DRAWS)
def test_values_render_or_are_refused_in_one_line(draw: Draw) -> None:
    note(json.dumps([draw.release, *draw.files]))
    try:
        text = render_draw(draw)
    except RenderError as error:
        message = str(error)
        assert not [word for word in TECHNICAL if word in message.split("validate.yaml")[-1]], message
        assert "/templates/validate.yaml" in message or "specifications of the schema" in message, message
        REFUSED.append(message)
        return
    assert "<no value>" not in text
    objects = sorted_objects(text)
    assert violations(objects) == []
    assert objects == sorted_objects(render_draw(draw, helm3()))
    RENDERED.append(text)


def test_kubernetes_accepts_what_was_rendered() -> None:
    assert len(RENDERED) >= EXAMPLES // 10, "nearly everything was refused: the draws prove little"
    assert REFUSED
    result = kubeconform("\n---\n".join(RENDERED), NEWEST)
    assert result.returncode == 0, "\n".join(line for line in result.stdout.splitlines() if "is valid" not in line)
    print(f"{len(RENDERED)} rendered, {len(REFUSED)} refused")
