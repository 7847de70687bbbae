"""The commands of `flaskapp-deploy`. Each imports its package when it runs, so that `--help` stays quick."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flaskapp_deploy import __version__, shell
from flaskapp_deploy.resources import CHART

if TYPE_CHECKING:
    from flaskapp_deploy.release.config import ReleaseConfig

PATH = click.Path(path_type=Path)
PORT = click.IntRange(1, 65535)
WSGI = "The WSGI application, where neither wsgi.py nor app.py has it."
# The steps of a release that have no options.
STEPS = {
    "check": "Run the checks of release.toml.",
    "push": "Push the image, unless the registry has it: signed, with SBOMs and provenance.",
    "package": "Package and push the chart with the image's digest in it, and compare what comes back.",
    "release": "Upgrade the release to the chart that was pushed, by its digest, and test it.",
    "record": "Send the outcome to the release ledger; never fails.",
}
context_option = click.option("--context", envvar="KUBE_CONTEXT", default="", help="A cluster of your kubeconfig.")
instance_option = click.option("--instance", envvar="INSTANCE", default="default", help="Which local cluster.")
application_option = click.option("--app", envvar="APP", type=PATH, help="Another application's directory.")
name_option = click.option("--name", default="", help="Name of the release. Default: the directory's name.")
wsgi_option = click.option("--wsgi", envvar="WSGI", default="", metavar="MODULE:CALLABLE", help=WSGI)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="flaskapp-deploy", message="%(prog)s %(version)s")
def cli() -> None:
    """Deploy a Flask application to Kubernetes with Helm."""


def main() -> None:
    """Run a command; an error is one line and exit code 1, Ctrl-C is exit code 130."""
    shell.end_with_make()
    try:
        sys.exit(cli.main(prog_name="flaskapp-deploy", standalone_mode=False))
    except click.ClickException as error:
        look = f"\n  see `{error.ctx.command_path} --help`" if isinstance(error, click.UsageError) and error.ctx else ""
        click.echo(f"error: {error.format_message()}{look}", err=True)
        sys.exit(error.exit_code)
    except click.Abort:
        shell.say("interrupted; what was finished is kept")
        sys.exit(130)
    except Exception as error:
        sys.exit(_report(error))


def _report(error: Exception) -> str:
    """Write an unexpected error's traceback to a file, and return the lines to print."""
    log = shell.cache() / "traceback.log"
    shell.write_atomic(log, traceback.format_exc())
    what = f"{type(error).__name__}: {error}"
    return f"error: {what}\n  This is a defect of flaskapp-deploy: please report it, with {log}"


# --- on this machine -----------------------------------------------------------------------------------------------


@cli.command()
@application_option
@name_option
@click.option("--values", envvar="VALUES", multiple=True, type=PATH, help="Values on top of development's.")
@wsgi_option
@click.option("--port", envvar="PORT", type=PORT, help="Port on 127.0.0.1. Default: a free one from 8080 on.")
@context_option
@instance_option
def up(app: Path | None, name: str, values: tuple[Path, ...], wsgi: str, port: int | None, **where: str) -> None:
    """Build the application, install it on a cluster, and send a first request."""
    from flaskapp_deploy.up import preconditions, target

    release, chosen = _release(app, values, name), target.choose(**where)
    preconditions.check(release, chosen, port)
    from flaskapp_deploy.up import install  # takes as long to import as the checks

    install.up(release, chosen, wsgi, port)


@cli.command()
@application_option
@name_option
@click.option("--all", "everything", is_flag=True, help="The local cluster, with every application and its data.")
@context_option
@instance_option
def down(app: Path | None, name: str, everything: bool, **where: str) -> None:
    """Remove an application with its data, or (--all) the cluster that `up` made."""
    from flaskapp_deploy.up import removal, target

    chosen = target.choose(**where)
    if everything and not isinstance(chosen, target.Context):
        removal.remove_cluster(chosen)
    else:
        removal.remove(_release(app, (), name), chosen)


@cli.command()
def clean() -> None:
    """Delete the caches: programs, image builds, base images, Python packages."""
    from flaskapp_deploy.up import removal

    removal.clean()


@cli.command()
@application_option
@click.option("--release", default="", help="Name of the release. Default: the application's, of release.toml.")
@click.option("--namespace", default="", help="Where it is. Default: the application's, of release.toml.")
@context_option
@instance_option
def doctor(app: Path | None, release: str, namespace: str, **where: str) -> None:
    """Explain why a release is not ready, one line a cause; exit code 1 if it is not."""
    from flaskapp_deploy.up import doctor, target

    wanted = _release(app)
    name = release or wanted.name
    findings = doctor.examine(target.choose(**where).cluster(namespace or wanted.namespace), name)
    print("\n".join(map(str, findings)) or f"{name} is ready: nothing found")
    raise SystemExit(bool(findings))


@cli.command()
@click.option("--port", envvar="PORT", type=PORT, default=8000, show_default=True)
def run(port: int) -> None:
    """Serve the release ledger alone on localhost, on a PostgreSQL that keeps its data between runs."""
    from flaskapp_deploy.up import run

    run.main(port)


@cli.command()
@click.argument("repository", nargs=-1)
def registry(repository: tuple[str, ...]) -> None:
    """Serve a registry with ECR's rules and each REPOSITORY until it is interrupted; it keeps nothing."""
    from flaskapp_deploy.rehearsal.registry import serve

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="flaskapp-registry-") as home, serve(Path(home)) as server:
        for name in repository:
            server.create(name)
        print(f"export SSL_CERT_FILE={server.certificates}")
        print(f"helm registry login {server.address} --username AWS --password {server.token()}", flush=True)
        signal.pause()


@cli.command()
@click.option("--instance", envvar="INSTANCE", default="pipeline", show_default=True, help="Which local cluster.")
def rehearse(instance: str) -> None:
    """Run buildspec.yml here, on the last commit: local registry and cluster in place of AWS's."""
    from flaskapp_deploy.rehearsal import rehearse
    from flaskapp_deploy.release import config

    rehearse.run(config.load(), instance)


@cli.command()
@click.argument("group", nargs=-1)
def programs(group: tuple[str, ...]) -> None:
    """Build pinned programs, and print the directory of each GROUP (default: all but kind)."""
    from flaskapp_deploy.programs import binaries, groups

    for one in group or [name for name in groups() if name != "kind"]:
        print(binaries(one))


@cli.command()
@click.argument("directory", type=PATH)
@click.option("--name", required=True, help="Name of the image.")
@wsgi_option
@click.option("--python", default="", metavar="VERSION", help="Such as 3.11. Default: .python-version's, or 3.13.")
@click.option("--platform", default="", metavar="linux/amd64|linux/arm64", help="Default: this machine's.")
@click.option("--output", type=PATH, metavar="FILE", help="Where to write the archive.")
def image(directory: Path, name: str, wsgi: str, python: str, platform: str, output: Path | None) -> None:
    """Build the image of the application in DIRECTORY, and describe it as JSON."""
    from flaskapp_deploy.images.image import build_image, described

    print(described(build_image(directory, name=name, wsgi=wsgi, python=python, platform=platform, output=output)))


@cli.command()
def chart() -> None:
    """Print where the chart lies that comes with the command: `helm template web "$(flaskapp-deploy chart)"`."""
    click.echo(CHART)


@cli.command()
def bases() -> None:
    """Find or build the base images, and describe them as JSON."""
    from flaskapp_deploy.images import baseimages, buildkit
    from flaskapp_deploy.images.image import described

    with buildkit.daemon() as builder:
        print(described(baseimages.python(builder), baseimages.postgres(builder), baseimages.busybox(builder)))


# --- from a commit to a release ------------------------------------------------------------------------------------


@cli.command("release-all")
@click.option("--no-push", is_flag=True, help="Stop before the push, and ask no registry: a pull request's build.")
def release_all(no_push: bool) -> None:
    """Run all steps, from `version` to `release`, and `record` whatever came of it."""
    from flaskapp_deploy.release import config, steps

    steps.run(config.load(), to_push=not no_push)


@cli.command()
def version() -> None:
    """Print the commit's version and begin release.json; without a release.toml, the command's own version."""
    if Path("release.toml").exists():
        _step("version")
    else:
        click.echo(f"flaskapp-deploy {__version__}")


@cli.command()
@click.option("--no-registry", is_flag=True, help="Use no registry and push nothing: the build of a pull request.")
def build(no_registry: bool) -> None:
    """Build the image for arm64 and amd64, and start it once."""
    _step("build", to_push=not no_registry)


@cli.command()
@click.option("--pushed", is_flag=True, help="Read the findings of the registry's own scan instead.")
def scan(pushed: bool) -> None:
    """List what is in the image (SBOM), and refuse it where something is known to be vulnerable."""
    _step("scan --pushed" if pushed else "scan")


@cli.command()
@click.argument("chart", default="")
@click.option("--key", default="", help="Public key: a file, or awskms:///alias/NAME. Default: COSIGN_KEY's.")
def verify(chart: str, key: str) -> None:
    """Refuse a release that this pipeline did not make.

    CHART is HOST/REPOSITORY@sha256:…; default: what was just pushed.
    """
    from flaskapp_deploy.release import verify

    verify.verify(chart, key)


@cli.command()
def exports() -> None:
    """Print the release's versions and digests as lines for the shell: `eval "$(flaskapp-deploy exports)"`."""
    from flaskapp_deploy.release import state

    print("\n".join(state.exports()))


def _step(name: str, to_push: bool = True) -> None:
    from flaskapp_deploy.release import config, steps

    steps.run_one(name, config.load(), to_push)


for step, text in STEPS.items():
    cli.command(step, help=text)(partial(_step, step))


def _release(app: Path | None, values: tuple[Path, ...] = (), name: str = "") -> ReleaseConfig:
    from flaskapp_deploy.release import config

    release = config.project()
    if app or not config.FILE.exists():
        release = release.with_application(app or release.application, name)
    elif name:
        release = release.with_name(name)
    return replace(release, values=(*release.values, *values))


# --- the local cluster ---------------------------------------------------------------------------------------------

cluster_option = click.option("--name", default="default", show_default=True, help="Which instance.")


@cli.group("cluster")
def cluster_group() -> None:
    """A real Kubernetes on this machine, with no Docker engine. Each node has namespaces of its own."""


@cluster_group.command("up")
@cluster_option
@click.option("--nodes", type=click.IntRange(1, 9), help="How many at least. Default: as many as there are, or one.")
def cluster_up(name: str, nodes: int | None) -> None:
    """Start the cluster, or repair it; does nothing where all is well."""
    from flaskapp_deploy.cluster import lifecycle

    click.echo(f"export KUBECONFIG={lifecycle.up(name, nodes).kubeconfig}")


@cluster_group.command("down")
@cluster_option
def cluster_down(name: str) -> None:
    """Remove the cluster with its data: processes, namespaces, links, control groups, files."""
    from flaskapp_deploy.cluster import lifecycle

    click.echo(f"instance {name} is deleted" if lifecycle.down(name) else f"there is no instance {name}")


@cluster_group.command("status")
@cluster_option
def cluster_status(name: str) -> None:
    """Show what runs; exit code 1 when something doesn't."""
    from flaskapp_deploy.cluster import lifecycle

    made = lifecycle.existing(name)
    states = lifecycle.status(made)
    for part, state in {**states, "server": made.server, "kubeconfig": made.kubeconfig}.items():
        click.echo(f"{part:24} {state}")
    if "stopped" in states.values():
        raise shell.DeployError(f"parts are stopped; repair with `flaskapp-deploy cluster up --name {name}`")


@cluster_group.command("load")
@cluster_option
@click.argument("reference")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def cluster_load(name: str, reference: str, archive: Path) -> None:
    """Import ARCHIVE (a docker-archive), the image REFERENCE, into every node."""
    from flaskapp_deploy.cluster import lifecycle

    lifecycle.load_images(name, {reference: archive})


@cluster_group.command("shell")
@cluster_option
@click.argument("node_name", required=False, metavar="[NODE]")
def cluster_shell(name: str, node_name: str | None) -> None:
    """Open a shell with kubectl and helm set up for the cluster, or inside NODE."""
    from flaskapp_deploy.cluster import lifecycle, node
    from flaskapp_deploy.programs import binaries, program

    made = lifecycle.existing(name)
    inside = node_name and node.enter(made, node_name, "/bin/bash")
    command = inside or [os.environ.get("SHELL", "/bin/sh")]
    path = f"{binaries('kubernetes')}:{program('chart', 'helm').parent}:{os.environ['PATH']}"
    environment = os.environ | {"KUBECONFIG": str(made.kubeconfig), "PATH": path}
    sys.exit(subprocess.run(command, env=environment).returncode)


@cluster_group.command("kubeconfig")
@cluster_option
@click.argument("user")
@click.option("--group", "groups", multiple=True, help="Group of the user; can be given again.")
@click.option("--namespace", default="", help="Namespace that commands use when none is named.")
@click.argument("path", type=PATH)
def cluster_kubeconfig(name: str, user: str, groups: tuple[str, ...], namespace: str, path: Path) -> None:
    """Write a kubeconfig for USER to PATH; RBAC decides what they may do."""
    from flaskapp_deploy.cluster import controlplane, lifecycle

    controlplane.kubeconfig(lifecycle.existing(name), path, user, *groups, namespace=namespace)


@cluster_group.group("node")
def node_group() -> None:
    """Add, stop and drain nodes."""


@node_group.command("add")
@cluster_option
def node_add(name: str) -> None:
    """Add a node."""
    from flaskapp_deploy.cluster import lifecycle

    click.echo(lifecycle.add_node(name))


@node_group.command("stop")
@cluster_option
@click.argument("node_name", metavar="NODE")
def node_stop(name: str, node_name: str) -> None:
    """End NODE as a power cut would; `up` starts it again."""
    from flaskapp_deploy.cluster import lifecycle

    lifecycle.stop_node(name, node_name)


@node_group.command("drain")
@cluster_option
@click.argument("node_name", metavar="NODE")
@click.option("--timeout", default=120, show_default=True, help="Seconds.")
def node_drain(name: str, node_name: str, timeout: int) -> None:
    """Move NODE's pods elsewhere; `up` lets them in again."""
    from flaskapp_deploy.cluster import lifecycle

    lifecycle.drain_node(name, node_name, timeout)
