"""Images of directories that are not ours: what is found, what is added, what is said."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from flaskapp_deploy.images.baseimages import DOCKERFILE, architecture
from flaskapp_deploy.images.buildkit import Builder, BuildError
from flaskapp_deploy.images.container import Container, get
from flaskapp_deploy.images.image import Image, scratch_image
from tests.deploy.images.conftest import Build

HELLO = DOCKERFILE.parent / "examples/hello"
WSGI = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'plain']\n"


@pytest.fixture(scope="module")
def hello(build: Build) -> Image:
    return build(HELLO, name="hello", labels={"org.opencontainers.image.version": "1.2.3"})


@pytest.fixture(scope="module")
def container(hello: Image, space: Path) -> Container:
    return Container.of(hello.archive, space / "hello")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An application's directory with requirements and no code yet."""
    application = tmp_path / "application"
    application.mkdir()
    (application / "requirements.txt").write_text("")
    return application


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def files(image: Image, layer: int) -> dict[str, bytes]:
    """The files of one layer above the base: 0 is /deps, 1 is /app."""
    found = {}
    with tarfile.open(image.archive) as archive:
        blob = archive.extractfile("blobs/" + image.own_layers[layer][0].replace(":", "/"))
        with tarfile.open(fileobj=blob) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content:
                    found[member.name] = content.read()
    return found


def server(image: Image) -> str:
    return files(image, 1)["app/gunicorn.conf.py"].decode()


def test_serves_read_only_as_another_user_without_a_shell(container: Container) -> None:
    for shell in ("sh", "bash", "dash"):
        (container.root / "usr/bin" / shell).unlink(missing_ok=True)
    port = free_port()
    with container.started(environment={"PORT": port, "GREETING": "Good morning"}) as process:
        assert json.loads(get(f"http://127.0.0.1:{port}/"))["message"] == "Good morning"
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
        status = Path(f"/proc/{children.stdout.split()[0]}/status").read_text()
    assert re.search(r"^Uid:\s+10001\s+10001", status, re.MULTILINE)
    assert re.search(r"^Gid:\s+10001\s+10001", status, re.MULTILINE)


@pytest.mark.parametrize("path", ["/app/new", "/deps/new", "/home/new", "/etc/new"])
def test_root_is_not_needed_for_writing(container: Container, path: str) -> None:
    assert "Read-only file system" in container.run("python", "-c", f"open({path!r}, 'w')").stdout


def test_configuration_and_labels(hello: Image, container: Container) -> None:
    config = container.config
    assert config["User"] == "10001:10001"
    assert config["Cmd"] == ["python", "-m", "gunicorn"]
    assert config["ExposedPorts"] == {"8000/tcp": {}}
    label = "org.opencontainers.image"
    assert config["Labels"][f"{label}.title"] == "hello"
    assert config["Labels"][f"{label}.version"] == "1.2.3"
    assert config["Labels"][f"{label}.base.name"].startswith("public.ecr.aws/docker/library/python:3.13-slim-trixie")
    assert config["Labels"][f"{label}.base.digest"] == hello.base.digest


def test_no_package_of_the_build_is_left(container: Container) -> None:
    assert not (container.root / "deps/pip").exists()
    assert not (container.root / "requirements").exists()
    assert not (container.root / "root/.cache").exists()


def test_same_source_gives_the_same_digest(hello: Image, build: Build, tmp_path: Path) -> None:
    """A copy with other times and modes, built without the cache."""
    copy = tmp_path / "copy"
    shutil.copytree(HELLO, copy)
    for path in copy.iterdir():
        path.chmod(0o600)
        os.utime(path, (1_000_000_000, 1_000_000_000))
    again = build(copy, name="hello", labels={"org.opencontainers.image.version": "1.2.3"}, fresh=True)
    assert again.reference == hello.reference
    assert again.digest == hello.digest


def test_changed_code_changes_less_than_a_mebibyte(hello: Image, build: Build, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(HELLO, copy)
    with (copy / "app.py").open("a") as code:
        code.write("\n# changed\n")
    changed = build(copy, name="hello")
    assert changed.digest != hello.digest
    new = dict(set(changed.layers) - set(hello.layers))
    assert len(new) == 1
    assert sum(new.values()) < 2**20


def test_a_changed_static_file_gets_a_new_time(build: Build, directory: Path) -> None:
    """Flask's ETag of a static file is made of its time and size."""
    (directory / "wsgi.py").write_text(WSGI)
    times = []
    for content in ("body { color: red }", "body { color: tan }"):
        (directory / "style.css").write_text(content)
        image = build(directory, name="static")
        with tarfile.open(image.archive) as archive:
            blob = archive.extractfile("blobs/" + image.own_layers[1][0].replace(":", "/"))
            with tarfile.open(fileobj=blob) as layer:
                times.append(layer.getmember("app/style.css").mtime)
    assert times[0] != times[1]


@pytest.mark.parametrize(
    ("name", "code", "found"),
    [
        ("app.py", "app = object()", "app:app"),
        ("app.py", "from shop import application", "app:application"),
        ("app.py", "from flask import Flask\nserver = Flask(__name__)", "app:server"),
        ("app.py", "def create_app(settings=None): ...", "app:create_app()"),
        ("app.py", "try:\n    app = 1\nexcept ValueError:\n    raise", "app:app"),
        ("wsgi.py", WSGI, "wsgi:application"),
        ("wsgi.py", "from shop import create_app\napp = create_app()", "wsgi:app"),
        ("src/wsgi.py", WSGI, "wsgi:application"),
        ("shop/__init__.py", "from shop.factory import create_app", "shop:create_app()"),
        ("src/shop/__init__.py", "from flask import Flask\napp = Flask(__name__)", "shop:app"),
    ],
)
def test_finds_the_application(build: Build, directory: Path, name: str, code: str, found: str) -> None:
    (directory / name).parent.mkdir(parents=True, exist_ok=True)
    (directory / name).write_text(code)
    assert f"wsgi_app = os.environ.get(\"WSGI_APP\") or '{found}'\n" in server(build(directory, name="found"))


def test_a_factory_runs(build: Build, space: Path, tmp_path: Path) -> None:
    application = tmp_path / "application"
    (application / "src/shop").mkdir(parents=True)
    shutil.copy(HELLO / "requirements.txt", application)
    (application / "src/shop/__init__.py").write_text(
        "from flask import Flask\n\n\ndef create_app():\n    app = Flask(__name__)\n"
        "    app.get('/')(lambda: 'made')\n    return app\n"
    )
    image = build(application, name="factory", wsgi="shop:create_app()")
    port = free_port()
    with Container.of(image.archive, space / "factory").started(environment={"PORT": port}):
        assert get(f"http://127.0.0.1:{port}/") == b"made"


def test_its_own_gunicorn_configuration_is_kept(build: Build, directory: Path) -> None:
    (directory / "gunicorn.conf.py").write_text("wsgi_app = 'shop:app'\nworkers = 3\n")
    assert server(build(directory, name="own")) == "wsgi_app = 'shop:app'\nworkers = 3\n"
    told = server(build(directory, name="own", wsgi="shop:other"))
    assert told.endswith("\nwsgi_app = 'shop:other'\n")


def test_what_lies_beside_the_code_stays_out(build: Build, directory: Path) -> None:
    (directory / "wsgi.py").write_text(WSGI)
    for name in (".env", ".git/config", "venv/pyvenv.cfg", "node_modules/x.js", "instance/app.db", "templates/a.html"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("x")
    names = files(build(directory, name="beside"), 1)
    sources = {name for name in names if not name.endswith(".pyc")}
    assert sources == {"app/wsgi.py", "app/gunicorn.conf.py", "app/requirements.txt", "app/templates/a.html"}


def test_no_requirements(build: Build, directory: Path) -> None:
    (directory / "requirements.txt").unlink()
    with pytest.raises(BuildError, match=r"no requirements\.txt: add one .*pip freeze") as caught:
        build(directory, name="none")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("code", ["", "def create_app(settings): ...", "from . import app", "app: object"])
def test_no_application(build: Build, directory: Path, code: str) -> None:
    (directory / "app.py").write_text(code)
    with pytest.raises(BuildError, match=r"no WSGI application found: .*WSGI=module:callable") as caught:
        build(directory, name="none")
    assert "\n" not in str(caught.value)


def test_two_applications_are_not_guessed_between(build: Build, directory: Path) -> None:
    for package in ("shop", "admin"):
        (directory / package).mkdir()
        (directory / package / "__init__.py").write_text("def create_app(): ...")
    with pytest.raises(BuildError, match="WSGI=module:callable"):
        build(directory, name="none")


def test_a_syntax_error_is_named(build: Build, directory: Path) -> None:
    (directory / "app.py").write_text("def create_app(:\n")
    with pytest.raises(BuildError, match=r"app\.py, line 1: invalid syntax"):
        build(directory, name="none")


def test_wrong_hashes_are_refused(build: Build, directory: Path) -> None:
    (directory / "wsgi.py").write_text(WSGI)
    (directory / "requirements.lock").write_text(f"blinker==1.9.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(BuildError, match=r"hash mismatch: blinker==1\.9\.0 .*: expected 000000000000"):
        build(directory, name="none")


# A requirement, and what is said of it.
REFUSED = {
    "no wheel": (
        "psycopg2-binary==2.9.9",
        r"psycopg2-binary==2\.9\.9 has no wheel for Python 3\.13, and building it from source failed:"
        r" Error: pg_config executable not found\.\n  name a version that has a wheel for Python 3\.13",
    ),
    "no version": ("flask==99", r"no matching distribution found for flask==99; there are .*3\.1"),
    "Python": ("scipy==1.10.1", r"scipy==1\.10\.1 needs Python >=3\.8,<3\.12, and the image has 3\.13"),
    "conflict": (
        "flask==3.1.0\nwerkzeug==2.0.0",
        r"conflict: .*werkzeug==2\.0\.0; flask 3\.1\.0 depends on Werkzeug>=3\.1",
    ),
    "git": ("hello @ git+https://index.invalid/hello.git", r"hello *@ git\+https://\S+: the image build has no git"),
    "mistyped": ("flask=3.1", r"Invalid requirement: 'flask=3\.1'.*\n  = is not a valid operator\. Did you mean == \?"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_pips_own_reason(name: str, build: Build, directory: Path) -> None:
    requirement, reason = REFUSED[name]
    (directory / "wsgi.py").write_text(WSGI)
    (directory / "requirements.txt").write_text(f"{requirement}\n")
    with pytest.raises(BuildError, match=reason):
        build(directory, name="none")


def test_a_wheel_of_the_other_architecture(build: Build, directory: Path) -> None:
    (directory / "wsgi.py").write_text(WSGI)
    (directory / "requirements.txt").write_text("psycopg2-binary==2.9.9\n")
    other = "arm64" if architecture() == "amd64" else "amd64"
    reason = rf"no wheel for Python 3\.13 on {other} found for psycopg2-binary==2\.9\.9; there are .*2\.9\.10"
    with pytest.raises(BuildError, match=reason):
        build(directory, name="none", platform=f"linux/{other}")


def test_pip_settings_do_not_reach_the_image(build: Build, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TRUSTED_HOST", "canary.invalid")
    (directory / "wsgi.py").write_text(WSGI)
    image = build(directory, name="settings", fresh=True)
    with tarfile.open(image.archive) as archive:
        config = json.loads(archive.extractfile("manifest.json").read())[0]["Config"]  # type: ignore[union-attr]
        assert b"canary" not in archive.extractfile(config).read()  # type: ignore[union-attr]
    for layer in (0, 1):
        for name, content in files(image, layer).items():
            assert b"canary.invalid" not in content, name


def test_pip_settings_are_used(build: Build, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    (directory / "wsgi.py").write_text(WSGI)
    (directory / "requirements.txt").write_text("blinker==1.9.0\n")
    with pytest.raises(BuildError, match=r"no matching distribution found for blinker==1\.9\.0"):
        build(directory, name="settings", fresh=True)


def test_the_added_gunicorn_is_the_locked_one() -> None:
    locked = (DOCKERFILE.parent / "requirements.lock").read_text()
    pin = re.search(r"^(gunicorn==\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)", locked, re.MULTILINE)
    assert pin
    hashes = re.findall(r"sha256:\w+", pin[2])
    text = DOCKERFILE.read_text()
    assert f'"{pin[1]}"' in text
    assert re.findall(r"--hash=(sha256:\w+)", text) == hashes


def test_needs_no_dockerfile_frontend_from_a_registry() -> None:
    assert "syntax=" not in DOCKERFILE.read_text()


def test_scratch_image(builder: Builder, space: Path, tmp_path: Path) -> None:
    program = builder.programs / "buildctl"
    notes = tmp_path / "notes.txt"
    notes.write_text("beside it")
    archive = scratch_image(
        program, "localhost/tool:1", ["/buildctl", "--version"], extra_files={"/etc/notes.txt": notes}, builder=builder
    )
    container = Container.of(archive, space / "tool")
    assert sorted(str(path.relative_to(container.root)) for path in container.root.rglob("*") if path.is_file()) == [
        "buildctl",
        "etc/notes.txt",
    ]
    container.config["Env"] = []
    result = container.run()
    assert result.returncode == 0
    assert result.stdout.startswith("buildctl github.com/moby/buildkit")


@pytest.mark.parametrize("arguments", [["image", "/nowhere", "--name", "x"]])
def test_command_says_what_is_wrong_in_one_line(arguments: list[str]) -> None:
    result = subprocess.run([sys.executable, "-m", "flaskapp_deploy", *arguments], capture_output=True, text=True)
    assert result.returncode == 1
    assert result.stderr == "error: /nowhere is not a directory: name the one that holds the application\n"
