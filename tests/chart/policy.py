"""Rules for every pod of the charts, as small checks: Pod Security `restricted`, and this project's own.

A check takes a pod's spec and returns a line for each violation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Spec = dict[str, Any]
Check = Callable[[Spec], list[str]]

RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret",
}  # fmt: skip


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, Spec]]:
    """Yield every pod that the objects create, with the name of its object."""
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if item["kind"] != "Pod":
            spec = spec.get("template", {}).get("spec") if isinstance(spec.get("template"), dict) else None
        if spec and "containers" in spec:
            yield f"{item['kind']}/{item['metadata']['name']}", spec


def containers(spec: Spec) -> list[Spec]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def each(spec: Spec, wrong: Callable[[Spec], bool], text: str) -> list[str]:
    return [f"{item['name']}: {text}" for item in containers(spec) if wrong(item)]


def no_host(spec: Spec) -> list[str]:
    return [f"{key} is set" for key in ("hostNetwork", "hostPID", "hostIPC") if spec.get(key)]


def no_host_port(spec: Spec) -> list[str]:
    return each(spec, lambda c: any(port.get("hostPort") for port in c.get("ports", [])), "takes a port of the node")


def volume_types(spec: Spec) -> list[str]:
    return [v["name"] for v in spec.get("volumes", []) if not set(v) - {"name"} <= RESTRICTED_VOLUMES]


def non_root(spec: Spec) -> list[str]:
    context = spec.get("securityContext", {})
    pod = [] if context.get("runAsNonRoot") is True and context.get("runAsUser", 1) != 0 else ["may run as root"]
    return pod + each(spec, lambda c: c.get("securityContext", {}).get("runAsUser", 1) == 0, "runs as root")


def seccomp(spec: Spec) -> list[str]:
    profile = spec.get("securityContext", {}).get("seccompProfile", {}).get("type")
    return [] if profile in ("RuntimeDefault", "Localhost") else ["no seccomp profile"]


def no_escalation(spec: Spec) -> list[str]:
    return each(
        spec, lambda c: c.get("securityContext", {}).get("allowPrivilegeEscalation") is not False, "may escalate"
    )


def not_privileged(spec: Spec) -> list[str]:
    return each(spec, lambda c: bool(c.get("securityContext", {}).get("privileged")), "privileged")


def drops_capabilities(spec: Spec) -> list[str]:
    def keeps(container: Spec) -> bool:
        capabilities = container.get("securityContext", {}).get("capabilities", {})
        return capabilities.get("drop") != ["ALL"] or bool(capabilities.get("add"))

    return each(spec, keeps, "keeps capabilities")


def read_only_root(spec: Spec) -> list[str]:
    return each(spec, lambda c: c.get("securityContext", {}).get("readOnlyRootFilesystem") is not True, "writable root")


def no_token(spec: Spec) -> list[str]:
    return [] if spec.get("automountServiceAccountToken") is False else ["mounts a token of the API server"]


def no_service_links(spec: Spec) -> list[str]:
    return [] if spec.get("enableServiceLinks") is False else ["takes variables from other Services"]


def pinned_image(spec: Spec) -> list[str]:
    def moves(container: Spec) -> bool:
        image = container["image"]
        return "@sha256:" not in image and (":" not in image.split("/")[-1] or image.endswith(":latest"))

    return each(spec, moves, "image without a version")


def bounded(spec: Spec) -> list[str]:
    def unbounded(container: Spec) -> bool:
        resources = container.get("resources", {})
        return not ({"cpu", "memory"} <= set(resources.get("requests", {})) and "memory" in resources.get("limits", {}))

    return each(spec, unbounded, "no requests, or no memory limit")


def unique_variables(spec: Spec) -> list[str]:
    def twice(container: Spec) -> bool:
        names = [variable["name"] for variable in container.get("env", [])]
        return len(names) != len(set(names))

    return each(spec, twice, "a variable comes twice")


def mounts_exist(spec: Spec) -> list[str]:
    volumes = {volume["name"] for volume in spec.get("volumes", [])} | {"data"}
    return each(
        spec, lambda c: not {m["name"] for m in c.get("volumeMounts", [])} <= volumes, "mounts what is not there"
    )


CHECKS: list[Check] = [
    no_host, no_host_port, volume_types, non_root, seccomp, no_escalation, not_privileged, drops_capabilities,
    read_only_root, no_token, no_service_links, pinned_image, bounded, unique_variables, mounts_exist,
]  # fmt: skip


def violations(objects: list[dict[str, Any]]) -> list[str]:
    return [
        f"{name}: {check.__name__}: {line}" for name, spec in pods(objects) for check in CHECKS for line in check(spec)
    ]
