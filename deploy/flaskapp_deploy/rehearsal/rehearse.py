"""`make pipeline`: buildspec.yml run here on the last commit, every phase for real.

The local cluster takes the place of EKS, a registry on this machine that of ECR, and `aws` is answered from a record.
Helm has the Role that infra/ gives a release, and the source is a clone: what isn't committed isn't released.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flaskapp_deploy import programs, shell
from flaskapp_deploy.cluster import controlplane, lifecycle, node
from flaskapp_deploy.images import image
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.programs import packages
from flaskapp_deploy.rehearsal import registry
from flaskapp_deploy.rehearsal.ecr import ACCOUNT
from flaskapp_deploy.rehearsal.registry import Registry
from flaskapp_deploy.release import cosign
from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.release.version import git
from flaskapp_deploy.resources import ROOT
from flaskapp_deploy.shell import DeployError
from flaskapp_deploy.up.install import ensure_admin_token, ensure_namespace

REGION, GROUP, PORT = "eu-central-1", "flaskapp:release", 5443
POSTGRES = "public.ecr.aws/docker/library/postgres:18"
NOBODY = "http://127.0.0.1:9"  # the port of the discard protocol: no ledger there


@dataclass(frozen=True)
class Cloud:
    """What infra/ makes on AWS, made here. `home` is where the build's login, kubeconfig and key are kept apart."""

    release: ReleaseConfig
    registry: Registry
    kubeconfig: Path
    ledger: str
    token: str
    home: Path
    signing: Path

    @property
    def variables(self) -> dict[str, str]:
        """What infra/codebuild.yaml gives a build, and where this machine's own settings are not to be touched."""
        return {
            "AWS_REGION": REGION,
            "REGISTRY": self.registry.address,
            "IMAGE_REPOSITORY": self.release.name,
            "CHART_REPOSITORY": f"charts/{self.release.name}",
            "CLUSTER_NAME": "local",
            "COSIGN_KEY": str(self.signing / "cosign.key"),
            "LEDGER_URL": self.ledger,
            "DOCKER_CONFIG": str(self.home / "docker"),
            "KUBECONFIG": str(self.home / "kubeconfig"),
            "SSL_CERT_FILE": str(self.registry.certificates),
        }

    @property
    def secrets(self) -> dict[str, str]:
        """What the build gets and its log never shows. On AWS the key is in KMS, and has no password."""
        return {"LEDGER_TOKEN": self.token, "COSIGN_PASSWORD": (self.signing / "password").read_text()}

    @property
    def answers(self) -> dict[str, object]:
        """What `aws` says here; every other call of it fails."""
        identity = f"arn:aws:sts::{ACCOUNT}:assumed-role/{self.release.name}-release/rehearsal"
        return {
            "sts get-caller-identity": {"Account": ACCOUNT, "Arn": identity},
            "ecr get-login-password": self.registry.token(),
            "eks update-kubeconfig": str(self.kubeconfig),
        }


def run(release: ReleaseConfig, instance: str) -> None:
    """Make what AWS would have, then run the buildspec on the last commit.

    Raises:
        DeployError: there are uncommitted changes, or the build did not succeed.
    """
    if git(ROOT, "status", "--porcelain"):
        raise DeployError("there are uncommitted changes, and the pipeline releases commits: commit them first")
    output = ROOT / "build/pipeline"
    with cloud(release, instance) as made, tempfile.TemporaryDirectory(prefix="flaskapp-pipeline-") as folder:
        source = Path(folder) / "source"
        git(ROOT, "clone", "--quiet", str(ROOT), str(source))
        if build(made, source, output):
            raise DeployError(f"the build did not succeed; its log is {output}/build.log")
    shell.say(f"release.json, SBOMs, scan report and rendered manifests are in {output}")


def build(made: Cloud, source: Path, output: Path, variables: Mapping[str, str] | None = None) -> int:
    """Run the buildspec of a checkout by rehearsal/codebuild; return its exit code."""
    output.mkdir(parents=True, exist_ok=True)
    files = {"aws.json": made.answers, "secrets.json": made.secrets}
    for name, content in files.items():
        (made.home / name).touch(mode=0o600)
        (made.home / name).write_text(json.dumps(content))
    command = [
        sys.executable,
        "-m",
        "flaskapp_deploy.rehearsal.codebuild",
        "run",
        "buildspec.yml",
        "--source",
        str(source),
    ]
    for name, value in {**made.variables, **(variables or {})}.items():
        command += ["--variable", f"{name}={value}"]
    for name in made.secrets:
        command += ["--secret-variable", f"{name}={name}"]
    command += ["--secrets", str(made.home / "secrets.json")]
    command += ["--aws", str(made.home / "aws.json"), "--output", str(output), "--log", str(output / "build.log")]
    path = f"{made.home / 'bin'}:{os.environ['PATH']}"
    return subprocess.run(command, cwd=source, env=os.environ | {"PATH": path}).returncode


@contextmanager
def cloud(release: ReleaseConfig, instance: str) -> Iterator[Cloud]:
    """Cluster, namespace, role, registry and repositories; the registry ends with the block, the cluster stays."""
    cluster = lifecycle.up(instance)
    if shutil.which("apt-get"):  # runs what was built for the nodes' architecture
        packages.ensure({"qemu-aarch64-static": "qemu-user-static"})
    if database := image.postgres_archive():
        lifecycle.load_images(instance, {POSTGRES: database})
    admin = Cluster(cluster.kubeconfig, "", release.namespace)
    ensure_namespace(admin)
    admin.kubectl("apply", "--filename", str(ROOT / "infra/helm-release-role.yaml"))
    releaser = cluster.state / "pki/releaser.conf"
    controlplane.kubeconfig(cluster, releaser, "releaser", GROUP, namespace=release.namespace)
    with (
        registry.serve(cluster.state / "registry", host=str(cluster.host_address), port=PORT) as served,
        tempfile.TemporaryDirectory(prefix="flaskapp-cloud-") as folder,
    ):
        served.create(release.name)
        served.create(f"charts/{release.name}", movable=())
        for one in cluster.nodes:  # as EKS's nodes may pull from ECR
            login = f"AWS:{served.token()}"
            node.trust_registry(cluster, one, served.address, served.home / "pki/registry.crt", login)
        home = Path(folder)
        (home / "docker").mkdir(mode=0o700)
        (home / "bin").mkdir()
        # CodeBuild's image has one.
        (home / "bin/kubectl").symlink_to(programs.binaries("kubernetes") / "kubectl")
        ledger, token = _ledger(release, admin, instance)
        yield Cloud(release, served, releaser, ledger, token, home, signing_key(cluster.state / "signing"))


def signing_key(folder: Path) -> Path:
    """A key pair and its password, made once: what it signed stays in the registry beside it."""
    if not (folder / "cosign.pub").exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        password = secrets.token_urlsafe(32)
        (folder / "password").touch(mode=0o600)
        (folder / "password").write_text(password)
        cosign.make_key(folder, password)
    return folder


def _ledger(release: ReleaseConfig, admin: Cluster, instance: str) -> tuple[str, str]:
    """Address and token of the ledger that is told: its own release's, once there is one, or LEDGER_URL's."""
    if not release.is_ledger:
        return os.environ.get("LEDGER_URL", NOBODY), os.environ.get("LEDGER_TOKEN", "none")
    token = ensure_admin_token(admin)
    if admin.kubectl("get", "service", release.name, "--output=name", check=False).returncode:
        return NOBODY, token
    return lifecycle.forward(instance, release.namespace, release.name), token
