"""`make pipeline`: buildspec.yml run here on the last commit, every phase for real.

The local cluster takes the place of EKS, a registry on this machine that of ECR, and a script answers as `aws`.
Helm has the Role that infra/ gives a release, and the source is a clone: what isn't committed isn't released.
"""

import os
import shlex
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe

from flaskapp_deploy import programs, shell
from flaskapp_deploy.cluster import controlplane, lifecycle, node
from flaskapp_deploy.images import image
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.programs import packages
from flaskapp_deploy.rehearsal import registry
from flaskapp_deploy.rehearsal.codebuild import Build
from flaskapp_deploy.rehearsal.ecr import ACCOUNT
from flaskapp_deploy.rehearsal.registry import Registry
from flaskapp_deploy.release import cosign
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.version import git
from flaskapp_deploy.resources import ROOT
from flaskapp_deploy.shell import DeployError
from flaskapp_deploy.up.install import ensure_admin_token, ensure_namespace

REGION, GROUP, PORT = "eu-central-1", "flaskapp:release", 5443
NOBODY = "http://127.0.0.1:9"  # the port of the discard protocol: no ledger there
# What `aws` says here; every other call fails, with the AWS CLI's own code for a command that it can't run.
# https://docs.aws.amazon.com/cli/latest/userguide/cli-usage-returncodes.html
AWS = """#!/bin/sh
case "$1 $2" in
  "sts get-caller-identity") echo {identity} ;;
  "ecr get-login-password") echo {token} ;;
  "eks update-kubeconfig") cp {kubeconfig} "$KUBECONFIG" ;;
  *) echo "aws: there is no answer here for \\`aws $*\\`" >&2; exit 252 ;;
esac
"""


@dataclass(frozen=True)
class Cloud:
    """What infra/ makes on AWS, made here; a build gets `variables` and `secrets`, which its log never shows."""

    config: ReleaseConfig
    registry: Registry
    kubeconfig: Path
    variables: dict[str, str]
    secrets: dict[str, str]


def run(config: ReleaseConfig, instance: str) -> None:
    """Make what AWS would have, then run the buildspec on the last commit; fail where that does not succeed."""
    if git(ROOT, "status", "--porcelain"):
        raise DeployError("there are uncommitted changes, and the pipeline releases commits: commit them first")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends what runs, too
    output = ROOT / "build/pipeline"
    with make_cloud(config, instance) as cloud, tempfile.TemporaryDirectory(prefix="flaskapp-pipeline-") as folder:
        source = Path(folder) / "source"
        git(ROOT, "clone", "--quiet", str(ROOT), str(source))
        if not build(cloud, source, output):
            raise DeployError(f"the build did not succeed; its log is {output}/build.log")
    shell.say(f"release.json, SBOMs, scan report and rendered manifests are in {output}")


def build(cloud: Cloud, source: Path, output: Path, variables: Mapping[str, str] | None = None) -> bool:
    """Run the buildspec of a checkout; return whether it succeeded."""
    return Build("buildspec.yml", source, output, {**cloud.variables, **(variables or {})}, cloud.secrets).run()


@contextmanager
def make_cloud(config: ReleaseConfig, instance: str) -> Iterator[Cloud]:
    """Make cluster, namespace, role, registry and repositories; the registry ends with the block, the cluster stays."""
    cluster = lifecycle.up(instance)
    if shutil.which("apt-get"):  # runs what was built for the nodes' architecture
        packages.ensure({"qemu-aarch64-static": "qemu-user-static"})
    lifecycle.load_images(instance, image.chart_archives())
    admin = Cluster(cluster.kubeconfig, "", config.namespace)
    ensure_namespace(admin)
    admin.kubectl("apply", "--filename", str(ROOT / "infra/helm-release-role.yaml"))
    releaser = cluster.state / "pki/releaser.conf"
    controlplane.kubeconfig(cluster, releaser, "releaser", GROUP, namespace=config.namespace)
    with (
        registry.serve(cluster.state / "registry", host=str(cluster.host_address), port=PORT) as served,
        tempfile.TemporaryDirectory(prefix="flaskapp-cloud-") as folder,
    ):
        served.create(config.name)
        served.create(f"charts/{config.name}", movable=())
        for name in cluster.nodes:  # as EKS's nodes may pull from ECR
            login = f"AWS:{served.token()}"
            node.trust_registry(cluster, name, served.address, served.home / "pki/registry.crt", login)
        home, signing = Path(folder), signing_key(cluster.state / "signing")
        (home / "docker").mkdir(mode=0o700)
        identity = f"arn:aws:sts::{ACCOUNT}:assumed-role/{config.name}-release/rehearsal"
        install_aws(home / "bin", identity=identity, token=served.token(), kubeconfig=str(releaser))
        # CodeBuild's image has one.
        (home / "bin/kubectl").symlink_to(programs.program("kubernetes", "kubectl"))
        ledger, token = _ledger(config, admin, instance)
        # What infra/codebuild.yaml gives a build, and files of its own in place of this machine's.
        variables = {
            "AWS_REGION": REGION,
            "REGISTRY": served.address,
            "IMAGE_REPOSITORY": config.name,
            "CHART_REPOSITORY": f"charts/{config.name}",
            "CLUSTER_NAME": "local",
            "COSIGN_KEY": str(signing / "cosign.key"),
            "LEDGER_URL": ledger,
            "DOCKER_CONFIG": str(home / "docker"),
            "KUBECONFIG": str(home / "kubeconfig"),
            "SSL_CERT_FILE": str(served.certificates),
            "PATH": f"{home / 'bin'}:{os.environ['PATH']}",
        }
        # On AWS the key is in KMS, and has no password.
        secrets = {"LEDGER_TOKEN": token, "COSIGN_PASSWORD": (signing / "password").read_text()}
        yield Cloud(config, served, releaser, variables, secrets)


def install_aws(folder: Path, **answers: str) -> None:
    """Write `aws` into a folder, with these answers: `identity`, `token` and `kubeconfig`, a file."""
    script = AWS.format(**{name: shlex.quote(answer) for name, answer in answers.items()})
    shell.write_atomic(folder / "aws", script, 0o700)


def signing_key(folder: Path) -> Path:
    """Make a key pair and its password, once: what it signed stays in the registry."""
    if not (folder / "cosign.pub").exists():
        password = token_urlsafe(32)
        shell.write_atomic(folder / "password", password, 0o600)
        cosign.make_key(folder, password)
    return folder


def _ledger(config: ReleaseConfig, admin: Cluster, instance: str) -> tuple[str, str]:
    """Address and token of the ledger that gets the report: its own release's, once there is one, or LEDGER_URL's."""
    if not config.is_ledger:
        return os.environ.get("LEDGER_URL", NOBODY), os.environ.get("LEDGER_TOKEN", "none")
    token = ensure_admin_token(admin)
    if admin.kubectl("get", "service", config.name, "--output=name", check=False).returncode:
        return NOBODY, token
    return lifecycle.forward(instance, config.namespace, config.name), token
