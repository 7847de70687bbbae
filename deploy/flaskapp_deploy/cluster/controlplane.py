"""etcd, API server, controller manager and scheduler, in a network namespace of their own."""

import subprocess
from ipaddress import IPv4Address
from pathlib import Path

from flaskapp_deploy.cluster import pki
from flaskapp_deploy.cluster.instance import Instance
from flaskapp_deploy.cluster.process import Process
from flaskapp_deploy.shell import wait_until

PORT = 6443
# In the order in which they start; they end in the reverse one, the writers before the store.
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


def server(instance: Instance) -> str:
    return f"https://{instance.control_address}:{PORT}"


def authority(instance: Instance) -> pki.Authority:
    return pki.Authority(instance.state / "pki", "ca")


def kubeconfig(instance: Instance, path: Path, user: str, *groups: str, namespace: str = "") -> Path:
    """Write a kubeconfig for a user by that name (RBAC decides what they may do); return its path."""
    issuer = authority(instance)
    credentials = issuer.issue(user.replace(":", "-").replace("/", "-"), user, groups)
    return pki.write_kubeconfig(path, server(instance), issuer, credentials, f"flaskapp-{instance.name}", namespace)


def ensure(instance: Instance, binaries: Path) -> None:
    """Start what doesn't run, and wait until the API server is ready."""
    directory = instance.state / "pki"
    issuer, front_proxy = authority(instance), pki.Authority(directory, "front-proxy-ca")
    addresses: list[IPv4Address | str] = [instance.services[1], instance.control_address, *NAMES]
    serving = issuer.issue("kube-apiserver", "kube-apiserver", addresses=addresses)
    to_kubelets = issuer.issue("apiserver-kubelet-client", "apiserver-kubelet-client", ["system:masters"])
    to_extensions = front_proxy.issue("front-proxy-client", "front-proxy-client")
    private, public = pki.key_pair(directory, "service-account")
    admin = kubeconfig(instance, instance.kubeconfig, "admin", "system:masters")
    manager = kubeconfig(instance, directory / "controller-manager.conf", "system:kube-controller-manager")
    scheduler = kubeconfig(instance, directory / "scheduler.conf", "system:kube-scheduler")

    _start(
        instance,
        "etcd",
        "etcd",
        f"--data-dir={instance.state}/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",  # only this namespace's loopback
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
    )
    _start(
        instance,
        "kube-apiserver",
        str(binaries / "kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379",
        f"--bind-address={instance.control_address}",
        f"--advertise-address={instance.control_address}",
        f"--secure-port={PORT}",
        f"--tls-cert-file={serving[0]}",
        f"--tls-private-key-file={serving[1]}",
        f"--client-ca-file={issuer.certificate_path}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={instance.services}",
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local",
        f"--service-account-key-file={public}",
        f"--service-account-signing-key-file={private}",
        f"--kubelet-certificate-authority={issuer.certificate_path}",
        f"--kubelet-client-certificate={to_kubelets[0]}",
        f"--kubelet-client-key={to_kubelets[1]}",
        "--kubelet-preferred-address-types=InternalIP",
        # metrics-server answers for an API group of its own, reached at its pods' addresses
        "--enable-aggregator-routing=true",
        f"--requestheader-client-ca-file={front_proxy.certificate_path}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-username-headers=X-Remote-User",
        f"--proxy-client-cert-file={to_extensions[0]}",
        f"--proxy-client-key-file={to_extensions[1]}",
    )
    kubectl = [str(binaries / "kubectl"), f"--kubeconfig={admin}", "get", "--raw=/readyz"]
    wait_until(
        lambda: subprocess.run(kubectl, capture_output=True).returncode == 0,
        90,
        "the API server",
        [instance.logs / "kube-apiserver.log", instance.logs / "etcd.log"],
        lambda: process(instance, "kube-apiserver").pid is not None,
    )
    _start(
        instance,
        "kube-controller-manager",
        str(binaries / "kube-controller-manager"),
        *_identity(manager),
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={private}",
        f"--root-ca-file={issuer.certificate_path}",
    )
    _start(instance, "kube-scheduler", str(binaries / "kube-scheduler"), *_identity(scheduler))


def stop(instance: Instance) -> None:
    for name in reversed(PROGRAMS):
        process(instance, name).stop()


def process(instance: Instance, name: str) -> Process:
    return Process(instance.run / f"{name}.json")


def _identity(config: Path) -> list[str]:
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def _start(instance: Instance, name: str, *command: str) -> None:
    inside = ["nsenter", f"--net=/run/netns/{instance.namespace('control')}"]
    process(instance, name).ensure([*inside, *command], instance.logs / f"{name}.log")
