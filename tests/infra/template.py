"""Read the templates and the cluster file; rules for all of them.

A rule returns a line for each violation, so that a test can break a copy and see the rule fail.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

INFRA = Path(__file__).resolve().parents[2] / "infra"
Template = dict[str, Any]

# Statements for which AWS has no narrower resource; Sid: (allowed actions, reason).
UNNARROWED = {
    "LogInToRegistry": ({"ecr:GetAuthorizationToken"}, "a login is for the registry, not for a repository"),
    "SeeGroups": (
        {
            "autoscaling:DescribeAutoScalingGroups",
            "autoscaling:DescribeAutoScalingInstances",
            "autoscaling:DescribeLaunchConfigurations",
            "autoscaling:DescribeScalingActivities",
            "autoscaling:DescribeTags",
            "ec2:DescribeImages",
            "ec2:DescribeInstanceTypes",
            "ec2:DescribeLaunchTemplateVersions",
            "ec2:GetInstanceTypesFromInstanceRequirements",
        },
        "these describe lists, which have no ARN",
    ),
}
# Wildcards within an ARN: end of the ARN, reason.
WITHIN = {
    "report-group/${Name}-release-*": "CodeBuild calls a report group PROJECT-GROUP",
    "report-group/${Name}-pull-request-*": "the same",
    "${Artifacts.Arn}/release/*": "objects under one prefix",
    "${Artifacts.Arn}/cache/release/*": "objects under one prefix",
    "${Artifacts.Arn}/cache/pull-request/*": "objects under one prefix",
    "${Bucket.Arn}/*": "the objects of the backups' own bucket",
    "secret:${Name}/pipeline/*": "Secrets Manager adds six random characters to a name",
    "secret:${Name}/${Environment}/*": "the same",
    "autoScalingGroup:*:autoScalingGroupName/eks-*": "EKS names its groups; a condition on their tag narrows it",
    "nodegroup/flaskapp/*/*": "the groups of one cluster, with the ids that EKS gives them",
}
# Resources that hold data or are needed after their stack: the deletion policies allowed.
KEPT = {
    "AWS::ECR::Repository": {"Retain"},
    "AWS::RDS::DBInstance": {"Snapshot"},
    "AWS::S3::Bucket": {"Retain"},
    "AWS::SecretsManager::Secret": {"Retain"},
}
CREDENTIALS = re.compile(r"password|secret|token", re.IGNORECASE)


def paths() -> list[Path]:
    """Return the files that are CloudFormation templates."""
    return [path for path in sorted(INFRA.glob("*.yaml")) if path.read_text().startswith("AWSTemplateFormatVersion")]


def load(name: str) -> Template:
    loaded: Template = yaml.safe_load((INFRA / f"{name}.yaml").read_text())
    return loaded


def substituted(value: Any, **parameters: str) -> str:
    """Return a string, or `{Fn::Sub: …}` with these values filled in."""
    text = value["Fn::Sub"] if isinstance(value, dict) else value
    return re.sub(r"\$\{([A-Za-z0-9.:]+)\}", lambda match: parameters.get(match[1], match[0]), text)


def of_type(template: Template, kind: str) -> dict[str, Any]:
    """Return the resources of a type, by name."""
    return {name: resource for name, resource in template["Resources"].items() if resource["Type"] == kind}


def statements(node: Any) -> Iterator[dict[str, Any]]:
    """Yield every statement of every policy document, at any depth."""
    if isinstance(node, dict):
        if "Statement" in node:
            yield from node["Statement"]
        else:
            for value in node.values():
                yield from statements(value)
    elif isinstance(node, list):
        for value in node:
            yield from statements(value)


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def text(value: Any) -> str:
    """Return a statement's resource as text, references as they are written."""
    if isinstance(value, str):
        return value
    return str(value["Fn::Sub"]) if "Fn::Sub" in value else json.dumps(value)


# --- rules ----------------------------------------------------------------------------------------------------------


def least_privilege(template: Template) -> list[str]:
    """No statement allows more than it names."""
    wrong = []
    for statement in statements(template):
        sid: str = statement.get("Sid", "")
        if not sid:
            wrong.append(f"a statement without Sid: {statement}")
        wrong += [f"{sid}: {key}" for key in ("NotAction", "NotResource", "NotPrincipal") if key in statement]
        if statement["Effect"] == "Deny":
            continue
        actions = listed(statement["Action"])
        wrong += [f"{sid}: action {action}" for action in actions if "*" in action]
        if "Principal" in statement:
            wrong += trusted(statement)
            continue
        for resource in map(text, listed(statement["Resource"])):
            if resource == "*":
                if not set(actions) <= UNNARROWED.get(sid, (set(), ""))[0]:
                    wrong.append(f"{sid}: {actions} on every resource")
            elif "*" in resource and not any(resource.endswith(suffix) for suffix in WITHIN):
                wrong.append(f"{sid}: wildcard in {resource}")
    return wrong


def trusted(statement: dict[str, Any]) -> list[str]:
    """Who may take a role: a service, for one resource of this account."""
    principal = statement["Principal"]
    if not isinstance(principal, dict) or set(principal) != {"Service"}:
        return [f"{statement.get('Sid')}: principal {principal}"]
    sources = statement.get("Condition", {}).get("ArnEquals", {})
    return [] if "aws:SourceArn" in sources else [f"{statement.get('Sid')}: any resource of {principal['Service']}"]


def retention(template: Template) -> list[str]:
    """Every log group has a retention; without one CloudWatch keeps logs indefinitely."""
    groups = of_type(template, "AWS::Logs::LogGroup")
    return [name for name, group in groups.items() if "RetentionInDays" not in group["Properties"]]


def encryption(template: Template) -> list[str]:
    """Data at rest is encrypted, buckets are private, and the database accepts only TLS."""
    wrong = []
    for name, bucket in of_type(template, "AWS::S3::Bucket").items():
        properties = bucket["Properties"]
        block = properties.get("PublicAccessBlockConfiguration", {})
        if "BucketEncryption" not in properties:
            wrong.append(f"{name}: not encrypted")
        if [block.get(f"{verb}Public{what}") for verb, what in BLOCKS] != [True] * 4:
            wrong.append(f"{name}: may become public")
        if not tls_only(template, name):
            wrong.append(f"{name}: answers without TLS")
    for name, database in of_type(template, "AWS::RDS::DBInstance").items():
        properties = database["Properties"]
        wrong += [f"{name}: {key} is not true" for key in MUST if properties.get(key) is not True]
        wrong += [f"{name}: {key} is given" for key in ("MasterUserPassword",) if key in properties]
        if properties.get("PubliclyAccessible") is not False:
            wrong.append(f"{name}: public")
        group = template["Resources"].get(properties.get("DBParameterGroupName", {}).get("Ref"), {})
        if group.get("Properties", {}).get("Parameters", {}).get("rds.force_ssl") != "1":
            wrong.append(f"{name}: answers without TLS")
    for name, repository in of_type(template, "AWS::ECR::Repository").items():
        if "EncryptionConfiguration" not in repository["Properties"]:
            wrong.append(f"{name}: not encrypted")
    return wrong


BLOCKS = [("Block", "Acls"), ("Block", "Policy"), ("Ignore", "Acls"), ("Restrict", "Buckets")]
MUST = ("StorageEncrypted", "DeletionProtection", "ManageMasterUserPassword", "EnableIAMDatabaseAuthentication")


def tls_only(template: Template, bucket: str) -> bool:
    for policy in of_type(template, "AWS::S3::BucketPolicy").values():
        if policy["Properties"]["Bucket"] == {"Ref": bucket}:
            for statement in statements(policy):
                condition = statement.get("Condition", {}).get("Bool", {}).get("aws:SecureTransport")
                if statement["Effect"] == "Deny" and statement["Principal"] == "*" and condition == "false":
                    return True
    return False


def kept(template: Template) -> list[str]:
    """Resources with data survive the deletion of their stack, and their replacement."""
    return [
        f"{name}: {key} is {resource.get(key)}"
        for kind, allowed in KEPT.items()
        for name, resource in of_type(template, kind).items()
        for key in ("DeletionPolicy", "UpdateReplacePolicy")
        if resource.get(key) not in allowed
    ]


def bounded_parameters(template: Template) -> list[str]:
    """Each parameter has a description and a constraint; none is a secret."""
    wrong = []
    for name, parameter in template["Parameters"].items():
        if not parameter.get("Description"):
            wrong.append(f"{name}: no description")
        pattern = parameter.get("AllowedPattern")
        if pattern is not None and not (pattern.startswith("^") and pattern.endswith("$")):
            wrong.append(f"{name}: pattern is not anchored")
        bounded = pattern or "AllowedValues" in parameter or {"MinValue", "MaxValue"} <= set(parameter)
        if not bounded:
            wrong.append(f"{name}: takes anything")
        if CREDENTIALS.search(name):
            wrong.append(f"{name}: a secret has no place in a parameter")
    return wrong


def immutable(template: Template) -> list[str]:
    """Tags are immutable, except the cache's; nothing that was released expires."""
    wrong = []
    for name, repository in of_type(template, "AWS::ECR::Repository").items():
        properties = repository["Properties"]
        filters = [
            each["ImageTagMutabilityExclusionFilterValue"]
            for each in properties.get("ImageTagMutabilityExclusionFilters", [])
        ]
        expected = "IMMUTABLE_WITH_EXCLUSION" if filters else "IMMUTABLE"
        if properties.get("ImageTagMutability") != expected or filters not in ([], ["cache*"]):
            wrong.append(f"{name}: tags move: {properties.get('ImageTagMutability')} {filters}")
        policy = json.loads(properties.get("LifecyclePolicy", {}).get("LifecyclePolicyText", '{"rules": []}'))
        for rule in policy["rules"]:
            selection = rule["selection"]
            if selection["tagStatus"] != "untagged" and selection.get("tagPatternList") != ["pr-*"]:
                wrong.append(f"{name}: expires {selection}")
    return wrong


RULES = [least_privilege, retention, encryption, kept, bounded_parameters, immutable]
