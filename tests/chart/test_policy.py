"""Every pod of every set of values complies with the policy, each check can fail, and secrets stay in Secrets."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.chart.policy import CHECKS, Spec, pods, violations
from tests.chart.render import BUNDLED, RELEASE_VALUES, Object, merged, one, render, run_helm

Mutation = Callable[[Spec], Any]
FIRST = "containers"
# Every violation that a check must see, by the check's name; digits make the keys unique.
MUTATIONS: dict[str, Mutation] = {
    "no_host": lambda s: s.update(hostPID=True),
    "no_host2": lambda s: s.update(hostNetwork=True),
    "no_host3": lambda s: s.update(hostIPC=True),
    "no_host_port": lambda s: s[FIRST][0]["ports"][0].update(hostPort=80),
    "volume_types": lambda s: s["volumes"].append({"name": "root", "hostPath": {"path": "/"}}),
    "non_root": lambda s: s["securityContext"].update(runAsUser=0),
    "non_root2": lambda s: s["securityContext"].pop("runAsNonRoot"),
    "non_root3": lambda s: s[FIRST][0]["securityContext"].update(runAsUser=0),
    "seccomp2": lambda s: s["securityContext"]["seccompProfile"].update(type="Unconfined"),
    "seccomp": lambda s: s["securityContext"].pop("seccompProfile"),
    "no_escalation": lambda s: s["initContainers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
    "not_privileged": lambda s: s[FIRST][0]["securityContext"].update(privileged=True),
    "drops_capabilities": lambda s: s[FIRST][0]["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
    "drops_capabilities2": lambda s: s[FIRST][0]["securityContext"]["capabilities"].update(drop=["NET_RAW"]),
    "drops_capabilities3": lambda s: s["initContainers"][0]["securityContext"].pop("capabilities"),
    "read_only_root": lambda s: s[FIRST][0]["securityContext"].update(readOnlyRootFilesystem=False),
    "no_token": lambda s: s.pop("automountServiceAccountToken"),
    "no_service_links": lambda s: s.update(enableServiceLinks=True),
    "pinned_image": lambda s: s[FIRST][0].update(image="registry.example.org:5000/shop"),
    "pinned_image2": lambda s: s[FIRST][0].update(image="shop:latest"),
    "bounded2": lambda s: s[FIRST][0]["resources"]["requests"].pop("cpu"),
    "bounded": lambda s: s[FIRST][0]["resources"]["limits"].pop("memory"),
    "unique_variables": lambda s: s[FIRST][0]["env"].append({"name": "PORT", "value": "1"}),
    "mounts_exist": lambda s: s["volumes"].pop(0),
}


@pytest.mark.parametrize("mode", ["job", "initContainer", "none"])
@pytest.mark.parametrize("name", RELEASE_VALUES)
def test_every_pod_passes(name: str, mode: str) -> None:
    objects = render("flaskapp", merged(RELEASE_VALUES[name], {"migrations": {"mode": mode}}))
    assert len(list(pods(objects))) >= 2
    assert violations(objects) == []


def test_every_pod_passes_with_a_hook() -> None:
    values = merged(RELEASE_VALUES["production-rds"], {"migrations": {"mode": "hook", "command": ["upgrade"]}})
    values |= {"config": {}, "serviceAccount": {"create": False}}  # what would be made after the hook
    values["database"] |= {"externalSecret": {}, "existingSecret": "database"}
    objects = render("flaskapp", values)
    assert len(list(pods(objects))) >= 2
    assert violations(objects) == []


@pytest.mark.parametrize("name", MUTATIONS)
def test_each_check_can_fail(name: str) -> None:
    [check] = [check for check in CHECKS if check.__name__ == name.rstrip("23")]
    spec = copy.deepcopy(one(render("flaskapp", BUNDLED), "Deployment")["spec"]["template"]["spec"])
    assert check(spec) == []
    MUTATIONS[name](spec)
    assert check(spec) != []


def test_no_check_is_without_a_mutation() -> None:
    assert {check.__name__ for check in CHECKS} <= MUTATIONS.keys()


CANARY = "canary4711"


def strings(node: Any) -> list[str]:
    if isinstance(node, dict):
        return [text for pair in node.items() for part in pair for text in strings(part)]
    if isinstance(node, list):
        return [text for part in node for text in strings(part)]
    return [str(node)]


def leaks(objects: list[Object]) -> list[str]:
    coded = base64.b64encode(CANARY.encode()).decode()
    return [
        f"{item['kind']}/{item['metadata']['name']}"
        for item in objects
        if any(CANARY in text or coded in text for text in strings(item)) and item["kind"] != "Secret"
    ]


def test_secrets_are_in_secrets_alone() -> None:
    auth = {"password": CANARY, "ownerPassword": CANARY, "existingSecret": ""}
    values = merged(
        RELEASE_VALUES["everything"], {"postgresql": {"auth": auth}, "secrets": {"values": {"TOKEN": CANARY}}}
    )
    objects = render("flaskapp", values)
    assert [
        item
        for item in objects
        if item["kind"] == "Secret" and CANARY in base64.b64decode(next(iter(item["data"].values()))).decode()
    ], "the canary is nowhere: the test sees nothing"
    assert leaks(objects) == []
    objects[0]["metadata"]["annotations"] = {"note": f"password {CANARY}"}
    assert len(leaks(objects)) == 1


def test_notes_tell_no_secret() -> None:
    settings = [
        "image.repository=shop",
        "image.tag=a",
        "postgresql.enabled=true",
        f"postgresql.auth.password={CANARY}",
        f"postgresql.auth.ownerPassword={CANARY}",
        f"secrets.values.T={CANARY}",
    ]
    arguments = [part for setting in settings for part in ("--set", setting)]
    text = run_helm("install", "web", "charts/flaskapp", "--dry-run=client", "--hide-secret", *arguments)
    notes = text[text.index("NOTES:") :]
    assert "port-forward" in notes
    assert CANARY not in notes
