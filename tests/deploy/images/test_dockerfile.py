"""The Dockerfile itself: BuildKit's own checks of it, its limits, and a build without this repository's command."""

import re
import subprocess
from pathlib import Path

from flaskapp_deploy.images import baseimages, packageindex
from flaskapp_deploy.images.baseimages import DOCKERFILE
from flaskapp_deploy.images.buildkit import Builder
from tests.deploy.images.conftest import Container

HELLO = DOCKERFILE.parent / "examples/hello"
WARNING = "MAINTAINER somebody\n"


def lint(builder: Builder, dockerfile: Path) -> list[str]:
    """What `docker build --check` reports: the rules that a Dockerfile breaks."""
    command = [str(builder.programs / "buildctl"), "--addr", builder.address, "build", "--frontend=dockerfile.v0"]
    command += [f"--local=context={HELLO}", f"--local=dockerfile={dockerfile.parent}", "--opt=requestid=frontend.lint"]
    base = baseimages.python(builder)
    if base.layout:
        command += [f"--oci-layout=base={base.layout.path}"]
        command += [f"--opt=context:{base.reference}=oci-layout://base@{base.layout.digest}"]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return re.findall(r"^WARNING: (\w+)", result.stdout, re.MULTILINE)


def test_buildkits_checks(builder: Builder) -> None:
    assert lint(builder, DOCKERFILE) == []


def test_buildkits_checks_find_a_mistake(builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(DOCKERFILE.read_text() + WARNING)
    assert lint(builder, tmp_path / "Dockerfile") == ["MaintainerDeprecated"]


def test_is_short() -> None:
    """What must be a program is a file of its own, which linters and tests see."""
    text = DOCKERFILE.read_text()
    assert len(text.splitlines()) < 90
    files = re.findall(r"<<'EOF'.*?\n(.*?)\nEOF", text, re.DOTALL)
    steps = [
        [line for line in step.split("\\\n") if "--mount" not in line]
        for step in re.findall(r"RUN (?:.*\\\n)*.*", text)
    ]
    assert files
    assert len(steps) > 5
    assert all(len(content.splitlines()) <= 10 for content in files)
    assert all(len(lines) <= 10 for lines in steps)
    assert "syntax=" not in text, "a frontend would come from a registry"


def test_needs_nothing_but_buildkit(builder: Builder, space: Path) -> None:
    """As `docker build -f Dockerfile examples/hello` has it, but for settings of this machine's package index."""
    base = baseimages.python(builder)
    bases = {base.reference: base.layout} if base.layout else {}
    secrets = packageindex.secrets(space)
    options = {"build-arg:FLASK_APP": "app:app"}
    layout = builder.build(
        HELLO, space / "plain", what="building", dockerfile=DOCKERFILE, options=options, bases=bases, secrets=secrets
    )
    container = Container(layout, space / "plain-root")
    assert "FLASK_APP=app:app" in container.config["Env"]
    assert "static" in container.run("flask", "routes").stdout
