"""`python -m pipeline`: the steps from a directory to a release, each runnable by hand."""

from dataclasses import replace
from pathlib import Path

import click

import tools
from localcluster.commands import Commands
from pipeline import build as image
from pipeline import check as checks
from pipeline import config, rehearsal, state, target
from pipeline import doctor as diagnosis
from pipeline import package as chart
from pipeline import push as registry
from pipeline import record as ledger
from pipeline import release as releasing
from pipeline import scan as scanning
from pipeline import up as development
from pipeline import verify as verifying
from pipeline import version as versions
from pipeline.config import PipelineError
from pipeline.helm import Cluster
from pipeline.registry import RegistryError


class PipelineCommands(Commands):
    expected = (*Commands.expected, PipelineError, RegistryError)


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
name_option = click.option("--name", default="", help="Name of the release. Default: the directory's name.")


@main.command()
@application_option
@name_option
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
def up(
    app: Path | None,
    name: str,
    values: tuple[Path, ...],
    wsgi: str,
    port: int | None,
    context: str,
    instance: str,
) -> None:
    """Build, install and ask the application on a cluster of this machine."""
    release = _release(app, values, name)
    config.check(release)
    development.up(release, target.choose(context, instance), wsgi, port)


@main.command()
@application_option
@name_option
@context_option
@instance_option
def down(app: Path | None, name: str, context: str, instance: str) -> None:
    """Remove what `up` made."""
    release = _release(app, (), name)
    tools.say(target.choose(context, instance).down(release))


@main.command()
@application_option
@click.option("--release", default="", help="Name of the release. Default: the application's, of release.toml.")
@click.option("--namespace", default="", help="Where it is. Default: the application's, of release.toml.")
@context_option
@instance_option
def doctor(app: Path | None, release: str, namespace: str, context: str, instance: str) -> None:
    """Say why a release is not ready, a line for each cause; exit code 1 if it is not."""
    wanted = _release(app, ())
    name = release or wanted.name
    cluster = diagnosis.cluster_of(context, instance, namespace or wanted.namespace)
    findings = diagnosis.examine(cluster, name)
    print("\n".join(map(str, findings)) or f"{name} is ready: nothing found")
    raise SystemExit(bool(findings))


@main.command()
def version() -> None:
    """Say which version the commit is, and begin release.json."""
    release = config.load()
    found = versions.of(config.ROOT, release.chart)
    state.start(**found)
    tools.say(f"{release.name} {found['version']} ({found['tag'] or 'no release tag'}), chart {found['chart_version']}")


@main.command()
def check() -> None:
    """Run the checks of release.toml."""
    checks.run(config.load())


@main.command()
@click.option("--no-registry", is_flag=True, help="Look nothing up and leave nothing to push: a pull request's build.")
def build(no_registry: bool) -> None:
    """Build the image for arm64 and amd64, and start it once."""
    image.build(config.load(), f"localhost/{config.load().name}" if no_registry else "")


@main.command()
@click.option("--pushed", is_flag=True, help="Ask what the registry's own scan found, instead.")
def scan(pushed: bool) -> None:
    """List what is in the image (SBOM), and refuse it where something is known to be vulnerable."""
    scanning.scan_pushed() if pushed else scanning.scan()


@main.command()
def push() -> None:
    """Push the image, unless the registry has it: signed, with SBOMs and provenance."""
    registry.push()


@main.command()
def package() -> None:
    """Package and push the chart with the image's digest in it, and compare what comes back."""
    chart.package(config.load())


@main.command()
@click.argument("chart", default="")
@click.option(
    "--key", default="", metavar="KEY", help="Public key: a file, or awskms:///alias/NAME. Default: COSIGN_KEY's."
)
def verify(chart: str, key: str) -> None:
    """Refuse a release that this pipeline did not make.

    CHART is HOST/REPOSITORY@sha256:…; default: what was just pushed.
    """
    verifying.verify(chart, key)


@main.command()
def release() -> None:
    """Upgrade the release to the chart that was pushed, by its digest, and test it."""
    wanted = config.load()
    releasing.release(wanted, _cluster(wanted))


@main.command()
def record() -> None:
    """Tell the release ledger what came of it; never fails."""
    wanted = config.load()
    ledger.record(wanted, _cluster(wanted))


@main.command()
def exports() -> None:
    """Print what the release came to as lines for the shell: `eval "$(python -m pipeline exports)"`."""
    print("\n".join(state.exports()))


@main.command()
@click.option("--instance", envvar="INSTANCE", default="pipeline", show_default=True, help="Which local cluster.")
def rehearse(instance: str) -> None:
    """Run buildspec.yml here, on the last commit: local registry and cluster in place of AWS's."""
    rehearsal.run(config.load(), instance)


def _cluster(release: config.Release) -> Cluster:
    """The cluster of the kubeconfig that `aws eks update-kubeconfig` wrote."""
    return Cluster(None, "", release.namespace)


def _release(app: Path | None, values: tuple[Path, ...], name: str = "") -> config.Release:
    release = config.load()
    release = replace(release, values=(*release.values, *values))
    if app:
        release = replace(release, application=app) if name else release.with_application(app)
    return release.with_name(name) if name else release


if __name__ == "__main__":
    main()
