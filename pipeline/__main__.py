"""`python -m pipeline`: the steps from a directory to a release, each runnable by hand."""

from dataclasses import replace
from pathlib import Path

import click

import tools
from localcluster.commands import Commands
from pipeline import config, target
from pipeline import up as development
from pipeline.config import PipelineError


class PipelineCommands(Commands):
    expected = (*Commands.expected, PipelineError)


@click.group(cls=PipelineCommands)
def main() -> None:
    """From a directory with a Flask application to a release."""


context_option = click.option(
    "--context", envvar="KUBE_CONTEXT", default="", help="Use this cluster of your kubeconfig."
)
instance_option = click.option("--instance", envvar="INSTANCE", default="default", help="Which local cluster.")
application_option = click.option(
    "--app", envvar="APP", type=click.Path(path_type=Path), help="Another application's directory."
)


@main.command()
@application_option
@click.option(
    "--values",
    envvar="VALUES",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Its values, on top of development's.",
)
@click.option(
    "--wsgi", envvar="WSGI", default="", metavar="MODULE:CALLABLE", help="Where wsgi.py and app.py don't say it."
)
@click.option(
    "--port", envvar="PORT", type=click.IntRange(1, 65535), help="Port on 127.0.0.1. Default: a free one from 8080 on."
)
@context_option
@instance_option
def up(app: Path | None, values: tuple[Path, ...], wsgi: str, port: int | None, context: str, instance: str) -> None:
    """Build, install and ask the application on a cluster of this machine."""
    release = _release(app, values)
    config.check(release)
    development.up(release, target.choose(context, instance), wsgi, port)


@main.command()
@application_option
@context_option
@instance_option
def down(app: Path | None, context: str, instance: str) -> None:
    """Remove what `up` made."""
    release = _release(app, ())
    tools.say(target.choose(context, instance).down(release))


def _release(app: Path | None, values: tuple[Path, ...]) -> config.Release:
    release = config.load()
    release = replace(release, values=(*release.values, *values))
    return release.with_application(app) if app else release


if __name__ == "__main__":
    main()
