"""Starts an image as the chart will start it, and asks it what its liveness probe asks."""

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from flaskapp_deploy.images.baseimages import architecture
from flaskapp_deploy.images.container import Container, get
from flaskapp_deploy.images.oci import Layout
from flaskapp_deploy.shell import DeployError, free_port, tail

EMULATORS = {"arm64": "qemu-aarch64-static", "amd64": "qemu-x86_64-static"}
SECONDS = 60
EMULATED_SECONDS = 300
# Stands for every setting that only the cluster knows.
UNKNOWN = "unknown-here"
HINT = "\n  it ran without a database: where that path asks one, set health.livenessPath to a path that does not"
ConfigMaps = Mapping[str, Mapping[str, str]]


def test(image: Layout, platform: str, manifests: str, scheme: str) -> str:
    """Run the web container of the rendered manifests on this image; its database is not there.

    `scheme` is the one of its URL, which the manifests don't say.

    Returns:
        A line on what was done; where another architecture can't be emulated, it says so.

    Raises:
        DeployError: it does not answer; the message has the container's last lines.
    """
    machine = platform.partition("/")[2]
    emulator = None if machine == architecture() else shutil.which(EMULATORS[machine])
    if machine != architecture() and emulator is None:
        return f"{platform} is not started: {EMULATORS[machine]} is not here (Debian: qemu-user-static)"
    objects = [item for item in yaml.safe_load_all(manifests) if item]
    maps = {item["metadata"]["name"]: item.get("data", {}) for item in objects if item["kind"] == "ConfigMap"}
    pod = web_pod(objects)
    container = pod["containers"][0]
    port, path = str(free_port()), path_of(container)
    environment = _environment(container, maps, f"{scheme}://{UNKNOWN}") | {"PORT": port, "METRICS_PORT": "0"}
    command = [*container.get("command", []), *container.get("args", [])]
    with tempfile.TemporaryDirectory(prefix="flaskapp-smoke-") as directory:
        box = Container(image, Path(directory) / "root", Path(emulator) if emulator else None)
        mounts = _volumes(pod, maps, Path(directory) / "volumes")
        with box.started(*command, environment=environment, mounts=mounts) as process:
            try:
                seconds = EMULATED_SECONDS if emulator else SECONDS
                get(f"http://127.0.0.1:{port}{path or '/'}", seconds, process, anything=not path)
            except OSError as error:
                process.kill()
                message = tail(process.stdout.read() if process.stdout else "", 10)
                raise DeployError(
                    f"the {platform} image does not answer {path or '/'}: {error}; its last lines:\n{message}"
                    + HINT * bool(path)
                ) from error
    return f"{platform} answers {path or '/'}" + (f" (run by {Path(emulator).name})" if emulator else "")


def web_pod(objects: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the spec of the pods that serve."""
    for item in objects:
        if item["kind"] == "Deployment" and item["metadata"]["labels"]["app.kubernetes.io/component"] == "web":
            return dict(item["spec"]["template"]["spec"])
    raise DeployError("the chart renders no Deployment of web pods")


def path_of(container: Mapping[str, Any]) -> str:
    """Return the path that the liveness probe requests; empty where it requests none."""
    return str(container.get("livenessProbe", {}).get("httpGet", {}).get("path", ""))


def _environment(container: Mapping[str, Any], maps: ConfigMaps, url: str) -> dict[str, str]:
    """Return the variables as the pods have them; `url` stands for what is called one and only the cluster knows."""
    environment: dict[str, str] = {}
    for source in container.get("envFrom", []):
        environment |= maps.get(source.get("configMapRef", {}).get("name"), {})
    for variable in container.get("env", []):
        name = variable["name"]
        environment[name] = variable.get("value", url if name.endswith(("URL", "URI")) else UNKNOWN)
    return environment


def _volumes(pod: Mapping[str, Any], maps: ConfigMaps, folder: Path) -> dict[str, Path]:
    """Files and folders for the web container's mounts, by their path in there; what a Secret holds is unknown."""
    for volume in pod.get("volumes", []):
        made = folder / volume["name"]
        made.mkdir(parents=True)
        made.chmod(0o777)
        content = dict(maps.get(volume.get("configMap", {}).get("name"), {}))
        content |= {item["path"]: UNKNOWN for item in volume.get("secret", {}).get("items", [])}
        for name, text in content.items():
            (made / name).write_text(text)
    return {
        mount["mountPath"]: folder / mount["name"] / mount.get("subPath", "")
        for mount in pod["containers"][0].get("volumeMounts", [])
    }
