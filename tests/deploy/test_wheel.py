"""The command as a wheel: installed into an empty environment, it works in any directory, without this repository."""

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml

from flaskapp_deploy import __version__, programs

ROOT = Path(__file__).resolve().parents[2]
VALUES = "--set=image.repository=shop,image.tag=1,postgresql.enabled=true,postgresql.auth.existingSecret=passwords"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel and what it asks for, at the versions of the lock."""
    work = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(work), str(ROOT / "deploy")]
    subprocess.run(build, check=True)
    versions = re.findall(r"^[\w.-]+==[^ ;]+", (ROOT / "requirements-dev.lock").read_text(), re.MULTILINE)
    (work / "versions.txt").write_text("\n".join(versions))
    venv.create(work / "venv", symlinks=True)
    target = [*pip, "--python", str(work / "venv/bin/python"), "install", "--constraint", str(work / "versions.txt")]
    subprocess.run([*target, *map(str, work.glob("*.whl"))], check=True)
    subprocess.run([*pip, "--python", str(work / "venv/bin/python"), "check"], check=True)
    return work / "venv/bin"


def run(program: Path, *arguments: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run([program, *arguments], cwd=cwd, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refused(program: Path, *arguments: str, cwd: Path) -> str:
    result = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    return result.stderr


def test_the_command_runs_in_any_directory(installed: Path, tmp_path: Path) -> None:
    command = installed / "flaskapp-deploy"
    assert run(command, "--help", cwd=tmp_path).startswith("Usage: flaskapp-deploy")
    assert run(command, "version", cwd=tmp_path) == f"flaskapp-deploy {__version__}\n"
    assert run(command, "up", "--help", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_directory_needs_no_release_toml(installed: Path, tmp_path: Path) -> None:
    """It gets as far as the cluster that does not exist; a release says what it lacks."""
    command = installed / "flaskapp-deploy"
    project = tmp_path / "shop"
    project.mkdir()
    message = "KUBE_CONTEXT=absent is not in your kubeconfig"
    assert message in refused(command, "up", "--context", "absent", cwd=project)
    assert refused(command, "release", cwd=project) == (
        f"error: there is no release.toml in {project}, which says what to release\n"
    )


def test_the_chart_that_comes_with_it_renders(installed: Path, tmp_path: Path) -> None:
    chart = Path(run(installed / "flaskapp-deploy", "chart", cwd=tmp_path).strip())
    assert chart.is_relative_to(installed.parent)
    helm = programs.binaries("chart") / "helm"
    objects = [*yaml.safe_load_all(run(helm, "template", "web", str(chart), VALUES, cwd=tmp_path))]
    assert {"Deployment", "Service", "StatefulSet"} <= {item["kind"] for item in objects if item}


def test_every_file_of_the_package_is_in_the_wheel(installed: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "deploy/flaskapp_deploy"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    package = next(installed.parent.glob("lib/python*/site-packages/flaskapp_deploy"))
    assert [name for name in listed if not (package.parent / name.removeprefix("deploy/")).is_file()] == []
    assert (package / "repository/Dockerfile").read_bytes() == (ROOT / "Dockerfile").read_bytes()
