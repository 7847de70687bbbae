"""ECR's stand-in, through the programs that push to it: helm, BuildKit and plain HTTP."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from flaskapp_deploy import programs
from flaskapp_deploy.images import buildkit
from flaskapp_deploy.images.image import build_image
from flaskapp_deploy.rehearsal import registry
from flaskapp_deploy.rehearsal.registry import Registry
from flaskapp_deploy.shell import DeployError
from tests.deploy.release.steps import docker_config

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = b"{}"
HELLO = Path(__file__).parents[3] / "examples/hello"
Helm = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def ecr(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry.serve(tmp_path_factory.mktemp("registry")) as running:
        for name in ("hello", "charts/hello", "plain"):
            running.create(name)
        yield running


@pytest.fixture
def session(ecr: Registry) -> Iterator[requests.Session]:
    """A client that has logged in."""
    with requests.Session() as client:
        client.auth = ("AWS", ecr.token())
        client.verify = str(ecr.certificates)
        client.trust_env = False
        yield client


@pytest.fixture
def helm(ecr: Registry, tmp_path: Path) -> Helm:
    """Set helm up with folders of its own, trusting the registry."""
    environment = os.environ | {"SSL_CERT_FILE": str(ecr.certificates), "HOME": str(tmp_path)}
    environment |= {f"HELM_{kind}_HOME": str(tmp_path / kind) for kind in ("CACHE", "CONFIG", "DATA")}
    program = str(programs.binaries("chart") / "helm")

    def run(*arguments: str, password: str = "") -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [program, *arguments], env=environment, input=password, capture_output=True, text=True, cwd=tmp_path
        )

    return run


@pytest.fixture
def logged_in(ecr: Registry, helm: Helm) -> Helm:
    result = login(helm, ecr, ecr.token())
    assert result.returncode == 0, result.stderr
    return helm


def login(helm: Helm, ecr: Registry, token: str) -> "subprocess.CompletedProcess[str]":
    return helm("registry", "login", ecr.address, "--username", "AWS", "--password-stdin", password=token)


def package(helm: Helm, folder: Path, text: str, name: str = "hello", version: str = "0.1.0") -> Path:
    """Package a chart that holds `text`."""
    chart = folder / name
    (chart / "templates").mkdir(parents=True, exist_ok=True)
    (chart / "Chart.yaml").write_text(f"apiVersion: v2\nname: {name}\nversion: {version}\n")
    (chart / "templates/text.yaml").write_text(
        f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: text\ndata:\n  text: {text}\n"
    )
    result = helm("package", str(chart), "--destination", str(folder))
    assert result.returncode == 0, result.stderr
    return folder / f"{name}-{version}.tgz"


def put(session: requests.Session, ecr: Registry, tag: str, note: str, repository: str = "plain") -> requests.Response:
    """Push an empty artifact whose manifest says `note`."""
    home = f"https://{ecr.address}/v2/{repository}"
    digest = f"sha256:{hashlib.sha256(EMPTY).hexdigest()}"
    upload = session.post(f"{home}/blobs/uploads/")
    if upload.status_code != 202:
        return upload
    location = requests.compat.urljoin(f"https://{ecr.address}", upload.headers["Location"])
    stored = session.put(
        location, params={"digest": digest}, data=EMPTY, headers={"Content-Type": "application/octet-stream"}
    )
    assert stored.status_code == 201, stored.text
    empty = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest, "size": len(EMPTY)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": empty, "layers": [empty]}
    manifest["annotations"] = {"note": note}
    body = json.dumps(manifest)
    return session.put(f"{home}/manifests/{tag}", data=body, headers={"Content-Type": MANIFEST})


def test_chart_pushed_once_and_pulled_by_digest(ecr: Registry, logged_in: Helm, tmp_path: Path) -> None:
    archive = package(logged_in, tmp_path, "first")
    first = logged_in("push", str(archive), f"oci://{ecr.address}/charts")
    assert first.returncode == 0, first.stderr
    digest = next(line.split()[1] for line in (first.stdout + first.stderr).splitlines() if line.startswith("Digest:"))
    (tmp_path / "pulled").mkdir()
    pulled = logged_in("pull", f"oci://{ecr.address}/charts/hello@{digest}", "--destination", str(tmp_path / "pulled"))
    assert pulled.returncode == 0, pulled.stderr
    [copy] = (tmp_path / "pulled").iterdir()
    assert copy.read_bytes() == archive.read_bytes()

    again = logged_in("push", str(archive), f"oci://{ecr.address}/charts")
    assert again.returncode == 0, again.stderr
    assert digest in again.stdout + again.stderr

    changed = logged_in("push", str(package(logged_in, tmp_path / "changed", "second")), f"oci://{ecr.address}/charts")
    assert changed.returncode != 0
    assert "cannot be overwritten because the tag is immutable" in changed.stderr
    shown = logged_in("show", "chart", f"oci://{ecr.address}/charts/hello", "--version", "0.1.0")
    assert shown.returncode == 0, shown.stderr
    assert digest in shown.stdout + shown.stderr


def test_chart_needs_its_repository(ecr: Registry, logged_in: Helm, tmp_path: Path) -> None:
    result = logged_in("push", str(package(logged_in, tmp_path, "x", name="other")), f"oci://{ecr.address}/charts")
    assert result.returncode != 0
    assert "The repository with name 'charts/other' does not exist in the registry" in result.stderr


def test_helm_needs_login(ecr: Registry, helm: Helm, tmp_path: Path) -> None:
    assert login(helm, ecr, "wrong").returncode != 0
    result = helm("push", str(package(helm, tmp_path, "x")), f"oci://{ecr.address}/charts")
    assert result.returncode != 0
    assert "401" in result.stderr or "basic credential not found" in result.stderr


def test_image_pushed_once(ecr: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("BuildKit needs root here")
    monkeypatch.setenv("DOCKER_CONFIG", str(docker_config(ecr, tmp_path / "docker")))
    changed = tmp_path / "changed"
    shutil.copytree(HELLO, changed)
    with (changed / "app.py").open("a") as code:
        code.write("\n# changed\n")
    archive, target = tmp_path / "image.tar", f"{ecr.address}/hello:1.0.0"
    with buildkit.daemon(trusted={ecr.address: ecr.certificates}) as builder:
        image = build_image(HELLO, name="hello", push=target, output=archive, builder=builder)
        again = build_image(HELLO, name="hello", push=target, output=archive, builder=builder)
        assert again.digest == image.digest
        with pytest.raises(buildkit.BuildError, match=r"'1\.0\.0' already exists in the 'hello' repository") as refused:
            build_image(changed, name="hello", push=target, output=archive, builder=builder)
        assert "\n" not in str(refused.value)
        with pytest.raises(buildkit.BuildError, match="repository with name 'nowhere' does not exist"):
            build_image(HELLO, name="hello", push=f"{ecr.address}/nowhere:1", output=archive, builder=builder)
    archive.unlink()
    address = f"https://{ecr.address}/v2/hello/manifests/1.0.0"
    answer = requests.head(
        address, headers={"Accept": MANIFEST}, auth=("AWS", ecr.token()), verify=str(ecr.certificates), timeout=10
    )
    assert answer.headers["Docker-Content-Digest"] == image.digest


def test_anonymous_requests_are_challenged(ecr: Registry) -> None:
    for path in ("/v2/", "/v2/hello/manifests/1.0.0", "/v2/hello/blobs/sha256:0", "/anything"):
        answer = requests.get(f"https://{ecr.address}{path}", verify=str(ecr.certificates), timeout=10)
        assert answer.status_code == 401, path
        assert answer.headers["WWW-Authenticate"].startswith(f'Basic realm="https://{ecr.address}/"')


@pytest.mark.parametrize("user", ["aws", "root", ""])
def test_only_one_user_exists(ecr: Registry, user: str) -> None:
    answer = requests.get(
        f"https://{ecr.address}/v2/", auth=(user, ecr.token()), verify=str(ecr.certificates), timeout=10
    )
    assert answer.status_code == 401


def test_token_ends(ecr: Registry, session: requests.Session) -> None:
    assert session.get(f"https://{ecr.address}/v2/").status_code == 200
    session.auth = ("AWS", ecr.token(seconds=-1))
    answer = session.get(f"https://{ecr.address}/v2/")
    assert answer.status_code == 403
    assert answer.json()["errors"][0]["code"] == "DENIED"


def test_same_manifest_is_accepted_and_another_refused(ecr: Registry, session: requests.Session) -> None:
    assert put(session, ecr, "1.0.0", "first").status_code == 201
    assert put(session, ecr, "1.0.0", "first").status_code == 201
    answer = put(session, ecr, "1.0.0", "second")
    assert answer.status_code == 400
    assert answer.json() == {
        "errors": [
            {
                "code": "TAG_INVALID",
                "message": "The image tag '1.0.0' already exists in the 'plain' repository"
                " and cannot be overwritten because the tag is immutable.",
            }
        ]
    }


def test_excluded_tags_move(ecr: Registry, session: requests.Session) -> None:
    assert put(session, ecr, "cache-main", "first").status_code == 201
    assert put(session, ecr, "cache-main", "second").status_code == 201


def test_of_many_at_once_one_wins(ecr: Registry, session: requests.Session) -> None:
    with ThreadPoolExecutor(6) as pool:
        codes = list(pool.map(lambda number: put(session, ecr, "race", str(number)).status_code, range(6)))
    assert sorted(codes) == [201, 400, 400, 400, 400, 400]


def test_unknown_repository(ecr: Registry, session: requests.Session) -> None:
    answer = session.get(f"https://{ecr.address}/v2/un/known/tags/list")
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "NAME_UNKNOWN"
    assert put(session, ecr, "1", "x", repository="unknown").json()["errors"][0]["code"] == "NAME_UNKNOWN"


def test_unknown_tag(ecr: Registry, session: requests.Session) -> None:
    answer = session.get(f"https://{ecr.address}/v2/plain/manifests/none", headers={"Accept": MANIFEST})
    assert answer.status_code == 404
    assert answer.json()["errors"][0]["code"] == "MANIFEST_UNKNOWN"


@pytest.mark.parametrize("tag", ["1.0.0+build", "-x", "x" * 129])
def test_invalid_tags(ecr: Registry, session: requests.Session, tag: str) -> None:
    assert put(session, ecr, tag, "x").status_code == 400


def test_referrers_are_listed_by_their_subject(ecr: Registry, session: requests.Session) -> None:
    """As in the distribution specification, which ECR's referrers API follows."""
    subject = f"sha256:{'1' * 64}"
    url = f"https://{ecr.address}/v2/plain"
    assert session.get(f"{url}/referrers/{subject}").json()["manifests"] == []
    assert put(session, ecr, "2.0.0", "with the empty blob").status_code == 201
    empty = f"sha256:{hashlib.sha256(EMPTY).hexdigest()}"
    config = {"mediaType": "application/vnd.example.sbom", "digest": empty, "size": len(EMPTY)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": []}
    manifest |= {"subject": {"mediaType": MANIFEST, "digest": subject, "size": 2}}
    body = json.dumps(manifest).encode()
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    for _ in range(2):
        answer = session.put(f"{url}/manifests/{digest}", body, headers={"Content-Type": MANIFEST})
        assert (answer.status_code, answer.headers["OCI-Subject"]) == (201, subject)
    [listed] = session.get(f"{url}/referrers/{subject}").json()["manifests"]
    assert (listed["digest"], listed["artifactType"]) == (digest, "application/vnd.example.sbom")
    other = session.get(f"{url}/referrers/{subject}", params={"artifactType": "application/vnd.other"})
    assert other.json()["manifests"] == []
    assert other.headers["OCI-Filters-Applied"] == "artifactType"


def test_images_are_not_deleted_through_the_registry(ecr: Registry, session: requests.Session) -> None:
    pushed = put(session, ecr, "kept", "x")
    digest = pushed.headers["Docker-Content-Digest"]
    assert session.delete(f"https://{ecr.address}/v2/plain/manifests/{digest}").status_code == 405
    kept = session.get(f"https://{ecr.address}/v2/plain/manifests/{digest}", headers={"Accept": MANIFEST})
    assert kept.json()["annotations"] == {"note": "x"}


def test_keeps_everything_and_leaves_no_process(tmp_path: Path) -> None:
    with registry.serve(tmp_path) as first:
        first.create("kept")
        token = first.token()
    host, _, port = first.address.partition(":")
    with socket.socket() as client:
        assert client.connect_ex((host, int(port))) != 0
    running = subprocess.run(["pgrep", "--full", str(tmp_path)], capture_output=True, text=True)
    assert running.stdout == ""
    with registry.serve(tmp_path) as second:
        answer = requests.get(
            f"https://{second.address}/v2/kept/tags/list",
            auth=("AWS", token),
            verify=str(second.certificates),
            timeout=10,
        )
        assert answer.json()["errors"][0]["code"] == "NAME_UNKNOWN"  # of the registry: nothing was pushed yet
        assert "registry with id" not in answer.text


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(DeployError, match=r"the registry ended while starting; last lines of .*rules\.log"),
            registry.serve(tmp_path, port=taken.getsockname()[1]),
        ):
            pass


def test_the_word_registry(tmp_path: Path) -> None:
    """It serves until it is interrupted, says how to log in, and keeps nothing."""
    command = [sys.executable, "-m", "flaskapp_deploy", "registry", "hello"]
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            export, login = process.stdout.readline().split(), process.stdout.readline().split()
            bundle, address, token = export[1].partition("=")[2], login[3], login[-1]
            credentials = ("AWS", token)
            tags = requests.get(f"https://{address}/v2/absent/tags/list", auth=credentials, verify=bundle, timeout=10)
            assert tags.json()["errors"][0]["code"] == "NAME_UNKNOWN"
            assert requests.get(f"https://{address}/v2/", auth=credentials, verify=bundle, timeout=10).ok
        finally:
            process.terminate()
    assert not list(tmp_path.iterdir())
