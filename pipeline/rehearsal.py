"""`make pipeline`: buildspec.yml run here on the last commit, every phase for real.

The local cluster takes the place of EKS, a registry on this machine that of ECR, and `aws` is answered from a record.
Helm has the Role that infra/ gives a release, and the source is a clone: what isn't committed isn't released.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import localcluster.cluster
import tools
from localcluster import controlplane, image, node
from localcluster.instance import Instance
from pipeline import registry, state
from pipeline.config import ROOT, PipelineError, Release
from pipeline.ecr import ACCOUNT
from pipeline.helm import Cluster
from pipeline.registry import Registry
from pipeline.up import ensure_admin_token, ensure_namespace
from pipeline.version import git
from tools import say

REGION, GROUP = "eu-central-1", "flaskapp:release"
PORT = 5443
POSTGRES = "public.ecr.aws/docker/library/postgres:18"
NOBODY = "http://127.0.0.1:9"  # the port of the discard protocol: no ledger there


def run(release: Release, instance: str, source: Path = ROOT) -> None:
    """Make what AWS would have, then run the buildspec in a clone of `source`.

    Raises:
        PipelineError: there are uncommitted changes, or the build did not succeed.
    """
    if git(source, "status", "--porcelain"):
        raise PipelineError("there are uncommitted changes, and the pipeline releases commits: commit them first")
    output = source / "build/pipeline"
    output.mkdir(parents=True, exist_ok=True)
    with cloud(release, instance) as environment, tempfile.TemporaryDirectory(prefix="flaskapp-pipeline-") as work:
        clone = Path(work) / "source"
        git(source, "clone", "--quiet", str(source), str(clone))
        address = git(source, "remote", "get-url", "origin", check=False)
        git(clone, "remote", "set-url", "origin", address or str(source))
        code = build(clone, Path(work), environment, output)
    if code:
        raise PipelineError(f"the build did not succeed; its log is {output}/build.log")


def build(clone: Path, work: Path, environment: dict[str, str], output: Path, buildspec: str = "buildspec.yml") -> int:
    """Run a buildspec in a checkout by pipeline/codebuild; return its exit code."""
    aws, secrets = work / "aws.json", work / "secrets.json"
    token = environment["REGISTRY_TOKEN"]
    kubeconfig = environment["RELEASE_KUBECONFIG"]
    aws.write_text(json.dumps(recorded(token, kubeconfig)))
    secrets.touch(mode=0o600)
    secrets.write_text(json.dumps({"flaskapp/pipeline/ledger-token": environment["LEDGER_TOKEN"]}))
    variables = {
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "CLUSTER_NAME": "flaskapp",
        "DOCKER_CONFIG": str(work / "docker"),
        "KUBECONFIG": str(work / "kubeconfig"),
        **{name: environment[name] for name in ("REGISTRY", "IMAGE_REPOSITORY", "CHART_REPOSITORY", "SSL_CERT_FILE")},
        "LEDGER_URL": environment["LEDGER_URL"],
    }
    (work / "docker").mkdir(exist_ok=True, mode=0o700)
    command = [sys.executable, "-m", "pipeline.codebuild", buildspec, "--source", str(clone)]
    command += [f"--variable={name}={value}" for name, value in variables.items()]
    command += [
        "--secrets",
        str(secrets),
        "--aws",
        str(aws),
        "--output",
        str(output),
        "--log",
        str(output / "build.log"),
    ]
    own = {"PATH": f"{work}/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    (work / "bin").mkdir(exist_ok=True)
    kubectl = work / "bin/kubectl"
    if not kubectl.exists():  # CodeBuild's image has one
        kubectl.symlink_to(tools.binaries("kubernetes") / "kubectl")
    return subprocess.run(command, cwd=clone, env=os.environ | own).returncode


@contextmanager
def cloud(release: Release, name: str) -> Iterator[dict[str, str]]:
    """What infra/ makes on AWS, made here: cluster, namespace, role, registry, repositories, the ledger's token.

    Yields:
        The variables that infra/codebuild.yaml gives a build, and what only a rehearsal needs.
    """
    cluster = localcluster.cluster.up(name)
    if database := image.postgres_archive():
        localcluster.cluster.load_images(name, {POSTGRES: database})
    admin = Cluster(cluster.kubeconfig, "", release.namespace)
    ensure_namespace(admin)
    admin.kubectl("apply", "--filename", str(ROOT / "infra/helm-release-role.yaml"))
    kubeconfig = controlplane.kubeconfig(
        cluster, cluster.state / "pki/releaser.conf", "releaser", GROUP, namespace=release.namespace
    )
    with registry.serve(cluster.state / "registry", host=str(cluster.host_address), port=PORT) as served:
        served.create(release.name)
        served.create(f"charts/{release.name}", movable=())
        trust(cluster, served)
        yield {
            "REGISTRY": served.address,
            "REGISTRY_TOKEN": served.token(),
            "IMAGE_REPOSITORY": release.name,
            "CHART_REPOSITORY": f"charts/{release.name}",
            "SSL_CERT_FILE": str(served.certificates),
            "RELEASE_KUBECONFIG": str(kubeconfig),
            "LEDGER_URL": ledger(admin, name),
            "LEDGER_TOKEN": ensure_admin_token(admin),
        }


def trust(cluster: Instance, served: Registry) -> None:
    """Let the nodes pull, as EKS's may pull from ECR."""
    authority = served.home / "pki/registry.crt"
    for one in cluster.nodes:
        node.trust_registry(cluster, one, served.address, authority, f"AWS:{served.token()}")


def ledger(admin: Cluster, instance: str) -> str:
    """The ledger of an earlier run; before the first there is none."""
    found = admin.kubectl("get", "service", "flaskapp", "--output=name", check=False)
    return localcluster.cluster.forward(instance, admin.namespace, "flaskapp") if found.returncode == 0 else NOBODY


def recorded(token: str, kubeconfig: str) -> dict[str, object]:
    """What `aws` answers in a rehearsal; everything else fails."""
    identity = {
        "UserId": "AROAEXAMPLE:build",
        "Account": ACCOUNT,
        "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/flaskapp-release/build",
    }
    return {
        "ecr get-login-password": token,
        "sts get-caller-identity": identity,
        "eks update-kubeconfig": kubeconfig,
    }


def summary() -> None:
    """Say where to read more."""
    say(f"release.json, SBOM, scan report and rendered manifests: {state.FOLDER}")
