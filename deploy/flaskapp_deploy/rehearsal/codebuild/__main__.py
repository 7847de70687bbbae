"""`python -m flaskapp_deploy.rehearsal.codebuild`: run a buildspec on this machine."""

import json
import os
import shlex
import signal
import sys
import tempfile
from pathlib import Path

import click

from flaskapp_deploy.rehearsal.codebuild import buildspec, runner
from flaskapp_deploy.rehearsal.codebuild.runner import Build


@click.group()
def main() -> None:
    """Run a buildspec as CodeBuild does, phase by phase, on this machine."""


@main.command()
@click.argument("file", default="buildspec.yml")
@click.option(
    "--source", type=click.Path(path_type=Path, file_okay=False, exists=True), default=".", help="The checkout."
)
@click.option("--variable", "variables", multiple=True, metavar="NAME=VALUE", help="As of the project; wins.")
@click.option("--secret-variable", "secret", multiple=True, metavar="NAME=ID", help="Of the project, from --secrets.")
@click.option("--secrets", type=click.Path(path_type=Path, exists=True), help="JSON: what the secret stores hold.")
@click.option("--aws", type=click.Path(path_type=Path, exists=True), help="JSON: what `aws` answers; all else fails.")
@click.option("--output", type=click.Path(path_type=Path), default="build/codebuild", help="For artifacts and result.")
@click.option("--log", type=click.Path(path_type=Path), help="Write what is shown there, too.")
@click.option("--minutes", default=60.0, show_default=True, help="The build's limit.")
def run(
    file: str,
    source: Path,
    variables: tuple[str, ...],
    secret: tuple[str, ...],
    secrets: Path | None,
    aws: Path | None,
    output: Path,
    log: Path | None,
    minutes: float,
) -> None:
    """Run FILE of a checkout; exit 0 when the build succeeded."""
    source, output = source.resolve(), output.resolve()
    spec = buildspec.load(source / file)
    kept = json.loads(secrets.read_text()) if secrets else {}
    values = runner.secrets_of(spec.secrets | runner.pairs(secret), kept)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="codebuild-") as folder, (log or Path(os.devnull)).open("w") as copy:
        project = runner.pairs(variables)
        if aws:
            command = [sys.executable, str(Path(__file__).with_name("aws.py")), str(aws.resolve())]
            wrapper = Path(folder) / "aws"
            wrapper.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
            wrapper.chmod(0o755)
            project["PATH"] = f"{folder}:{project.get('PATH', os.environ['PATH'])}"

        def show(line: str) -> None:
            print(line, flush=True)
            print(line, file=copy, flush=True)

        build = Build(spec, source, output, project, values, show, minutes)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: build.stop())
        sys.exit(0 if build.run() else 1)


if __name__ == "__main__":
    main()
