"""The cluster file, and what it has in common with the templates, the charts and the local cluster."""

import copy
import json
import re
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from tests.chart import crds
from tests.infra import template as t

CLUSTER = t.load("cluster")
ROOT = t.INFRA.parent
# From instance-info and the kubelet's defaults of the EKS AMI: README.md, "What fits".
PODS_A_NODE = 3 * (4 - 1) + 2


EKSCTL = crds.Source(
    "github.com/weaveworks/eksctl@v0.215.0",
    "h1:oCPoubT3UsW4Y2J43Y4dNRvXHEIsgg03Y3e6wv6bKG4=",
    "pkg/apis/eksctl.io/v1alpha5/assets/schema.json",
)


def groups() -> list[dict[str, Any]]:
    node_groups: list[dict[str, Any]] = CLUSTER["managedNodeGroups"]
    return node_groups


def account(name: str) -> dict[str, Any]:
    result: dict[str, Any] = next(
        each for each in CLUSTER["iam"]["serviceAccounts"] if each.get("roleName", each["metadata"]["name"]) == name
    )
    return result


def mistakes(cluster: dict[str, Any]) -> list[str]:
    """Return the errors by eksctl's own schema."""
    validator = Draft7Validator(json.loads(crds.read(EKSCTL)))
    # The next release has it (github.com/eksctl-io/eksctl/pull/8577), but not as a Go module.
    cluster = {key: value for key, value in cluster.items() if key != "upgradePolicy"}
    return [error.message for error in validator.iter_errors(cluster)]


def test_eksctl_knows_every_key() -> None:
    assert mistakes(CLUSTER) == []
    assert CLUSTER["upgradePolicy"] == {"supportType": "STANDARD"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"vpc": {"nats": {"gateway": "Single"}}},
        {"vpc": {"nat": {"gateway": "One"}}},
        {"accessConfig": {"accessEntry": []}},
        {"iam": {"serviceAccounts": [{"name": "flaskapp"}]}},
        {"managedNodeGroups": [{"name": "a", "cpuCredits": "standard"}]},
    ],
    ids=str,
)
def test_eksctl_refuses_a_mistake(wrong: dict[str, Any]) -> None:
    assert mistakes(CLUSTER | wrong) != []


def test_every_statement_is_narrow() -> None:
    assert t.least_privilege(CLUSTER) == []


@pytest.mark.parametrize("sid", ["ScaleOwnGroups", "SeeNodeGroups"])
def test_a_wider_statement_is_found(sid: str) -> None:
    wider = copy.deepcopy(CLUSTER)
    next(each for each in t.statements(wider) if each["Sid"] == sid)["Resource"] = "*"
    assert t.least_privilege(wider) != []


def test_the_autoscaler_touches_this_clusters_groups_alone() -> None:
    scale = next(each for each in t.statements(CLUSTER) if each["Sid"] == "ScaleOwnGroups")
    tag = f"k8s.io/cluster-autoscaler/{CLUSTER['metadata']['name']}"
    assert scale["Condition"] == {"StringEquals": {f"aws:ResourceTag/{tag}": "owned"}}
    for group in groups():
        assert group["tags"] == {"k8s.io/cluster-autoscaler/enabled": "true", tag: "owned"}
    values = t.load("cluster-autoscaler")
    assert values["autoDiscovery"]["clusterName"] == CLUSTER["metadata"]["name"]


def test_one_group_a_zone_of_t4g_small() -> None:
    zones = [zone for group in groups() for zone in group["availabilityZones"]]
    assert sorted(zones) == sorted(CLUSTER["availabilityZones"])
    assert all(len(group["availabilityZones"]) == 1 for group in groups())
    assert {group["instanceType"] for group in groups()} == {"t4g.small"}
    assert all(
        group["volumeEncrypted"] and group["privateNetworking"] and group["disablePodIMDS"] for group in groups()
    )


def test_groups_differ_in_name_and_zone_only() -> None:
    rest = [{k: v for k, v in group.items() if k not in ("name", "availabilityZones")} for group in groups()]
    assert all(each == rest[0] for each in rest)


def test_the_release_is_our_group_and_nothing_else() -> None:
    entries = CLUSTER["accessConfig"]["accessEntries"]
    role = t.load("codebuild")["Resources"]["ReleaseRole"]["Properties"]["RoleName"]
    role = t.substituted(role, Name="flaskapp")
    assert [entry["principalARN"] for entry in entries] == [f"arn:aws:iam::ACCOUNT:role/{role}"]
    assert all("accessPolicies" not in entry for entry in entries)
    _, binding = yaml.safe_load_all((t.INFRA / "helm-release-role.yaml").read_text())
    assert entries[0]["kubernetesGroups"] == [binding["subjects"][0]["name"]]
    assert CLUSTER["accessConfig"]["authenticationMode"] == "API"


@pytest.mark.parametrize(
    ("name", "template", "policy"),
    [
        ("fluent-bit", "logs", "WritePolicy"),
        ("external-secrets", "secrets", "ReadPolicy"),
        ("flaskapp-backup", "backup", "WritePolicy"),
    ],
)
def test_roles_get_the_policies_that_the_templates_make(name: str, template: str, policy: str) -> None:
    loaded = t.load(template)
    made = t.substituted(
        loaded["Resources"][policy]["Properties"]["ManagedPolicyName"], Name=loaded["Parameters"]["Name"]["Default"]
    )
    assert account(name)["attachPolicyARNs"] == [f"arn:aws:iam::ACCOUNT:policy/{made}"]


def test_policies_of_aws_are_the_known_ones() -> None:
    text = (t.INFRA / "cluster.yaml").read_text()
    assert re.findall(r"arn:aws:iam::aws:policy/\w+", text) == ["arn:aws:iam::aws:policy/AmazonEKS_CNI_Policy"]


@pytest.mark.parametrize(
    "name", ["fluent-bit", "external-secrets", "cluster-autoscaler", "aws-load-balancer-controller"]
)
def test_charts_use_the_service_accounts_that_have_roles(name: str) -> None:
    values = t.load(name)
    service_account = values["rbac"]["serviceAccount"] if name == "cluster-autoscaler" else values["serviceAccount"]
    assert service_account == {"create": False, "name": account(name)["metadata"]["name"]}


def test_network_policies_are_enforced() -> None:
    cni = next(addon for addon in CLUSTER["addons"] if addon["name"] == "vpc-cni")
    settings = yaml.safe_load(cni["configurationValues"])
    assert settings == {"enableNetworkPolicy": "true"}, "prefixes would give more pods than memory"


def test_the_pods_that_the_cluster_needs_leave_room() -> None:
    """README.md has these figures."""
    replicas = {addon["name"]: yaml.safe_load(addon.get("configurationValues", "{}")) for addon in CLUSTER["addons"]}
    daemonsets = len(["aws-node", "kube-proxy", "ebs-csi-node", "fluent-bit"])
    cluster = (
        replicas["coredns"]["replicaCount"]
        + replicas["metrics-server"]["replicas"]
        + replicas["aws-ebs-csi-driver"]["controller"]["replicaCount"]
        + t.load("aws-load-balancer-controller")["replicaCount"]
        + t.load("cluster-autoscaler")["replicaCount"]
        + 1  # External Secrets
    )
    nodes = sum(group["minSize"] for group in groups())
    free = nodes * (PODS_A_NODE - daemonsets) - cluster
    assert (nodes, cluster, free) == (2, 7, 7)
    assert f"leaves {free} of {nodes * PODS_A_NODE} pods" in " ".join((t.INFRA / "README.md").read_text().split())


def test_kubernetes_minors() -> None:
    """EKS is some months behind upstream: the local cluster may be one minor version ahead, no more."""
    local = int(
        re.findall(
            r"k8s\.io/kubernetes v1\.(\d+)\.", (ROOT / "deploy/flaskapp_deploy/programs/kubernetes/go.mod").read_text()
        )[0]
    )
    eks = int(CLUSTER["metadata"]["version"].removeprefix("1."))
    assert 0 <= local - eks <= 1
    assert t.load("cluster-autoscaler")["image"]["tag"].startswith(f"v1.{eks}.")


def test_overlays_find_what_they_name() -> None:
    storage, store, namespace = yaml.safe_load_all((t.INFRA / "in-cluster.yaml").read_text())
    assert storage["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert storage["parameters"] == {"type": "gp3", "encrypted": "true"}
    overlay = yaml.safe_load((ROOT / "environments/production-rds.yaml").read_text())
    secret = overlay["database"]["externalSecret"]
    assert secret["secretStoreRef"]["name"] == store["metadata"]["name"]
    assert store["spec"]["conditions"] == [{"namespaces": [namespace["metadata"]["name"]]}]
    template = t.load("secrets")
    defaults = {name: each["Default"] for name, each in template["Parameters"].items()}
    made = [each["Properties"] for each in t.of_type(template, "AWS::SecretsManager::Secret").values()]
    remote = [each["remoteRef"] for each in secret["data"]]
    assert {each["key"] for each in remote} == {t.substituted(each["Name"], **defaults) for each in made}
    assert {each["property"] for each in remote} == {each["GenerateSecretString"]["GenerateStringKey"] for each in made}
    assert overlay["networkPolicy"]["databaseTo"] == [{"ipBlock": {"cidr": CLUSTER["vpc"]["cidr"]}}]


def test_names_agree() -> None:
    """Many files have the same name as a default; release.toml has it too."""
    assert CLUSTER["metadata"]["name"] == "flaskapp"
    for path in t.paths():
        for name, parameter in t.load(path.stem)["Parameters"].items():
            if name in ("Name", "Namespace", "ClusterName"):
                assert parameter["Default"] == "flaskapp", f"{path.name}: {name}"
