"""`python -m localcluster`: the command line of the local cluster."""

import os
import subprocess
import sys
from pathlib import Path

import click

import tools
from localcluster import cluster, controlplane, node
from localcluster.commands import Commands

name_option = click.option("--name", default=cluster.DEFAULT, show_default=True, help="Which instance.")


@click.group(cls=Commands)
def main() -> None:
    """A real Kubernetes on this machine, with no Docker engine. Each node has namespaces of its own."""


@main.command()
@name_option
@click.option("--nodes", type=click.IntRange(1, 9), help="How many at least. Default: as many as there are, or one.")
def up(name: str, nodes: int | None) -> None:
    """Start the cluster, or repair it; does nothing where all is well."""
    made = cluster.up(name, nodes)
    click.echo(f"export KUBECONFIG={made.kubeconfig}")


@main.command()
@name_option
def down(name: str) -> None:
    """Remove the cluster with its data: processes, namespaces, links, control groups, files."""
    click.echo(f"instance {name} is gone" if cluster.down(name) else f"there is no instance {name}")


@main.command()
@name_option
def status(name: str) -> None:
    """Show what runs; exit code 1 when something doesn't."""
    found = cluster.existing(name)
    states = cluster.status(found)
    for part, state in states.items():
        click.echo(f"{part:24} {state}")
    click.echo(f"{'server':24} {controlplane.server(found)}\n{'kubeconfig':24} {found.kubeconfig}")
    if "stopped" in states.values():
        raise click.ClickException(f"parts are stopped; repair with `python -m localcluster up --name {name}`")


@main.command()
@name_option
@click.argument("reference")
@click.argument("archive", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def load(name: str, reference: str, archive: Path) -> None:
    """Import ARCHIVE (a docker-archive), the image REFERENCE, into every node."""
    cluster.load_images(name, {reference: archive})


@main.command()
@name_option
@click.argument("node_name", required=False, metavar="[NODE]")
def shell(name: str, node_name: str | None) -> None:
    """Open a shell with kubectl and helm set up for the cluster, or inside NODE."""
    found = cluster.existing(name)
    command = [os.environ.get("SHELL", "/bin/sh")]
    if node_name:
        command = node.enter(found, node_name, "/bin/bash")
    path = f"{tools.binaries('kubernetes')}:{tools.binaries('chart')}:{os.environ['PATH']}"
    environment = os.environ | {"KUBECONFIG": str(found.kubeconfig), "PATH": path}
    sys.exit(subprocess.run(command, env=environment).returncode)


@main.command()
@name_option
@click.argument("user")
@click.option("--group", "groups", multiple=True, help="Group of the user; can be given again.")
@click.option("--namespace", default="", help="Namespace that commands use when none is named.")
@click.argument("path", type=click.Path(path_type=Path))
def kubeconfig(name: str, user: str, groups: tuple[str, ...], namespace: str, path: Path) -> None:
    """Write a kubeconfig for USER to PATH; RBAC decides what they may do."""
    controlplane.kubeconfig(cluster.existing(name), path, user, *groups, namespace=namespace)


@main.group("node")
def node_group() -> None:
    """Add, stop and drain nodes."""


@node_group.command("add")
@name_option
def node_add(name: str) -> None:
    """Add a node."""
    click.echo(cluster.add_node(name))


@node_group.command("stop")
@name_option
@click.argument("node_name", metavar="NODE")
def node_stop(name: str, node_name: str) -> None:
    """End NODE as a power cut would; `up` starts it again."""
    cluster.stop_node(name, node_name)


@node_group.command("drain")
@name_option
@click.argument("node_name", metavar="NODE")
@click.option("--timeout", default=120, show_default=True, help="Seconds.")
def node_drain(name: str, node_name: str, timeout: int) -> None:
    """Move NODE's pods elsewhere; `up` lets them in again."""
    cluster.drain_node(name, node_name, timeout)


if __name__ == "__main__":
    main()
