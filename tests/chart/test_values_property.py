"""Any values that the schema allows render objects that comply with the policy, or are refused in one clear line."""

from __future__ import annotations

import json
import os
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.chart.kubernetes_schemas import NEWEST, kubeconform
from tests.chart.policy import violations
from tests.chart.render import CHARTS, RenderError, merged, run_helm

EXAMPLES = int(os.environ.get("CHART_EXAMPLES", "60"))
SCHEMA = json.loads((CHARTS / "flaskapp" / "values.schema.json").read_text())
NAMES = st.sampled_from(["A", "B_1", "DB_HOST", "PORT", "LOG_LEVEL"])
TEXTS = st.sampled_from(
    ["", "x", "a b", "'quoted' \"twice\"", "{{ .Values }}", "# no comment", "yes", "0", "é\n- b: c"]
)
FROM_SECRET = {"valueFrom": {"secretKeyRef": {"name": "a", "key": "b"}}}
SIMPLE = st.one_of(TEXTS, st.integers(0, 10**9), st.booleans())
# Values that the schema leaves to Kubernetes, and values of a certain format.
GIVEN: dict[str, st.SearchStrategy[Any]] = {
    "image.repository": st.sampled_from(["localhost/flaskapp", "registry.example.org:5000/a/b", ""]),
    "image.tag": st.sampled_from(["", "1.2", "latest", 12345678]),
    "image.digest": st.sampled_from(["", "sha256:" + "0" * 64]),
    "image.pullSecrets": st.sampled_from([[], [{"name": "registry"}]]),
    "command": st.lists(TEXTS, max_size=2), "args": st.lists(TEXTS, max_size=2),
    "config": st.dictionaries(NAMES, SIMPLE, max_size=2),
    "secrets.values": st.dictionaries(NAMES, SIMPLE, max_size=2),
    "env": st.dictionaries(NAMES, st.one_of(SIMPLE, st.just(FROM_SECRET))),
    "files": st.dictionaries(st.sampled_from(["/etc/a", "/etc/b/c.toml"]), TEXTS, max_size=2),
    "replicas": st.integers(0, 30), "workers": st.integers(1, 4), "threads": st.integers(1, 8),
    "rollout.maxSurge": st.sampled_from([0, 1, "25%", "0%"]),
    "rollout.maxUnavailable": st.sampled_from([0, 1, "25%", "0%"]),
    "podDisruptionBudget.maxUnavailable": st.sampled_from([0, 1, "50%"]),
    "migrations.command": st.lists(st.just("migrate"), max_size=2),
    "migrations.waitCommand": st.lists(st.just("wait"), max_size=2),
    "migrations.retry": st.one_of(st.integers(0, 9), st.just("again")),
    "cronJobs": st.dictionaries(
        st.sampled_from(["sweep", "report"]),
        st.fixed_dictionaries(
            {"schedule": st.just("0 3 * * *"), "command": st.just(["sweep"])},
            optional={"account": st.sampled_from(["app", "owner"])},
        ),
        max_size=2,
    ),
    "httpRoute.parentRefs": st.sampled_from([[], [{"name": "public"}]]),
    "ingress.hosts": st.sampled_from([[], ["shop.example.org"], ["*"]]),
    "networkPolicy.databaseTo": st.sampled_from([[], [{"ipBlock": {"cidr": "10.0.0.0/16"}}]]),
    "database.externalSecret": st.sampled_from([{}, {"secretStoreRef": {"name": "store"}}]),
    "secrets.external": st.sampled_from([{}, {"secretStoreRef": {"name": "store"}}]),
    "postgresql": st.fixed_dictionaries({"enabled": st.booleans()}),
}  # fmt: skip
LEFT_OUT = {"extraObjects", "global", "tests.path", "autoscaling.metrics"}
TECHNICAL = ("nil pointer", "error calling", "YAML parse", "can't evaluate", "wrong type", "<no value>", "interface {}")


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
        inner = {key: strategy(schema["properties"][key], at) for key, at in keys.items() if at not in LEFT_OUT}
        return st.fixed_dictionaries({}, optional=inner)
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        low = schema.get("minimum", 0)
        return st.integers(low, min(schema.get("maximum", low + 200), low + 200))
    if kind == "string" and "pattern" not in schema:
        return st.sampled_from(["", "name"])
    return st.just(schema["default"])


def render_draw(values: dict[str, Any]) -> str:
    """Render drawn values, with the passwords that rendering without a cluster needs."""
    passwords = {"postgresql": {"auth": {"password": "one", "ownerPassword": "two"}}}
    return run_helm("template", "web", "charts/flaskapp", "--values", "-", stdin=json.dumps(merged(values, passwords)))


RENDERED: list[str] = []
REFUSED: list[str] = []


@settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(strategy(SCHEMA, ""))
def test_values_render_or_are_refused_in_one_line(values: dict[str, Any]) -> None:
    try:
        text = render_draw(values)
    except RenderError as error:
        message = str(error)
        assert not [word for word in TECHNICAL if word in message.split("validate.yaml")[-1]], message
        assert (
            "execution error at (flaskapp/templates/validate.yaml" in message
            or "specifications of the schema" in message
        )
        REFUSED.append(message)
        return
    assert "<no value>" not in text
    assert violations([item for item in yaml.safe_load_all(text) if item]) == []
    RENDERED.append(text)


def test_kubernetes_accepts_what_was_rendered() -> None:
    assert len(RENDERED) >= EXAMPLES // 10, "nearly everything was refused: the draws prove little"
    assert REFUSED
    result = kubeconform("\n---\n".join(RENDERED), NEWEST)
    assert result.returncode == 0, "\n".join(line for line in result.stdout.splitlines() if "is valid" not in line)
    print(f"{len(RENDERED)} rendered, {len(REFUSED)} refused")
