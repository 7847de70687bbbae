"""etcd, API server, controller manager and scheduler, in a network namespace of their own."""

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

from flaskapp_deploy.cluster import pki
from flaskapp_deploy.cluster.localcluster import API_PORT, LocalCluster
from flaskapp_deploy.shell import DeployError, last_lines, wait_until

# In the order in which they start; they end in the reverse one, the writers before the store.
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


def authority(cluster: LocalCluster) -> pki.Authority:
    """Return the authority that signs the certificates of users, nodes and the API server."""
    return pki.Authority(cluster.state / "pki", "ca")


def kubeconfig(cluster: LocalCluster, path: Path, user: str, *groups: str, namespace: str = "") -> Path:
    """Write a kubeconfig for a user by that name (RBAC decides what they may do); return its path."""
    issuer = authority(cluster)
    credentials = issuer.issue(user.replace(":", "-").replace("/", "-"), user, groups)
    return pki.write_kubeconfig(path, cluster.server, issuer, credentials, f"flaskapp-{cluster.name}", namespace)


def ensure(cluster: LocalCluster, binaries: Path) -> None:
    """Start what doesn't run, and wait until the API server is ready."""
    directory = cluster.state / "pki"
    issuer, front_proxy = authority(cluster), pki.Authority(directory, "front-proxy-ca")
    addresses: list[IPv4Address | str] = [cluster.services[1], cluster.control_address, *NAMES]
    serving = issuer.issue("kube-apiserver", "kube-apiserver", addresses=addresses)
    to_kubelets = issuer.issue("apiserver-kubelet-client", "apiserver-kubelet-client", ["system:masters"])
    to_extensions = front_proxy.issue("front-proxy-client", "front-proxy-client")
    private, public = pki.key_pair(directory, "service-account")
    kubeconfig(cluster, cluster.kubeconfig, "admin", "system:masters")
    manager = kubeconfig(cluster, directory / "controller-manager.conf", "system:kube-controller-manager")
    scheduler = kubeconfig(cluster, directory / "scheduler.conf", "system:kube-scheduler")

    _start(
        cluster,
        "etcd",
        f"--data-dir={cluster.state}/etcd",
        "--listen-client-urls=http://127.0.0.1:2379",  # only this namespace's loopback
        "--advertise-client-urls=http://127.0.0.1:2379",
        "--listen-peer-urls=http://127.0.0.1:2380",
    )
    _start(
        cluster,
        binaries / "kube-apiserver",
        "--etcd-servers=http://127.0.0.1:2379",
        f"--bind-address={cluster.control_address}",
        f"--advertise-address={cluster.control_address}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={serving[0]}",
        f"--tls-private-key-file={serving[1]}",
        f"--client-ca-file={issuer.certificate_path}",
        "--anonymous-auth=false",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        f"--service-cluster-ip-range={cluster.services}",
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
    try:
        wait_until(
            lambda: cluster.admin().kubectl("get", "--raw=/readyz", check=False).returncode == 0,
            90,
            "the API server",
            [cluster.logs / "kube-apiserver.log", cluster.logs / "etcd.log"],
            lambda: cluster.runs("kube-apiserver") and cluster.runs("etcd"),
        )
    except DeployError:
        check(cluster, PROGRAMS[:2])
        raise
    _start(
        cluster,
        binaries / "kube-controller-manager",
        *_identity(manager),
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={private}",
        f"--root-ca-file={issuer.certificate_path}",
    )
    _start(cluster, binaries / "kube-scheduler", *_identity(scheduler))


def check(cluster: LocalCluster, names: Sequence[str] = PROGRAMS) -> None:
    """Fail where a program has ended, with its own last lines."""
    for name in names:
        if not cluster.runs(name):
            raise DeployError(f"{name} ended while starting{last_lines([cluster.logs / f'{name}.log'])}")


def stop(cluster: LocalCluster) -> None:
    """End the control plane in order."""
    for name in reversed(PROGRAMS):
        cluster.process(name).stop()


def _identity(config: Path) -> list[str]:
    return [
        f"--kubeconfig={config}",
        f"--authentication-kubeconfig={config}",
        f"--authorization-kubeconfig={config}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
    ]


def _start(cluster: LocalCluster, program: str | Path, *options: str) -> None:
    name, inside = Path(program).name, ["nsenter", f"--net=/run/netns/{cluster.namespace('control')}"]
    cluster.process(name).ensure([*inside, str(program), *options], cluster.logs / f"{name}.log")
