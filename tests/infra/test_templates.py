"""Every template passes AWS's own schemas (cfn-lint) and our rules; every rule fails on a template that breaks it."""

import copy
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.infra import template as t
from tests.infra.template import Template

NAMES = [path.stem for path in t.paths()]


def test_each_concern_has_its_template() -> None:
    assert NAMES == ["backup", "codebuild", "ecr", "logs", "rds", "secrets"]


def test_cfn_lint() -> None:
    """No finding on types, properties, values and references, not even an informational one."""
    result = subprocess.run(
        ["cfn-lint", "--include-checks", "I", "--regions", "us-east-1", "eu-central-1", "--", *map(str, t.paths())],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_cfn_lint_refuses_a_wrong_template(tmp_path: Path) -> None:
    text = (t.INFRA / "ecr.yaml").read_text().replace("ScanOnPush: true", "ScanOnPsh: true")
    (tmp_path / "ecr.yaml").write_text(text)
    result = subprocess.run(["cfn-lint", str(tmp_path / "ecr.yaml")], capture_output=True, text=True)
    assert result.returncode != 0
    assert "ScanOnPsh" in result.stdout


@pytest.mark.parametrize("rule", t.RULES, ids=lambda rule: str(rule.__name__))
@pytest.mark.parametrize("name", NAMES)
def test_rules(name: str, rule: Callable[[Template], list[str]]) -> None:
    assert rule(t.load(name)) == []


def test_the_rules_meet_something() -> None:
    """The helpers above do find statements and resources."""
    loaded = {name: t.load(name) for name in NAMES}
    assert sum(1 for each in loaded.values() for _ in t.statements(each)) >= 20
    kinds = {resource["Type"] for each in loaded.values() for resource in each["Resources"].values()}
    assert set(t.KEPT) | {"AWS::Logs::LogGroup", "AWS::IAM::Role", "AWS::IAM::ManagedPolicy"} <= kinds


def test_exceptions_are_used() -> None:
    """Every exception is still needed."""
    documents = [*map(t.load, NAMES), t.load("cluster")]
    allowed = [each for document in documents for each in t.statements(document) if each["Effect"] == "Allow"]
    resources = [t.text(each) for statement in allowed for each in t.listed(statement.get("Resource", []))]
    assert {statement["Sid"] for statement in allowed if statement.get("Resource") == "*"} == set(t.UNNARROWED)
    assert [suffix for suffix in t.WITHIN if not any(each.endswith(suffix) for each in resources)] == []


# --- mutations: each must turn its rule red -------------------------------------------------------------------------


def statement(template: Template, policy: str, sid: str) -> dict[str, Any]:
    result: dict[str, Any] = next(s for s in t.statements(template["Resources"][policy]) if s["Sid"] == sid)
    return result


def put(*path: str, value: Any) -> Callable[[Template], None]:
    def change(template: Template) -> None:
        node: Any = template
        for key in path[:-1]:
            node = node[key]
        assert node.get(path[-1]) != value, "the mutation changes nothing"
        node[path[-1]] = value

    return change


def drop(*path: str) -> Callable[[Template], None]:
    def change(template: Template) -> None:
        node: Any = template
        for key in path[:-1]:
            node = node[key]
        del node[path[-1]]

    return change


def allow(policy: str, sid: str, **changes: Any) -> Callable[[Template], None]:
    return lambda template: statement(template, policy, sid).update(changes)


def expire_releases(template: Template) -> None:
    properties = template["Resources"]["Image"]["Properties"]["LifecyclePolicy"]
    policy = json.loads(properties["LifecyclePolicyText"])
    policy["rules"][1]["selection"]["tagPatternList"] = ["*"]
    properties["LifecyclePolicyText"] = json.dumps(policy)


def without_source(template: Template) -> None:
    del template["Resources"]["ReleaseRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"][0]["Condition"]


R, P = "Resources", "Properties"
MUTATIONS: list[tuple[str, str, Callable[[Template], list[str]], Callable[[Template], None]]] = [
    ("any action", "codebuild", t.least_privilege, allow("ReleasePolicy", "PushAndPull", Action="ecr:*")),
    ("any repository", "codebuild", t.least_privilege, allow("ReleasePolicy", "PushAndPull", Resource="*")),
    ("any secret", "codebuild", t.least_privilege,
     allow("ReleasePolicy", "ReadPipelineSecrets", Resource={"Fn::Sub": "arn:aws:secretsmanager:*:secret:*"})),
    ("more on everything", "codebuild", t.least_privilege,
     allow("ReleasePolicy", "LogInToRegistry", Action=["ecr:GetAuthorizationToken", "ecr:PutImage"])),
    ("all but", "codebuild", t.least_privilege,
     allow("ReleasePolicy", "FindCluster", NotAction=["eks:DeleteCluster"])),
    ("no name", "backup", t.least_privilege,
     lambda template: statement(template, "WritePolicy", "PutDumps").pop("Sid")),
    ("anybody", "codebuild", t.least_privilege,
     lambda template: statement(template, "ReleaseRole", "CodeBuild").update(Principal={"AWS": "*"})),
    ("any project", "codebuild", t.least_privilege, without_source),
    ("kept for ever", "logs", t.retention, drop(R, "ContainerLogs", P, "RetentionInDays")),
    ("bucket in the clear", "backup", t.encryption, drop(R, "Bucket", P, "BucketEncryption")),
    ("public bucket", "backup", t.encryption,
     put(R, "Bucket", P, "PublicAccessBlockConfiguration", "BlockPublicPolicy", value=False)),
    ("bucket over HTTP", "codebuild", t.encryption, drop(R, "ArtifactsPolicy")),
    ("database in the clear", "rds", t.encryption, put(R, "Database", P, "StorageEncrypted", value=False)),
    ("database without TLS", "rds", t.encryption, put(R, "Parameters", P, "Parameters", "rds.force_ssl", value="0")),
    ("public database", "rds", t.encryption, put(R, "Database", P, "PubliclyAccessible", value=True)),
    ("own password", "rds", t.encryption, put(R, "Database", P, "MasterUserPassword", value={"Ref": "Password"})),
    ("no IAM", "rds", t.encryption, put(R, "Database", P, "EnableIAMDatabaseAuthentication", value=False)),
    ("database deleted", "rds", t.kept, put(R, "Database", "DeletionPolicy", value="Delete")),
    ("database replaced", "rds", t.kept, drop(R, "Database", "UpdateReplacePolicy")),
    ("images deleted", "ecr", t.kept, put(R, "Image", "DeletionPolicy", value="Delete")),
    ("passwords deleted", "secrets", t.kept, drop(R, "Owner", "DeletionPolicy")),
    ("no pattern", "codebuild", t.bounded_parameters, drop("Parameters", "TrustedActors", "AllowedPattern")),
    ("open pattern", "codebuild", t.bounded_parameters, put("Parameters", "Branch", "AllowedPattern", value="[a-z]+")),
    ("no description", "ecr", t.bounded_parameters, drop("Parameters", "Name", "Description")),
    ("secret given", "rds", t.bounded_parameters,
     put("Parameters", "MasterPassword", value={"Description": "x", "AllowedPattern": "^x$"})),
    ("movable tags", "ecr", t.immutable, put(R, "Image", P, "ImageTagMutability", value="MUTABLE")),
    ("movable releases", "ecr", t.immutable,
     put(R, "Image", P, "ImageTagMutabilityExclusionFilters", value=[{"ImageTagMutabilityExclusionFilterValue": "*"}])),
    ("releases expire", "ecr", t.immutable, expire_releases),
]  # fmt: skip


@pytest.mark.parametrize(("name", "rule", "change"), [m[1:] for m in MUTATIONS], ids=[m[0] for m in MUTATIONS])
def test_mutation_turns_the_rule_red(
    name: str, rule: Callable[[Template], list[str]], change: Callable[[Template], None]
) -> None:
    template = copy.deepcopy(t.load(name))
    change(template)
    assert rule(template) != []


# --- what a rule for all templates does not say ---------------------------------------------------------------------


def test_a_pull_request_can_write_nothing_that_a_release_reads() -> None:
    template = t.load("codebuild")
    allowed = list(t.statements(template["Resources"]["PullRequestPolicy"]))
    services = {action.split(":")[0] for each in allowed for action in t.listed(each["Action"])}
    assert services == {"logs", "codeconnections", "codebuild", "s3"}
    writable = [
        t.text(resource)
        for each in allowed
        if "s3:PutObject" in t.listed(each["Action"])
        for resource in t.listed(each["Resource"])
    ]
    assert writable == ["${Artifacts.Arn}/cache/pull-request/*"]
    caches = {
        name: template["Resources"][name]["Properties"]["Cache"]["Location"] for name in ("Release", "PullRequest")
    }
    assert t.text(caches["Release"]) == "${Artifacts}/cache/release"
    assert t.text(caches["PullRequest"]) == "${Artifacts}/cache/pull-request"


def test_the_webhook_waits_for_the_rights_that_make_it() -> None:
    resources = t.load("codebuild")["Resources"]
    for project, policy in (("Release", "ReleasePolicy"), ("PullRequest", "PullRequestPolicy")):
        assert resources[project]["DependsOn"] == policy
        assert resources[policy]["Properties"]["RoleName"] == {"Ref": f"{project}Role"}
        assert resources[project]["Properties"]["ServiceRole"] == {"Fn::GetAtt": [f"{project}Role", "Arn"]}


def test_the_release_may_not_remove_or_overwrite() -> None:
    actions = {
        action
        for each in t.statements(t.load("codebuild")["Resources"]["ReleasePolicy"])
        for action in t.listed(each["Action"])
    }
    assert [action for action in actions if re.search(r"Delete|CreateRepository|Mutability|PutLifecycle", action)] == []


def test_the_backup_can_not_be_deleted_by_who_writes_it() -> None:
    allowed = {
        action
        for each in t.statements(t.load("backup")["Resources"]["WritePolicy"])
        for action in t.listed(each["Action"])
    }
    assert allowed == {"s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload"}
    assert t.load("backup")["Resources"]["Bucket"]["Properties"]["VersioningConfiguration"] == {"Status": "Enabled"}


def test_parameter_patterns_refuse_what_would_become_syntax() -> None:
    parameters = t.load("codebuild")["Parameters"]
    for name, values in {
        "Branch": ["main$|^refs/heads/x", ".*", "main|x", "release.1", "", "^main"],
        "TrustedActors": ["12|", "|12", "12||13", ".*", "12|.*", "012", "12)|(13", "", "12 13"],
        "Connection": ["arn:aws:codeconnections:us-east-1:123456789012:connection/*", "*"],
        "Repository": ["https://github.com.example.org/a/b.git", "http://github.com/a/b.git", "https://github.com/a/../b.git"],
    }.items():  # fmt: skip
        for value in values:
            assert not re.search(parameters[name]["AllowedPattern"], value), f"{name} takes {value!r}"
    for name, value in {
        "Branch": "release/next",
        "TrustedActors": "1234567|89",
        "Repository": "https://github.com/some-team/flask.app.git",
    }.items():
        assert re.search(parameters[name]["AllowedPattern"], value)
