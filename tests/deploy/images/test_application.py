"""Images of directories that are not ours: what is discovered, installed, added and reported."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from flaskapp_deploy.images.baseimages import DOCKERFILE, architecture
from flaskapp_deploy.images.buildkit import Builder, BuildError
from flaskapp_deploy.images.container import get
from flaskapp_deploy.images.image import Image, scratch_image
from flaskapp_deploy.shell import free_port
from tests.deploy.images.conftest import Build, Container

HELLO = DOCKERFILE.parent / "examples/hello"
WSGI = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'plain']\n"
FLASK = "from flask import Flask\n"
APP = f"{FLASK}app = Flask(__name__)\n"
FACTORY = f"{FLASK}def create_app(settings=None):\n    return Flask(__name__)\n"


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
    (application / "requirements.txt").write_text("flask\n")
    return application


def write(directory: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)


def files(image: Image, layer: int) -> dict[str, bytes]:
    """The files of one layer above the base: 0 is /deps, 1 is /app."""
    contents = {}
    with tarfile.open(image.archive) as archive:
        blob = archive.extractfile("blobs/" + image.own_layers[layer][0].replace(":", "/"))
        with tarfile.open(fileobj=blob) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isfile() else None
                if content:
                    contents[member.name] = content.read()
    return contents


def server(image: Image) -> str:
    return files(image, 1)["app/gunicorn.conf.py"].decode()


def test_serves_read_only_as_another_user_without_a_shell(container: Container) -> None:
    for shell in ("sh", "bash", "dash"):
        (container.root / "usr/bin" / shell).unlink(missing_ok=True)
    port = str(free_port())
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
    assert not (container.root / "cache").exists()


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
    (directory / "wsgi.py").write_text(APP)
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
    "sources",
    [
        {"app.py": APP},
        {"app.py": "from shop import application", "shop.py": f"{FLASK}application = Flask(__name__)\n"},
        {"app.py": f"{FLASK}server = Flask(__name__)\n"},
        {"app.py": FACTORY},
        {"wsgi.py": FACTORY.replace("create_app", "make_app")},
        {"src/wsgi.py": APP},
    ],
    ids=["app", "imported", "another name", "factory", "make_app", "src"],
)
def test_flask_discovers_the_application(build: Build, directory: Path, sources: dict[str, str]) -> None:
    """A build ends where Flask's discovery does not succeed: see `test_no_application`."""
    write(directory, sources)
    image = build(directory, name="discovered")
    assert server(image).endswith('\nwsgi_app = os.environ.get("WSGI_APP") or "flask_discovery:app"\n')
    assert ("app/wsgi.py" in files(image, 1)) == any(name.endswith("wsgi.py") for name in sources)


def test_the_only_package_that_has_an_application(build: Build, space: Path, directory: Path) -> None:
    """Served with a factory in a package of src/, and known to the `flask` command as well."""
    factory = FACTORY.replace("return Flask(__name__)", "app = Flask(__name__)\n    app.get('/')(lambda: 'made')\n") + (
        "    return app\n"
    )
    write(
        directory,
        {
            "src/shop/__init__.py": "from shop.factory import create_app as create_app\n",
            "src/shop/factory.py": factory,
            "src/blueprints/__init__.py": "def init_app(app): ...\n",
        },
    )
    image = build(directory, name="package")
    container = Container.of(image.archive, space / "package")
    port = str(free_port())
    with container.started(environment={"PORT": port}):
        assert get(f"http://127.0.0.1:{port}/") == b"made"
    assert "static" in container.run("flask", "routes").stdout


def test_another_application_at_run_time(build: Build, space: Path, directory: Path) -> None:
    one = "from flask import Flask\n\n{0} = Flask(__name__)\n{0}.get('/')(lambda: '{0}')\n"
    write(directory, {"app.py": one.format("app"), "other.py": one.format("flask"), "plain.py": WSGI})
    container = Container.of(build(directory, name="several").archive, space / "several")
    for variable, value, body in (
        ("FLASK_APP", "", b"app"),
        ("FLASK_APP", "other:flask", b"flask"),
        ("WSGI_APP", "plain:application", b"plain"),
    ):
        port = str(free_port())
        with container.started(environment={"PORT": port, variable: value}):
            assert get(f"http://127.0.0.1:{port}/") == body


def test_any_other_application_is_named(build: Build, space: Path, directory: Path) -> None:
    write(directory, {"requirements.txt": "", "shop/web.py": f"def make():\n    return application\n\n\n{WSGI}"})
    image = build(directory, name="named", wsgi="shop.web:make()")
    assert server(image).endswith('\nwsgi_app = os.environ.get("WSGI_APP") or "shop.web:make()"\n')
    port = str(free_port())
    with Container.of(image.archive, space / "named").started(environment={"PORT": port}):
        assert get(f"http://127.0.0.1:{port}/") == b"plain"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import os\nos.environ['SECRET_KEY']\n", "KeyError: 'SECRET_KEY'"),
        ("import sys\nsys.exit('shop: DB_HOST is not set')\n", "shop: DB_HOST is not set"),
        ("open('settings.json')\n", "FileNotFoundError: "),
        ("raise ImportError('no backend for DATABASE_URL')\n", "ImportError: no backend for DATABASE_URL"),
    ],
)
def test_an_application_that_needs_its_environment_is_built(
    build: Build, directory: Path, code: str, reason: str
) -> None:
    (directory / "app.py").write_text(code)
    notes: list[str] = []
    build(directory, name="environment", fresh=True, notes=notes)
    assert any(f"not tried, for it needs its environment: {reason}" in note for note in notes), notes


def test_its_own_gunicorn_configuration_is_kept(build: Build, directory: Path) -> None:
    own = "wsgi_app = 'shop:app'\nworkers = 3\n"
    write(directory, {"gunicorn.conf.py": own, "shop.py": f"{APP}other = app\n"})
    assert server(build(directory, name="own")) == own
    named = server(build(directory, name="own", wsgi="shop:other"))
    assert named == f'{own}\nimport os\nwsgi_app = os.environ.get("WSGI_APP") or "shop:other"\n'


def test_a_gunicorn_configuration_without_an_application_gets_the_discovered_one(build: Build, directory: Path) -> None:
    write(directory, {"gunicorn.conf.py": "workers = 3\n", "app.py": APP})
    configuration = server(build(directory, name="own"))
    assert configuration.startswith("workers = 3\n")
    assert configuration.endswith('"flask_discovery:app"\n')


def test_what_lies_beside_the_code_stays_out(build: Build, directory: Path) -> None:
    (directory / "wsgi.py").write_text(APP)
    for name in (".env", ".git/config", "venv/pyvenv.cfg", "node_modules/x.js", "instance/app.db", "templates/a.html"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("x")
    names = files(build(directory, name="beside"), 1)
    sources = {name for name in names if not name.endswith(".pyc")}
    ours = {"app/gunicorn.conf.py", "app/flask_discovery.py"}
    assert sources == ours | {"app/wsgi.py", "app/requirements.txt", "app/templates/a.html"}


def test_a_build_step_of_its_own(build: Build, directory: Path) -> None:
    """It runs in the directory of the code, with the requirements."""
    step = "mkdir static\npython -c 'import flask; print(flask.__name__)' > static/built.txt\n"
    write(directory, {"app.py": APP, "image-build.sh": step})
    assert files(build(directory, name="step"), 1)["app/static/built.txt"] == b"flask\n"
    (directory / "image-build.sh").write_text("missing-program\ntouch static\n")
    with pytest.raises(BuildError, match=r"image-build\.sh: 1: missing-program: not found"):
        build(directory, name="step")


PROJECT = '[project]\nname = "shop"\nversion = "1"\ndependencies = ["flask"]\n'
EXTRAS = '[project.optional-dependencies]\nprod = ["colorama"]\n'
HATCHLING = '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
LOCKED = 'version = 1\nrevision = 3\nrequires-python = ">=3.11"\n\n[[package]]\nname = "shop"\nversion = "1"\n'
LOCKED += 'source = { virtual = "." }\n'
INCLUDES = "-r common.txt\n-r requirements/prod.txt\n-c constraints.txt\n"


@pytest.mark.parametrize(
    ("sources", "packages"),
    [
        (
            {
                "requirements.txt": INCLUDES,
                "common.txt": "flask\n",
                "requirements/prod.txt": "colorama\n",
                "constraints.txt": "colorama==0.4.5\n",
            },
            {"flask", "colorama-0.4.5.dist-info"},
        ),
        ({"requirements.txt": "-e .[prod]\n", "pyproject.toml": PROJECT + EXTRAS + HATCHLING}, {"flask", "colorama"}),
        ({"requirements.txt": ".\n", "pyproject.toml": PROJECT + EXTRAS}, {"flask"}),
        ({"requirements.txt": "", "pyproject.toml": PROJECT, "-": "requirements.txt"}, {"flask"}),
        ({"uv.lock": LOCKED, "pyproject.toml": PROJECT, "-": "requirements.txt"}, {"gunicorn"}),
    ],
    ids=["included files", "editable", "directory", "pyproject.toml", "uv.lock"],
)
def test_requirements(build: Build, directory: Path, sources: dict[str, str], packages: set[str]) -> None:
    absent = sources.pop("-", "")
    write(directory, sources | {"src/shop/__init__.py": APP})
    (directory / absent).unlink() if absent else None
    wsgi = "" if "flask" in packages else "os:getenv"
    image = build(directory, name="requirements", wsgi=wsgi)
    installed = {name.split("/")[1] for name in files(image, 0)}
    assert packages <= installed
    assert ("flask" in installed) == ("flask" in packages), "what is locked counts"


def test_no_requirements(build: Build, directory: Path) -> None:
    (directory / "requirements.txt").unlink()
    with pytest.raises(BuildError, match=r"no requirements\.txt: add one .*pip freeze") as caught:
        build(directory, name="none")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("", r"Failed to find Flask application or factory in module 'app'\."),
        ("def create_app(settings): ...", "Detected factory 'create_app' in module 'app', but could not call it"),
        (WSGI, r"Failed to find Flask application or factory in module 'app'\."),
        ("from flask import Flusk", r"ImportError: cannot import name 'Flusk' from 'flask'"),
        ("import redis", r"ModuleNotFoundError: No module named 'redis' \(app\.py:1\)"),
        ("def create_app(:", r"SyntaxError: invalid syntax \(app\.py:1\)"),
        ("import shop", r"IndentationError: expected an indented block .* \(shop\.py:2\)"),
    ],
)
def test_no_application(build: Build, directory: Path, code: str, reason: str) -> None:
    write(directory, {"app.py": code, "shop.py": "def shop():\nx\n"})
    with pytest.raises(BuildError, match=f"{reason}.*; correct it, or set WSGI=module:callable") as caught:
        build(directory, name="none")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wsgi", "reason"), [("app:ap", "Failed to find attribute 'ap' in 'app'"), ("shp:app", "No module named 'shp'")]
)
def test_a_name_that_is_not_there(build: Build, directory: Path, wsgi: str, reason: str) -> None:
    (directory / "app.py").write_text(APP)
    with pytest.raises(BuildError, match=reason):
        build(directory, name="none", wsgi=wsgi)


def test_two_applications_are_not_guessed_between(build: Build, directory: Path) -> None:
    write(directory, {f"{package}/__init__.py": "def create_app(): ..." for package in ("shop", "admin")})
    with pytest.raises(BuildError, match=r"Could not locate a Flask application\..*WSGI=module:callable"):
        build(directory, name="none")


def test_wrong_hashes_are_refused(build: Build, directory: Path) -> None:
    (directory / "wsgi.py").write_text(APP)
    (directory / "requirements.lock").write_text(f"blinker==1.9.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(BuildError, match=r"hash mismatch: blinker==1\.9\.0 .*: expected 000000000000"):
        build(directory, name="none")


# A requirement, and what is reported of it.
REFUSED = {
    "no wheel": (
        "psycopg2-binary==2.9.9",
        rf"psycopg2-binary==2\.9\.9 has no wheel for Python 3\.13 on {architecture()}, and building it from source"
        r" failed: Error: pg_config executable not found\.\n  name a version that has a wheel for Python 3\.13",
    ),
    "no version": ("flask==99", r"no versions satisfy the requirements: Because there is no version of flask==99"),
    "Python": ("scipy==1.10.1", r"(scipy==1\.10\.1|numpy==1\.26\.4) has no wheel for Python 3\.13"),
    "conflict": (
        "flask==3.1.0\nwerkzeug==2.0.0",
        r"flask==3\.1\.0 depends on werkzeug>=3\.1 .*you require werkzeug==2\.0\.0",
    ),
    "git": ("hello @ git+https://index.invalid/hello.git", r"hello @ git\+https://\S+: the image build has no git"),
    "mistyped": ("flask=3.1", r'no such comparison operator "=".* flask=3\.1'),
}


@pytest.mark.parametrize("name", REFUSED)
def test_uvs_own_reason(name: str, build: Build, directory: Path) -> None:
    requirement, reason = REFUSED[name]
    (directory / "wsgi.py").write_text(APP)
    (directory / "requirements.txt").write_text(f"{requirement}\n")
    with pytest.raises(BuildError, match=reason):
        build(directory, name="none")


def test_a_wheel_of_the_other_architecture(build: Build, directory: Path) -> None:
    (directory / "wsgi.py").write_text(APP)
    (directory / "requirements.txt").write_text("psycopg2-binary==2.9.9\n")
    other = "arm64" if architecture() == "amd64" else "amd64"
    reason = rf"psycopg2-binary==2\.9\.9 has no wheel for Python 3\.13 on {other}, and building it from source failed"
    with pytest.raises(BuildError, match=reason):
        build(directory, name="none", platform=f"linux/{other}")


def test_pip_settings_do_not_reach_the_image(build: Build, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_TRUSTED_HOST", "canary.invalid")
    (directory / "wsgi.py").write_text(APP)
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
    (directory / "requirements.txt").write_text("blinker==1.8.2\n")
    reason = r"the package index can't be reached: http://127\.0\.0\.1:1/simple/blinker/: Connection refused"
    with pytest.raises(BuildError, match=reason):
        build(directory, name="settings")
    with pytest.raises(BuildError, match=r"uv can't be installed: Could not find .* uv==.*\n  check the network"):
        build(directory, name="settings", fresh=True)


def test_the_added_gunicorn_is_the_locked_one() -> None:
    locked = (DOCKERFILE.parent / "requirements.lock").read_text()
    pin = re.search(r"^(gunicorn==\S+) \\\n((?:    --hash=\S+(?: \\)?\n)+)", locked, re.MULTILINE)
    assert pin
    added = re.search(rf"{re.escape(pin[1])} --hash=(sha256:\w+)", DOCKERFILE.read_text())
    assert added
    assert added[1] in re.findall(r"sha256:\w+", pin[2])


def test_scratch_image(builder: Builder, space: Path, tmp_path: Path) -> None:
    program = builder.programs / "buildctl"
    notes = tmp_path / "notes.txt"
    notes.write_text("beside it")
    command = ["/buildctl", "--version"]
    archive = scratch_image(builder, program, "localhost/tool:1", command, {"/etc/notes.txt": notes})
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
