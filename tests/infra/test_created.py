"""Create the templates' resources in moto, a simulation of AWS, where it checks what it is given.

It checks these calls closely enough: IAM's CreatePolicy and CreateRole (the grammar of documents), ECR's
CreateRepository, PutLifecyclePolicy and PutImage (which tags move), S3's PutBucketPolicy and lifecycle rules. moto's
CloudFormation, CodeBuild and alarms accept anything or leave resources out, so no stack is created here: what a
template may say as such is cfn-lint's.
"""

import copy
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import boto3  # type: ignore[import-untyped]
import pytest
from botocore.exceptions import ClientError  # type: ignore[import-untyped]
from moto import mock_aws

from tests.infra import template as t
from tests.infra.template import Template

ACCOUNT, REGION = "123456789012", "us-east-1"
PSEUDO = {"AWS::Partition": "aws", "AWS::Region": REGION, "AWS::AccountId": ACCOUNT, "AWS::URLSuffix": "amazonaws.com"}
GIVEN = {"Connection": f"arn:aws:codeconnections:{REGION}:{ACCOUNT}:connection/{'0' * 36}"}
# Resources whose ARN a document names: the ARN's format, and the property with the name.
ARNS = {
    "AWS::Logs::LogGroup": (f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{{}}:*", "LogGroupName"),
    "AWS::S3::Bucket": ("arn:aws:s3:::{}", "BucketName"),
    "AWS::KMS::Key": (f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{{}}", "KeyId"),
}
MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "DEFAULT_REGION": REGION}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    with mock_aws():
        yield


def resolved(value: Any, template: Template) -> Any:
    """Return a value with its references replaced, as CloudFormation does with the parameters' defaults."""
    if isinstance(value, list):
        return [resolved(each, template) for each in value]
    if not isinstance(value, dict):
        return value
    if "Ref" in value:
        return referred(value["Ref"], template)
    if "Fn::GetAtt" in value:
        return referred(".".join(value["Fn::GetAtt"]), template)
    if "Fn::Sub" in value:
        return re.sub(r"\$\{([\w:.]+)\}", lambda match: str(referred(match[1], template)), value["Fn::Sub"])
    return {key: resolved(each, template) for key, each in value.items()}


def referred(name: str, template: Template) -> Any:
    values = PSEUDO | {key: each.get("Default") for key, each in template["Parameters"].items()} | GIVEN
    if name in values:
        return values[name]
    resource, _, attribute = name.partition(".")
    properties = template["Resources"][resource]["Properties"]
    form, key = ARNS.get(template["Resources"][resource]["Type"], ("{}", ""))
    own = resolved(properties.get(key, resource.lower()), template)
    return form.format(own) if attribute == "Arn" else own


# --- IAM: the grammar of documents ----------------------------------------------------------------------------------


def documents() -> list[tuple[str, dict[str, Any]]]:
    """Return every policy document by name, those of cluster.yaml too."""
    policies = []
    for path in t.paths():
        template = t.load(path.stem)
        for name, resource in template["Resources"].items():
            if resource["Type"] in ("AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy"):
                policies.append((f"{path.stem}-{name}", resolved(resource["Properties"]["PolicyDocument"], template)))
    for account in t.load("cluster")["iam"]["serviceAccounts"]:
        if "attachPolicy" in account:
            text = json.dumps(account["attachPolicy"]).replace("ACCOUNT", ACCOUNT).replace("REGION", REGION)
            policies.append((f"cluster-{account['metadata']['name']}", json.loads(text)))
    return policies


DOCUMENTS = documents()


def test_documents_are_found() -> None:
    assert len(DOCUMENTS) >= 8
    assert "${" not in json.dumps([document for _, document in DOCUMENTS])


@pytest.mark.parametrize(("name", "document"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])
def test_iam_takes_the_document(name: str, document: dict[str, Any]) -> None:
    boto3.client("iam").create_policy(PolicyName=name, PolicyDocument=json.dumps(document))


@pytest.mark.parametrize(
    "wrong", [{"Action": "PutObject"}, {"Resource": "flaskapp"}, {"Effect": "allow"}, {"Conditions": {}}], ids=str
)
def test_iam_refuses_a_wrong_document(wrong: dict[str, Any]) -> None:
    _, document = copy.deepcopy(DOCUMENTS[0])
    document["Statement"][0].update(wrong)
    with pytest.raises(ClientError, match="MalformedPolicyDocument"):
        boto3.client("iam").create_policy(PolicyName="wrong", PolicyDocument=json.dumps(document))


@pytest.mark.parametrize("name", ["ReleaseRole", "PullRequestRole"])
def test_iam_takes_the_role(name: str) -> None:
    template = t.load("codebuild")
    role = resolved(template["Resources"][name]["Properties"], template)
    trust = json.dumps(role.pop("AssumeRolePolicyDocument"))
    made = boto3.client("iam").create_role(**role, AssumeRolePolicyDocument=trust)["Role"]
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/{role['RoleName']}"


# --- ECR: which tags move -------------------------------------------------------------------------------------------


def repository(name: str, **changes: Any) -> str:
    """Create a repository as ecr.yaml does."""
    template = t.load("ecr")
    properties = resolved(template["Resources"][name]["Properties"], template) | changes
    client = boto3.client("ecr")
    prefix = "ImageTagMutabilityExclusionFilter"
    filters = [
        {"filterType": each[f"{prefix}Type"], "filter": each[f"{prefix}Value"]}
        for each in properties.get(f"{prefix}s", [])
    ]
    client.create_repository(
        repositoryName=properties["RepositoryName"],
        imageTagMutability=properties["ImageTagMutability"],
        **({"imageTagMutabilityExclusionFilters": filters} if filters else {}),
    )
    if "LifecyclePolicy" in properties:
        text = properties["LifecyclePolicy"]["LifecyclePolicyText"]
        client.put_lifecycle_policy(repositoryName=properties["RepositoryName"], lifecyclePolicyText=text)
    return str(properties["RepositoryName"])


def push(name: str, tag: str, content: str) -> None:
    """Push a manifest; moto derives its digest from its layers' digests."""
    layer = {"digest": f"sha256:{sha256(content.encode()).hexdigest()}", "size": 1}
    manifest = {"schemaVersion": 2, "mediaType": MEDIA_TYPE, "config": {}, "layers": [layer]}
    boto3.client("ecr").put_image(repositoryName=name, imageTag=tag, imageManifest=json.dumps(manifest))


@pytest.mark.parametrize(
    ("resource", "tag"), [("Image", "0.2.0"), ("Image", "pr-7"), ("Chart", "0.2.0"), ("Chart", "cache")]
)
def test_a_pushed_tag_stays(resource: str, tag: str) -> None:
    name = repository(resource)
    push(name, tag, "first")
    with pytest.raises(ClientError, match="already exists"):
        push(name, tag, "second")


def test_the_cache_moves() -> None:
    name = repository("Image")
    push(name, "cache-arm64", "first")
    push(name, "cache-arm64", "second")


def test_a_wrong_lifecycle_is_refused() -> None:
    text = t.load("ecr")["Resources"]["Image"]["Properties"]["LifecyclePolicy"]["LifecyclePolicyText"]
    with pytest.raises(ClientError, match="InvalidParameterException"):
        repository("Image", LifecyclePolicy={"LifecyclePolicyText": text.replace('"untagged"', '"unnamed"')})


# --- S3 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "bucket", "policy"), [("backup", "Bucket", "TlsOnly"), ("codebuild", "Artifacts", "ArtifactsPolicy")]
)
def test_s3_takes_the_buckets_rules(template: str, bucket: str, policy: str) -> None:
    loaded = t.load(template)
    name = referred(bucket, loaded)
    client = boto3.client("s3")
    client.create_bucket(Bucket=name)
    document = resolved(loaded["Resources"][policy]["Properties"]["PolicyDocument"], loaded)
    client.put_bucket_policy(Bucket=name, Policy=json.dumps(document))
    block = loaded["Resources"][bucket]["Properties"]["PublicAccessBlockConfiguration"]
    client.put_public_access_block(Bucket=name, PublicAccessBlockConfiguration=block)
    assert json.loads(client.get_bucket_policy(Bucket=name)["Policy"]) == document
