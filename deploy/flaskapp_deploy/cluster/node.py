"""A node: containerd, kubelet and kube-proxy in namespaces of its own; ending one process ends the whole node."""

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import yaml

from flaskapp_deploy import shell
from flaskapp_deploy.cluster import cgroups, controlplane, network
from flaskapp_deploy.cluster.instance import Instance
from flaskapp_deploy.cluster.process import Process
from flaskapp_deploy.shell import DeployError

INIT = Path(__file__).with_name("node-init.sh")
PAUSE_IMAGE = "localhost/pause:1"
CNI_PLUGINS = "/usr/lib/cni"


def process(instance: Instance, node: str) -> Process:
    return Process(instance.run / f"{node}.json")


def state(instance: Instance, node: str) -> Path:
    return instance.state / "nodes" / node


def ensure(instance: Instance, node: str, binaries: Path) -> bool:
    """Start the node unless it runs; return whether it was started."""
    home, run = state(instance, node), instance.run / node
    home.mkdir(parents=True, exist_ok=True)
    run.mkdir(parents=True, exist_ok=True)
    if process(instance, node).pid is None:
        # As after a reboot: no network of an earlier life, and nothing noted about tasks that ended with it.
        network.leave(instance, node)
        shutil.rmtree(run / "containerd", ignore_errors=True)
        (home / "init.log").unlink(missing_ok=True)
    network.join_node(instance, node)
    cgroups.ensure(instance.cgroup(node))
    _write_configuration(instance, node)
    # A copy by its content: another checkout of the same version finds the node as it wants it. bash reads it, since
    # nothing in /run can be executed on a Debian with systemd.
    init = run / f"init-{hashlib.sha256(INIT.read_bytes()).hexdigest()[:8]}.sh"
    shutil.copy(INIT, init)
    return process(instance, node).ensure(
        [
            "nsenter",
            f"--net=/run/netns/{instance.namespace(node)}",
            *("unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child=SIGKILL"),
            *("bash", str(init)),
        ],
        home / "init.log",
        {
            "NODE": node,
            "STATE": str(home),
            "RUN": str(run),
            "BIN": str(binaries),
            "IMAGES": str(images(instance)),
            "ADDRESS": str(instance.node_address(node)),
        },
    )


def logs(instance: Instance, node: str) -> list[Path]:
    """Its logs; where the node doesn't start, the first that has lines tells why."""
    home = state(instance, node)
    return [home / "init.log", *(home / f"log/{name}.log" for name in ("kubelet", "containerd", "kube-proxy"))]


def stop(instance: Instance, node: str) -> None:
    """End the node as a power cut would."""
    process(instance, node).stop(grace=0)


def images(instance: Instance) -> Path:
    """Archives that every node has imported, one for each image name."""
    directory = instance.state / "images"
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def keep_image(instance: Instance, archive: Path, reference: str) -> Path:
    """Keep an image archive for nodes to come; a newer one of the same name takes its place."""
    repository = reference.rpartition(":")[0]
    kept = (
        images(instance) / f"{repository.replace('/', '_')}-{hashlib.sha256(repository.encode()).hexdigest()[:6]}.tar"
    )
    if not kept.exists() or _identity(kept) != _identity(archive):
        shell.copy_atomic(archive, kept)
    return kept


def import_image(instance: Instance, node: str, archive: Path) -> None:
    """Import a kept image archive into a running node, unless it has it."""
    stamp = state(instance, node) / "imported" / archive.name
    if stamp.exists() and stamp.read_text().strip() == _identity(archive):
        return
    command = ctr(instance, node, "images", "import", str(archive))
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        raise DeployError(f"{node} can't import {archive}: {result.stderr.strip() or result.stdout.strip()}")
    stamp.write_text(_identity(archive))


def _identity(archive: Path) -> str:
    """Size and modification time: what node-init.sh compares as well."""
    found = archive.stat()
    return f"{found.st_size} {int(found.st_mtime)}"


def ctr(instance: Instance, node: str, *arguments: str) -> list[str]:
    """The command that talks to a node's containerd."""
    return ["ctr", "--address", f"{instance.run}/{node}/containerd.sock", "--namespace", "k8s.io", *arguments]


def trust_registry(instance: Instance, node: str, host: str, certificate: Path, login: str) -> None:
    """Let a node pull from the registry `host` (`HOST:PORT`), as a cloud's node may from the cloud's.

    `login` is `USER:PASSWORD`. The next pull reads it: nothing is started again.
    """
    folder = instance.run / node / "registries" / host
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copy(certificate, folder / "ca.crt")
    basic = base64.b64encode(login.encode()).decode()
    settings = (
        f'server = "https://{host}"\n[host."https://{host}"]\nca = "{folder}/ca.crt"\n'
        f'capabilities = ["pull", "resolve"]\n[host."https://{host}".header]\nAuthorization = "Basic {basic}"\n'
    )
    shell.write_atomic(folder / "hosts.toml", settings, 0o600)


def enter(instance: Instance, node: str, *command: str) -> list[str]:
    """The command that runs another in a node's namespaces."""
    parent = process(instance, node).pid
    if parent is None:
        raise DeployError(f"node {node} does not run; start it with `deploy/flaskapp-deploy cluster up`")
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    if not children:
        raise DeployError(f"node {node} is just starting; try again")
    return ["nsenter", f"--target={children[0]}", "--mount", "--pid", "--uts", "--net", *command]


def _write_configuration(instance: Instance, node: str) -> None:
    home, run, authority = state(instance, node), instance.run / node, controlplane.authority(instance)
    address = instance.node_address(node)
    controlplane.kubeconfig(instance, home / "kubelet.conf", f"system:node:{node}", "system:nodes")
    serving = authority.issue(f"{node}-serving", f"system:node:{node}", ["system:nodes"], [address, node])
    proxy = controlplane.kubeconfig(instance, instance.state / "pki/kube-proxy.conf", "system:kube-proxy")

    shell.write_changed(run / "containerd.toml", _containerd(instance, node))
    network_list = {
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": True,
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": str(instance.node_pods(node))}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": "/run/containerd/ipam",  # as short-lived as the pods' namespaces
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    shell.write_changed(run / "cni/pods.conflist", json.dumps(network_list, indent=2))
    shell.write_changed(run / "resolv.conf", "# Pods ask the cluster's DNS; there is nothing beyond it.\n")
    kubelet = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate_path)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(serving[0]),
        "tlsPrivateKeyFile": str(serving[1]),
        "containerRuntimeEndpoint": f"unix://{run}/containerd.sock",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{instance.cgroup(node)}",
        "clusterDNS": [str(instance.dns_address)],
        "clusterDomain": "cluster.local",
        "resolvConf": str(run / "resolv.conf"),
        "failSwapOn": False,
        "failCgroupV1": False,
        # A machine that is itself a container lets nobody lower an OOM score, set sysctls or measure its disk.
        "featureGates": {"KubeletInUserNamespace": True},
        "enforceNodeAllocatable": [],
        "localStorageCapacityIsolation": False,
        # Images were imported and can't be pulled again, so none is collected; the disk is shared with others.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
    }
    shell.write_changed(run / "kubelet.yaml", yaml.safe_dump(kubelet, sort_keys=False))
    kube_proxy = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(proxy)},
        "hostnameOverride": node,
        "mode": "iptables",
        "clusterCIDR": str(instance.pods),
        "bindAddress": str(address),
        "healthzBindAddress": "127.0.0.1:10256",
        "metricsBindAddress": "127.0.0.1:10249",
        # The machine's own connection tracking limits are left alone.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    # kube-proxy ends when its file changes, and is started again.
    shell.write_changed(run / "kube-proxy.yaml", yaml.safe_dump(kube_proxy, sort_keys=False))


def _containerd(instance: Instance, node: str) -> str:
    home, run = state(instance, node), instance.run / node
    return f"""\
version = 2
root = "{home}/containerd"
state = "{run}/containerd"
[grpc]
  address = "{run}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{run}/registries"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{run}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
"""
