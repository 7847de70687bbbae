"""etcd, API server, controller manager and scheduler, in a network namespace of their own."""

import base64
from ipaddress import IPv4Address
from pathlib import Path

import yaml

from flaskapp_deploy.cluster import pki
from flaskapp_deploy.cluster.localcluster import API_PORT, LocalCluster
from flaskapp_deploy.shell import wait_until, write_atomic

# In the order in which they start; they end in the reverse one, the writers before the store.
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
NAMES = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")


def authority(cluster: LocalCluster) -> pki.Authority:
    """Return the authority that signs the certificates of users, nodes and the API server."""
    return pki.Authority(cluster.state / "pki", "ca")


def kubeconfig(cluster: LocalCluster, path: Path, user: str, *groups: str, namespace: str = "") -> Path:
    """Write a kubeconfig for a user by that name (RBAC decides what they may do); return its path.

    It holds everything it needs, so that it can be copied elsewhere.
    """
    issuer, name = authority(cluster), f"flaskapp-{cluster.name}"
    files = issuer.certificate_path, *issuer.issue(user.replace(":", "-").replace("/", "-"), user, groups)
    own, certificate, key = (base64.b64encode(file.read_bytes()).decode() for file in files)
    context = {"cluster": name, "user": name} | ({"namespace": namespace} if namespace else {})
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": cluster.server, "certificate-authority-data": own}}],
        "users": [{"name": name, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": name, "context": context}],
        "current-context": name,
    }
    write_atomic(path, yaml.safe_dump(document, sort_keys=False), 0o600)
    return path


def ensure(cluster: LocalCluster, binaries: Path) -> None:
    """Start what doesn't run, and wait until the API server is ready."""
    directory = cluster.state / "pki"
    issuer, front_proxy = authority(cluster), pki.Authority(directory, "front-proxy-ca")
    addresses: list[IPv4Address | str] = [cluster.services[1], cluster.control_address, *NAMES]
    serving = issuer.issue("kube-apiserver", "kube-apiserver", addresses=addresses)
    to_kubelets = issuer.issue("apiserver-kubelet-client", "apiserver-kubelet-client", ["system:masters"])
    to_extensions = front_proxy.issue("front-proxy-client", "front-proxy-client")
    tokens = pki.Authority(directory, "service-account")
    kubeconfig(cluster, cluster.kubeconfig, "admin", "system:masters")

    # Only this namespace's loopback.
    urls = [f"--{name}-client-urls=http://127.0.0.1:2379" for name in ("listen", "advertise")]
    _start(cluster, "etcd", f"--data-dir={cluster.state}/etcd", *urls, "--listen-peer-urls=http://127.0.0.1:2380")
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
        f"--service-account-key-file={tokens.certificate_path}",
        f"--service-account-signing-key-file={tokens.key_path}",
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

    def ready() -> bool:
        return cluster.admin().kubectl("get", "--raw=/readyz", check=False).returncode == 0

    logs = cluster.logs_of("kube-apiserver")
    wait_until(ready, 90, "the API server", logs, lambda: cluster.require("etcd", "kube-apiserver"))
    trust = [f"--service-account-private-key-file={tokens.key_path}", f"--root-ca-file={issuer.certificate_path}"]
    manager = binaries / "kube-controller-manager"
    _start(cluster, manager, *_identity(cluster, manager), "--use-service-account-credentials=true", *trust)
    scheduler = binaries / "kube-scheduler"
    _start(cluster, scheduler, *_identity(cluster, scheduler))


def wait(cluster: LocalCluster) -> None:
    """Wait until every program of the control plane says that it is healthy."""
    status = "--output=jsonpath={.items[*].conditions[?(@.type=='Healthy')].status}"

    def healthy() -> bool:
        result = cluster.admin().kubectl("get", "componentstatuses", status, check=False)
        return set(result.stdout.split()) == {"True"}

    logs = [cluster.logs_of(name)[0] for name in PROGRAMS[2:]]
    wait_until(healthy, 60, "the control plane", logs, lambda: cluster.require(*PROGRAMS))


def stop(cluster: LocalCluster) -> None:
    """End the control plane in order."""
    for name in reversed(PROGRAMS):
        cluster.process(name).stop()


def _identity(cluster: LocalCluster, program: Path) -> list[str]:
    """Return the options of a client of the API server that runs alone."""
    config = kubeconfig(cluster, cluster.state / f"pki/{program.name}.conf", f"system:{program.name}")
    configs = [f"--{use}={config}" for use in ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")]
    return [*configs, "--leader-elect=false", "--bind-address=127.0.0.1"]


def _start(cluster: LocalCluster, program: str | Path, *options: str) -> None:
    name, inside = Path(program).name, ["nsenter", f"--net=/run/netns/{cluster.namespace('control')}"]
    cluster.process(name).ensure([*inside, str(program), *options], cluster.logs / f"{name}.log")
