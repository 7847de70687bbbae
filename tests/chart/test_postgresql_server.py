"""charts/postgresql's scripts on a real server: roles, passwords that follow the Secret, restarts, refusals."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flaskapp_deploy.cluster.pki import Authority
from tests.chart.postgresql_server import (
    EMBEDDED,
    NAMED,
    Account,
    Pod,
    can_run,
    debian_files,
    debian_programs,
    has_debian_packages,
)
from tests.chart.render import CHARTS, ROOT, merged, one, render, values_of

pytestmark = pytest.mark.skipif(not can_run(), reason="needs root for a mount namespace")

needs_debian = pytest.mark.skipif(
    not has_debian_packages(),
    reason="needs Debian's PostgreSQL, which speaks TLS and is older: there is no apt-get here",
)
READY = "passwords are in place"
AWKWARD = "p'\"\\ $(x)`%:@/é#?&"


def make_pod(
    folder: Path,
    tls: str = "",
    programs: tuple[Path, str] = EMBEDDED,
    account: Account = NAMED,
    values: dict[str, Any] | None = None,
    **auth: object,
) -> Pod:
    standalone = values_of(CHARTS / "postgresql-values.yaml")
    layer = {"auth": {"existingSecret": "database", **auth}, "tls": {"existingSecret": tls}}
    objects = render("postgresql", merged(standalone, layer, values or {}), name="web")
    containers = one(objects, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    env = {item["name"]: {pair["name"]: pair["value"] for pair in item["env"]} for item in containers}
    config = {item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"}
    pod = Pod(folder, config["web-postgresql"], env, programs, account)
    pod.set_files("init", config.get("web-postgresql-init", {}))
    return pod


def make_older_data(pod: Pod) -> None:
    """Create the data here if the major version has no built-in locale; start.sh then uses what exists."""
    made = pod.command({}, "initdb", "--pgdata=/var/lib/postgresql/pgdata", "--username=postgres", "--locale=C.UTF-8")
    subprocess.run(made, check=True, capture_output=True, **pod.options())


@contextmanager
def running(pod: Pod, **passwords: str) -> Iterator[Pod]:
    """Start the server and its roles; stop both in the end."""
    pod.set_passwords(**passwords)
    pod.start("postgresql")
    pod.start("roles")
    try:
        pod.wait_for_log("roles", READY)
        yield pod
    finally:
        pod.stop()


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    with running(make_pod(tmp_path_factory.mktemp("pod")), password=AWKWARD, owner_password="owner-first") as pod:
        yield pod


def test_owner_creates_and_application_reads_and_writes(pod: Pod) -> None:
    assert pod.psql("flaskapp_owner", "owner-first", "CREATE TABLE item (id serial PRIMARY KEY)").returncode == 0
    written = pod.psql("flaskapp", AWKWARD, "INSERT INTO item DEFAULT VALUES RETURNING id")
    assert (written.returncode, written.stdout) == (0, "1\n"), written.stderr


@pytest.mark.parametrize(
    "sql",
    ["CREATE TABLE mine (id int)", "CREATE SCHEMA mine", "CREATE DATABASE mine", "CREATE ROLE mine", "DROP TABLE item",
     "ALTER ROLE flaskapp SUPERUSER", "SET ROLE flaskapp_owner", "COPY (SELECT 1) TO PROGRAM 'true'"],
)  # fmt: skip
def test_application_may_create_nothing(pod: Pod, sql: str) -> None:
    result = pod.psql("flaskapp", AWKWARD, sql)
    assert result.returncode == 1
    assert "ermission denied" in result.stderr or "must be owner" in result.stderr


@pytest.mark.parametrize(("user", "password"), [("flaskapp", "wrong"), ("postgres", ""), ("postgres", "postgres")])
def test_nobody_else_comes_in_by_network(pod: Pod, user: str, password: str) -> None:
    assert pod.psql(user, password, "SELECT 1").returncode == 2


def test_passwords_are_scram(pod: Pod) -> None:
    sql = "SELECT DISTINCT left(rolpassword, 13) FROM pg_authid WHERE rolpassword IS NOT NULL"
    inside = pod.command({"PGHOST": "/var/run/postgresql"}, "psql", "-XAtU", "postgres", "-c", sql)
    assert subprocess.check_output(inside, text=True, **pod.options()) == "SCRAM-SHA-256\n"


def test_changed_secret_changes_the_passwords_of_the_running_server(pod: Pod) -> None:
    pod.set_passwords(password="second", owner_password="owner-second")
    pod.wait_for_log("roles", READY, count=2)
    assert pod.psql("flaskapp", "second", "SELECT 1").returncode == 0
    assert pod.psql("flaskapp_owner", "owner-second", "SELECT 1").returncode == 0
    assert pod.psql("flaskapp", AWKWARD, "SELECT 1").returncode == 2
    pod.set_passwords(password=AWKWARD, owner_password="owner-first")
    pod.wait_for_log("roles", READY, count=3)


def test_two_logins_overlap(tmp_path: Path) -> None:
    """A new password comes with the other login; the previous one works for a while longer."""
    pod = make_pod(tmp_path, secretKeys={"username": "username"}, overlapSeconds=6)

    def works(user: str, password: str) -> bool:
        return pod.psql(user, password, "SELECT 1").returncode == 0

    def wait_for_refusal(user: str, password: str) -> None:
        deadline = time.monotonic() + 60
        while works(user, password):
            assert time.monotonic() < deadline, f"{user} still comes in"

    pod.set_passwords(username="flaskapp", password="first", owner_password="owner")
    pod.start("postgresql")
    roles = pod.start("roles")
    try:
        pod.wait_for_log("roles", READY)
        assert pod.psql("flaskapp_owner", "owner", "CREATE TABLE t (n int)").returncode == 0
        pod.set_passwords(username="flaskapp_2", password=AWKWARD)
        pod.wait_for_log("roles", READY, count=2)
        assert works("flaskapp", "first")
        result = pod.psql("flaskapp_2", AWKWARD, "INSERT INTO t VALUES (1) RETURNING current_user")
        assert result.stdout.strip() == "flaskapp", result.stderr
        assert pod.psql("flaskapp_2", AWKWARD, "CREATE TABLE u (n int)").returncode != 0
        # A repeated start, as after an interruption, does not extend that.
        roles.kill()
        roles.wait()
        pod.processes.remove(roles)
        pod.start("roles")
        pod.wait_for_log("roles", READY, count=3)
        wait_for_refusal("flaskapp", "first")
        pod.set_passwords(username="flaskapp", password="third")
        pod.wait_for_log("roles", READY, count=4)
        assert works("flaskapp", "third")
        wait_for_refusal("flaskapp_2", AWKWARD)
        pod.set_passwords(username="somebody", password="fourth")
        pod.wait_for_log("roles", "neither flaskapp nor flaskapp_2")
        assert works("flaskapp", "third")
    finally:
        pod.stop()


def test_no_password_in_any_log(pod: Pod) -> None:
    for container in ("postgresql", "roles"):
        for password in (AWKWARD, "owner-first", "second", "SCRAM-SHA-256$"):
            assert password not in pod.log(container)


def test_fast_shutdown_with_a_client_connected_and_rows_after_restart(pod: Pod) -> None:
    client = subprocess.Popen(
        pod.command({"PGPASSWORD": AWKWARD}, "psql", "-h127.0.0.1", "-Uflaskapp", "-cSELECT pg_sleep(60)"),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **pod.options(),
    )  # fmt: skip
    time.sleep(1)
    server = pod.processes[0]
    # First what preStop does, then what the kubelet does.
    server.send_signal(signal.SIGINT)
    server.send_signal(signal.SIGTERM)
    assert server.wait(20) == 0
    client.wait(5)
    assert "received fast shutdown request" in pod.log("postgresql")
    pod.start("postgresql")
    pod.wait_for_log("postgresql", "ready to accept connections", count=2)
    assert pod.psql("flaskapp", AWKWARD, "SELECT count(*) FROM item").stdout == "1\n"


def test_one_role_for_applications_that_create_their_tables(tmp_path: Path) -> None:
    pod = make_pod(tmp_path, separateOwner=False)
    pod.set_passwords(password="app", owner_password="owner")
    pod.start("postgresql")
    pod.start("roles")
    try:
        pod.wait_for_log("roles", READY)
        assert pod.psql("flaskapp", "app", "CREATE TABLE mine (id int)").returncode == 0
        owner = pod.psql("flaskapp", "app", "SELECT tableowner FROM pg_tables WHERE tablename = 'mine'")
        assert owner.stdout == "flaskapp_owner\n"
    finally:
        pod.stop()


@pytest.mark.parametrize(
    ("path", "version", "says"),
    [
        ("pgdata/PG_VERSION", "17", "the data is PostgreSQL 17, the image is 18: set image.tag back to 17"),
        ("18/docker/PG_VERSION", "18", "18/docker/PG_VERSION is the data of another installation"),
        ("data/PG_VERSION", "16", "data/PG_VERSION is the data of another installation"),
    ],
)
def test_data_it_cannot_serve_is_refused_and_untouched(tmp_path: Path, path: str, version: str, says: str) -> None:
    pod = make_pod(tmp_path)
    file = tmp_path / "data" / path
    file.parent.mkdir(parents=True)
    file.write_text(version + "\n")
    assert pod.start("postgresql").wait(30) == 1
    assert says in pod.log("postgresql")
    assert [path for path in (tmp_path / "data").rglob("*") if path.is_file()] == [file]


@needs_debian
def test_another_major_version_by_dump_and_restore(tmp_path: Path) -> None:
    """docs/postgresql.md, "Move to another major version": rows of a real older server, refused, then restored."""
    text = (ROOT / "docs/backup.md").read_text()
    [restore] = re.findall(r"postgresql -- \\\n +(pg_restore .*--clean.*) < TIME.dump", text)
    sums = (CHARTS / "flaskapp/files/tables.sql").read_bytes()

    def inside(pod: Pod, *command: str, stdin: bytes = b"") -> bytes:
        argv = pod.command({"PGHOST": "/var/run/postgresql"}, *command)
        return subprocess.run(argv, input=stdin, check=True, stdout=subprocess.PIPE, **pod.options()).stdout  # type: ignore[no-any-return]

    def started(pod: Pod, count: int) -> Pod:
        pod.start("postgresql")
        pod.start("roles")
        pod.wait_for_log("roles", READY, count)
        return pod

    psql = ("psql", "-XAtqU", "postgres", "flaskapp")
    older = make_pod(tmp_path, programs=debian_programs())
    make_older_data(older)
    older.set_passwords(password=AWKWARD, owner_password="owner")
    newer = make_pod(tmp_path)
    try:
        started(older, 1)
        assert older.psql("flaskapp_owner", "owner", "CREATE TABLE item (name text)").returncode == 0
        assert older.psql("flaskapp", AWKWARD, "INSERT INTO item SELECT generate_series(1, 500)").returncode == 0
        before = inside(older, *psql, stdin=sums)
        dump = inside(older, "pg_dump", "--username=postgres", "--format=custom", "flaskapp")
        older.stop()
        assert newer.start("postgresql").wait(30) == 1
        assert "the image is 18: set image.tag back to" in newer.log("postgresql")
        newer.processes.clear()
        started(older, 2)
        assert inside(older, *psql, stdin=sums) == before
        older.stop()
        shutil.rmtree(tmp_path / "data/pgdata")
        started(newer, 3)
        inside(newer, *restore.split(), stdin=dump)
        assert inside(newer, *psql, stdin=sums) == before
        assert b"public.item|500|" in before
        assert newer.psql("flaskapp", AWKWARD, "INSERT INTO item VALUES ('new')").returncode == 0
    finally:
        older.stop()
        newer.stop()


def test_interrupted_first_start_is_made_anew(tmp_path: Path) -> None:
    pod = make_pod(tmp_path)
    half = tmp_path / "data" / "pgdata.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    os.chown(half, 999, 999)
    pod.start("postgresql")
    try:
        pod.wait_for_log("postgresql", "ready to accept connections")
        assert not half.exists()
    finally:
        pod.stop()


# As OpenShift's, with the library of the official image; and as CRI-O adds it to /etc/passwd.
ARBITRARY = 1000620000, 0


def arbitrary_user(named: bool) -> Account:
    if named:
        return Account(*ARBITRARY, "1000620000:x:1000620000:0:1000620000 user:/:/sbin/nologin")
    return Account(*ARBITRARY, "", debian_files("debian-nss-wrapper", "libnss-wrapper"))


@needs_debian
@pytest.mark.parametrize("named", [False, True])
def test_an_arbitrary_user(tmp_path: Path, named: bool) -> None:
    pod = make_pod(tmp_path, account=arbitrary_user(named))
    pod.set_passwords(password=AWKWARD, owner_password="owner")
    try:
        for count in (1, 2):  # the second time with the data that is there
            pod.start("postgresql")
            pod.start("roles")
            pod.wait_for_log("roles", READY, count)
            assert pod.psql("flaskapp", AWKWARD, "SELECT current_user").stdout == "flaskapp\n"
            assert pod.superuser("SELECT current_user").stdout == "postgres\n"
            assert (tmp_path / "data/pgdata").stat().st_uid == ARBITRARY[0]
            pod.stop()
    finally:
        pod.stop()


def test_an_arbitrary_user_without_the_library(tmp_path: Path) -> None:
    pod = make_pod(tmp_path, account=Account(*ARBITRARY, ""))
    assert pod.start("postgresql").wait(30) == 1
    assert "user 1000620000 has no name in this image, nor has it libnss_wrapper.so" in pod.log("postgresql")


def test_the_superuser_is_nobody_elses_peer(pod: Pod) -> None:
    """Another user of the machine reaches the socket, but is refused."""
    other = Pod(pod.folder, {}, {}, account=Account(1234, 1234))
    other.port = pod.port
    result = other.superuser("SELECT 1")
    assert result.returncode == 2
    assert "Peer authentication failed" in result.stderr


INIT = {
    "extensions": ["pg_trgm", "pageinspect"],
    "initSQL": {
        "asSuperuser": {"a.sql": "CREATE SCHEMA IF NOT EXISTS audit; GRANT USAGE ON SCHEMA audit TO flaskapp"},
        "asOwner": {
            "b.sql": "CREATE TABLE IF NOT EXISTS item (name text);\nINSERT INTO item VALUES ('seed')",
            "c.sql": "CREATE INDEX IF NOT EXISTS item_name ON item USING gin (name gin_trgm_ops)",
        },
    },
}


def test_extensions_and_sql(tmp_path: Path) -> None:
    """Before the application can connect; again when changed, without a restart; whole or not at all."""
    pod = make_pod(tmp_path, values=INIT)
    pod.set_passwords(password="app", owner_password="owner")

    def names() -> list[str]:
        return pod.psql("flaskapp", "app", "SELECT name FROM item ORDER BY name").stdout.split()

    try:
        server = pod.start("postgresql")
        roles = pod.start("roles")
        pod.wait_for_log("roles", READY)
        assert names() == ["seed"]
        assert pod.psql("flaskapp", "app", "INSERT INTO item VALUES ('mine')").returncode == 0
        assert (
            pod.superuser("SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'audit'").stdout == "postgres\n"
        )
        assert pod.superuser("SELECT tableowner FROM pg_tables WHERE tablename = 'item'").stdout == "flaskapp_owner\n"
        assert (
            pod.superuser("SELECT count(*) FROM pg_extension WHERE extname IN ('pg_trgm', 'pageinspect')").stdout
            == "2\n"
        )

        # A restart of the container, or another password, repeats nothing.
        roles.send_signal(signal.SIGTERM)
        roles.wait(20)
        pod.processes.remove(roles)
        (tmp_path / "tmp/applied").unlink()
        pod.start("roles")
        pod.wait_for_log("roles", READY, count=2)
        assert names() == ["mine", "seed"]

        # What fails is undone, said, and keeps nobody out.
        files = {path.name: path.read_text() for path in (tmp_path / "init").iterdir()}
        (tmp_path / "tmp/applied").unlink()
        pod.set_files(
            "init", files | {"owner.d.sql": "INSERT INTO item VALUES ('half');\nINSERT INTO nowhere VALUES (1)"}
        )
        pod.wait_for_log("roles", "not applied, trying again")
        assert 'owner.d.sql:2: ERROR:  relation "nowhere" does not exist' in pod.log("roles")
        assert (tmp_path / "tmp/applied").exists()
        assert names() == ["mine", "seed"]

        pod.set_files("init", {"owner.d.sql": "INSERT INTO item VALUES ('later')"})
        pod.wait_for_log("roles", READY, count=3)
        assert names() == ["later", "mine", "seed"]
        assert server.poll() is None
    finally:
        pod.stop()


def test_sql_that_fails_at_first_keeps_the_application_out(tmp_path: Path) -> None:
    pod = make_pod(tmp_path, values={"extensions": ["nothing"]})
    pod.set_passwords(password="app", owner_password="owner")
    try:
        pod.start("postgresql")
        pod.start("roles")
        pod.wait_for_log("roles", "not applied, trying again")
        assert 'extension "nothing" is not available' in pod.log("roles")
        assert not (tmp_path / "tmp/applied").exists()
    finally:
        pod.stop()


def test_names_changed_in_the_server_first(tmp_path: Path) -> None:
    """docs/postgresql.md, "Rename the database or a role"."""
    document = (ROOT / "docs/postgresql.md").read_text()
    statements = re.findall(r"--command '(ALTER .* RENAME TO .*)'", document)
    assert len(statements) == 3
    before = make_pod(tmp_path, database="app", username="app", separateOwner=False)
    before.set_passwords(password="app", owner_password="owner")
    after = make_pod(tmp_path, database="shop", username="clerk", separateOwner=False)
    try:
        before.start("postgresql")
        before.start("roles")
        before.wait_for_log("roles", READY)
        assert before.psql("app", "app", "CREATE TABLE item AS SELECT 1 AS n", "app").returncode == 0
        for statement in statements:
            result = before.superuser(statement, "postgres")
            assert result.returncode == 0, result.stderr
        before.stop()
        after.start("postgresql")
        after.start("roles")
        after.wait_for_log("roles", READY, count=2)
        assert after.psql("clerk", "app", "UPDATE item SET n = 2 RETURNING n", "shop").stdout == "2\n"
        owners = after.superuser("SELECT tableowner FROM pg_tables WHERE tablename = 'item'", "shop")
        assert owners.stdout == "clerk_owner\n"
        databases = after.superuser("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1", "postgres")
        assert databases.stdout.split() == ["postgres", "shop"]
    finally:
        before.stop()
        after.stop()


def test_changed_sql_restarts_no_server() -> None:
    before, after = (
        one(render("postgresql", {"auth": {"existingSecret": "database"}, **values}), "StatefulSet")
        for values in ({}, INIT)
    )
    assert before == after


@needs_debian
def test_tls(tmp_path: Path) -> None:
    """verify-full for the server's name, no plaintext, nothing before TLS 1.3, and a renewed certificate at once."""
    pod = make_pod(tmp_path / "pod", tls="certificate", programs=debian_programs())
    make_older_data(pod)
    server = {}
    for name in ("first", "second"):
        authority = Authority(tmp_path / name, name)
        (pod.folder / "tmp" / f"{name}.crt").write_bytes(authority.certificate_path.read_bytes())
        server[name] = authority.issue("server", "web-postgresql", [], ["web-postgresql"])

    def log_in(mode: str, authority: str = "first", host: str = "web-postgresql", **more: str) -> tuple[int, str]:
        """Exit code, and the error or the protocol."""
        settings = {
            "PGHOST": host,
            "PGHOSTADDR": "127.0.0.1",
            "PGSSLMODE": mode,
            "PGSSLROOTCERT": f"/tmp/{authority}.crt",
        }
        result = pod.psql(
            "flaskapp", "app", "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()", **settings, **more
        )
        return result.returncode, result.stdout.strip() or result.stderr

    pod.set_passwords(password="app", owner_password="owner")
    pod.set_certificate(*server["first"])
    pod.start("postgresql")
    pod.start("roles")
    try:
        pod.wait_for_log("roles", READY)
        assert log_in("verify-full") == (0, "TLSv1.3")
        for refused, says in (
            (log_in("disable"), "no encryption"),
            (log_in("verify-full", authority="second"), "certificate verify failed"),
            (log_in("verify-full", host="elsewhere"), "does not match host name"),
            (log_in("require", PGSSLMAXPROTOCOLVERSION="TLSv1.2"), "protocol version"),
        ):
            assert refused[0] == 2
            assert says in refused[1]
        pod.set_certificate(*server["second"])
        pod.wait_for_log("roles", READY, count=2)
        assert log_in("verify-full", authority="second") == (0, "TLSv1.3")
        assert log_in("verify-full", authority="first")[0] == 2
    finally:
        pod.stop()
