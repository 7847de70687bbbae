"""`flaskapp-deploy down` and `clean`: an application, the cluster with all of them, the caches."""

import json
import os
import shutil
from pathlib import Path

from flaskapp_deploy import shell
from flaskapp_deploy.cluster import localcluster
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.shell import DeployError, say
from flaskapp_deploy.up.target import Kind, Local, Target

LABELED = "persistentvolumeclaims,secrets,configmaps"


def remove(release: ReleaseConfig, target: Target) -> None:
    """Remove one application; with its data, unless the cluster is the user's own.

    Raises:
        DeployError: there is no such release; the message has those that there are.
    """
    cluster = target.cluster(release.namespace)
    installed = releases(cluster)
    if (release.namespace, release.name) not in installed:
        names = ", ".join(name for _, name in installed) or "none"
        raise DeployError(f"there is no application {release.name!r} on {target.description}; there are: {names}")
    volumes = [claim["metadata"]["name"] for claim in cluster.objects("persistentvolumeclaims")]
    data = f", with the data in {', '.join(volumes)}" if volumes and target.is_ours else ""
    say(f"removing the application {release.name!r} from {target.description}{data}")
    target.close(cluster)
    cluster.helm("uninstall", release.name, "--wait")
    if not target.is_ours:
        cluster.kubectl("delete", "configmap", f"{release.name}-source", "--ignore-not-found")
        look = f"kubectl --context {cluster.context} delete namespace {release.namespace}"
        say(f"the release {release.name!r} is uninstalled; its data stays until you `{look}`")
        return
    if any(namespace == release.namespace and name != release.name for namespace, name in installed):
        cluster.kubectl("delete", LABELED, "--selector", f"app.kubernetes.io/instance={release.name}")
        cluster.kubectl("delete", "configmap", f"{release.name}-source", "--ignore-not-found")
    else:
        cluster.kubectl("delete", "namespace", release.namespace)
    say(f"the application {release.name!r} is removed; the cluster and its other applications stay")


def remove_cluster(target: Local | Kind) -> None:
    """Say what is on the cluster, then delete it with its data."""
    say(f"deleting {target.description}{contents(target)}")
    say(target.delete())


def contents(target: Local | Kind) -> str:
    """What a cluster has, in lines; empty where it can't say."""
    try:
        cluster = target.cluster("default")
        applications = [f"application {name}, in the namespace {namespace}" for namespace, name in releases(cluster)]
        command = ["get", "persistentvolumeclaims", "--all-namespaces", "--output=json", "--request-timeout=5s"]
        claims = json.loads(cluster.kubectl(*command).stdout)["items"]
    except DeployError:
        return ""
    volumes = [
        f"volume {claim['metadata']['name']} of {claim['metadata']['namespace']},"
        f" {claim['spec']['resources']['requests']['storage']}"
        for claim in claims
    ]
    return "".join(f"\n  {line}" for line in [*applications, *volumes])


def releases(cluster: Cluster) -> list[tuple[str, str]]:
    """The namespace and name of every release on a cluster."""
    states = ["--deployed", "--failed", "--pending", "--uninstalling"]
    listed = cluster.helm("list", "--all-namespaces", *states, "--output=json").stdout
    return [(release["namespace"], release["name"]) for release in json.loads(listed)]


def clean() -> None:
    """Delete the caches, and say how much.

    Raises:
        DeployError: a local cluster runs, by the programs there; or the files are somebody else's.
    """
    clusters = [cluster for cluster in map(localcluster.load, localcluster.names()) if cluster]
    if running := [one.name for one in clusters if one.runs("kube-apiserver") or one.running_nodes()]:
        raise DeployError(
            f"the local cluster {running[0]!r} runs by programs in {shell.cache()}\n"
            f"  delete it first: `deploy/flaskapp-deploy cluster down --name {running[0]}`"
        )
    if not shell.cache().exists():
        say(f"there is no cache in {shell.cache()}")
        return
    with shell.locked(shell.cache() / "buildkit/lock", "waiting for another image build to end"):
        sizes = {path: size_of(path) for path in shell.cache().iterdir()}
        try:
            # The Python packages go last: this command runs by them.
            for path in sorted(sizes, key=lambda path: path.name.startswith("venv-")):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        except PermissionError as error:
            raise DeployError(f"{error.filename} is not yours; run `sudo make clean`") from error
    parts = {"Python packages": sum(size for path, size in sizes.items() if path.name.startswith("venv-"))}
    parts |= {path.name: size for path, size in sizes.items() if not path.name.startswith("venv-")}
    largest = sorted(parts.items(), key=lambda part: -part[1])[:5]
    say(f"deleted {gigabytes(sum(sizes.values()))} in {shell.cache()}:")
    say("".join(f"  {name:16} {gigabytes(size)}\n" for name, size in largest if size).rstrip())
    go = Path(os.environ.get("GOCACHE") or Path.home() / ".cache/go-build")
    if go.exists():
        say(f"Go's own build cache stays, for other projects use it as well: {go} (`go clean -cache` deletes it)")


def size_of(path: Path) -> int:
    """Bytes on disk of a file or of everything in a directory, by `du`, which counts linked files once."""
    return int(shell.run("du", "--summarize", "--block-size=1", path).stdout.split()[0])


def gigabytes(size: int) -> str:
    """A size in gigabytes, with one place."""
    return f"{size / 1e9:.1f} GB"
