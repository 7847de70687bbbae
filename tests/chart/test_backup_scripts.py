"""The backup's scripts on a real server: sums that see every change, row-level security, an arbitrary user."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.postgresql_server import Pod, can_run, has_debian_packages
from tests.chart.render import CHARTS, ROOT
from tests.chart.test_postgresql_server import arbitrary_user, make_pod, running

pytestmark = pytest.mark.skipif(not can_run(), reason="needs root for a mount namespace")

SCRIPTS = {
    path.name: path.read_text() for path in (CHARTS / "flaskapp/files").iterdir() if path.suffix in {".sh", ".sql"}
}


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    pod = make_pod(tmp_path_factory.mktemp("pod"))
    pod.set_files("scripts", SCRIPTS)
    with running(pod, password="app", owner_password="owner"):
        yield pod


@pytest.fixture
def database(pod: Pod) -> Pod:
    """Return the server with an empty schema and no dumps."""
    pod.superuser("DROP EXTENSION IF EXISTS pg_trgm CASCADE; DROP TABLE IF EXISTS audit")
    owner(
        pod,
        "DROP SCHEMA IF EXISTS public, other CASCADE; CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO flaskapp",
    )
    pod.set_files("backups", {})
    return pod


def owner(pod: Pod, sql: str) -> str:
    result = pod.psql("flaskapp_owner", "owner", sql)
    assert result.returncode == 0, result.stderr
    return result.stdout


def sums(pod: Pod) -> dict[str, str]:
    """Return rows and sum of each table."""
    result = pod.psql("flaskapp_owner", "owner", "\\i /etc/backup/tables.sql")
    assert result.returncode == 0, result.stderr
    return dict(line.split("|", 1) for line in result.stdout.splitlines())


def back_up(pod: Pod) -> None:
    """Back up and verify; both must succeed, and the dump must count."""
    for script in ("dump.sh", "verify.sh"):
        result = pod.run_backup(script)
        assert result.returncode == 0, result.stdout + result.stderr
    assert [path.suffix for path in sorted((pod.folder / "backups").iterdir())] == [".dump", ".tables"]


ODD = [
    "row",
    "t",
    "n",
    "_",
    "columns",
    "relname",
    "md5",
    "substr",
    "count",
    "item",
    'a "b"',
    "x'y",
    "select",
    "%s",
    "oid",
]


def test_a_sum_sees_each_column_whatever_it_is_called(database: Pod) -> None:
    """Each table has a column of an odd name and another; a change of either changes that table's sum alone."""
    names = {f"t{number}": '"' + column.replace('"', '""') + '"' for number, column in enumerate(ODD)}
    owner(database, ";".join(f"CREATE TABLE {table} ({name} int, rest text)" for table, name in names.items()))
    results = []
    for change in (
        "INSERT INTO {table} VALUES (1, 'a'), (2, NULL)",
        "UPDATE {table} SET rest = 'b' WHERE rest = 'a'",
        "UPDATE {table} SET rest = '' WHERE rest IS NULL",
        "UPDATE {table} SET {name} = 3 WHERE {name} = 2",
    ):
        owner(database, ";".join(change.format(table=table, name=name) for table, name in names.items()))
        results.append(sums(database))
    for table in names:
        assert len({result[f"public.{table}"] for result in results}) == len(results), names[table]
    back_up(database)


def test_sums_of_tables_of_every_kind(database: Pod) -> None:
    owner(
        database,
        """
        CREATE TABLE empty ();
        INSERT INTO empty DEFAULT VALUES;
        CREATE TABLE generated (n int, twice int GENERATED ALWAYS AS (n * 2) STORED);
        ALTER TABLE generated ADD thrice int GENERATED ALWAYS AS (n * 3);
        INSERT INTO generated VALUES (1), (2);
        CREATE TABLE "row" (LIKE generated);
        CREATE TABLE parted (at timestamptz, n int) PARTITION BY RANGE (n);
        CREATE TABLE low (n int, at timestamptz);
        ALTER TABLE parted ATTACH PARTITION low FOR VALUES FROM (0) TO (10);
        INSERT INTO parted VALUES ('2026-01-01 00:00+05', 1);
        CREATE TABLE parent (a int);
        CREATE TABLE child (own text) INHERITS (parent);
        ALTER TABLE parent ADD COLUMN late int;
        INSERT INTO child VALUES (1, 'x', 2);
        CREATE TABLE dropped (gone int, kept int);
        ALTER TABLE dropped DROP COLUMN gone;
        INSERT INTO dropped VALUES (7);
        CREATE SCHEMA other;
        CREATE TABLE other.reference (r regclass, t text);
        INSERT INTO other.reference VALUES ('empty', E'\\\\ "\\n');
        """,
    )
    assert {name: line.split("|")[0] for name, line in sums(database).items()} == {
        "other.reference": "1", "public.child": "1", "public.dropped": "1", "public.empty": "1",
        "public.generated": "2", "public.low": "1", "public.parent": "1", "public.parted": "1", "public.row": "0",
    }  # fmt: skip
    back_up(database)


def test_a_session_with_a_temporary_table_disturbs_no_backup(database: Pod) -> None:
    owner(database, "CREATE TABLE item (n int); INSERT INTO item VALUES (1)")
    with database.session("flaskapp", "app", "CREATE TEMPORARY TABLE mine AS SELECT 1"):
        assert list(sums(database)) == ["public.item"]
        back_up(database)


def test_a_sum_is_the_one_of_earlier_backups(database: Pod) -> None:
    """charts/restore.sh compares dumps of version 0.2.0 with sums of today."""
    owner(database, "CREATE TABLE item (b int, a text); INSERT INTO item VALUES (1, 'x'), (2, NULL)")
    earlier = "SELECT count(*), sum(('x' || substr(md5(row::text), 1, 15))::bit(60)::bigint::numeric) FROM item AS row"
    assert sums(database) == {"public.item": owner(database, earlier).strip()}


def test_a_changed_row_does_not_count(database: Pod) -> None:
    owner(database, "CREATE TABLE item (n int); INSERT INTO item VALUES (1)")
    assert database.run_backup("dump.sh").returncode == 0
    [tables] = (database.folder / "backups").glob("*.tables")
    tables.write_text("public.item|1|0\n")
    result = database.run_backup("verify.sh")
    assert result.returncode == 1
    assert "the restored rows are not the dumped ones" in result.stderr
    assert not list((database.folder / "backups").glob("*.dump"))


POLICIES = """
    CREATE TABLE note (tenant text, body text);
    INSERT INTO note VALUES ('a', 'one'), ('b', 'two');
    ALTER TABLE note ENABLE ROW LEVEL SECURITY;
    CREATE POLICY tenant ON note TO flaskapp USING (tenant = current_setting('app.tenant', true));
"""


def test_policies_for_a_role(database: Pod) -> None:
    owner(database, POLICIES)
    assert database.psql("flaskapp", "app", "SELECT count(*) FROM note").stdout == "0\n"
    back_up(database)


@pytest.mark.parametrize(
    "force",
    [
        "ALTER TABLE note FORCE ROW LEVEL SECURITY",
        "ALTER TABLE note FORCE ROW LEVEL SECURITY; DROP POLICY tenant ON note",
    ],
)
def test_forced_row_level_security_hides_nothing_from_a_backup(database: Pod, force: str) -> None:
    owner(database, POLICIES + force)
    assert owner(database, "SELECT count(*) FROM note") == "0\n"
    back_up(database)
    [tables] = (database.folder / "backups").glob("*.tables")
    assert tables.read_text().startswith("public.note|2|")


def test_hidden_rows_fail_the_backup_where_no_role_sees_them(database: Pod) -> None:
    owner(database, POLICIES + "ALTER TABLE note FORCE ROW LEVEL SECURITY")
    database.superuser("REVOKE flaskapp_backup FROM flaskapp_owner")
    try:
        result = database.run_backup("dump.sh")
        summed = database.psql("flaskapp_owner", "owner", "\\i /etc/backup/tables.sql")
    finally:
        database.superuser("GRANT flaskapp_backup TO flaskapp_owner")
    assert result.returncode == 1
    assert "row-level security hides rows of note from flaskapp_owner" in result.stderr
    assert not list((database.folder / "backups").iterdir())
    # Nor do the sums count fewer rows.
    assert summed.returncode != 0
    assert "row-level security" in summed.stderr


def test_the_application_gets_nothing_by_the_backups_role(database: Pod) -> None:
    owner(database, POLICIES)
    assert "ermission denied" in database.psql("flaskapp", "app", "SET ROLE flaskapp_backup").stderr
    assert database.psql("flaskapp", "app", "SELECT count(*) FROM note").stdout == "0\n"
    assert database.psql("flaskapp_backup", "", "SELECT 1").returncode == 2


def test_extensions_and_what_the_superuser_made(database: Pod) -> None:
    database.superuser("CREATE EXTENSION pg_trgm; CREATE TABLE audit (n int); INSERT INTO audit VALUES (1)")
    owner(database, "CREATE TABLE item (name text); CREATE INDEX ON item USING gin (name gin_trgm_ops)")
    back_up(database)
    assert list(sums(database)) == ["public.audit", "public.item"]


def test_the_restore_of_the_docs(database: Pod) -> None:
    """docs/backup.md, "Restore": over what is there, with the owners, policies, extensions and grants of the dump."""
    [command] = re.findall(
        r"postgresql -- \\\n +(pg_restore .*--clean.*) < TIME.dump", (ROOT / "docs/backup.md").read_text()
    )
    database.superuser("CREATE EXTENSION pg_trgm")
    owner(database, POLICIES + "CREATE INDEX ON note USING gin (body gin_trgm_ops); COMMENT ON TABLE note IS 'kept'")
    before = sums(database)
    back_up(database)
    owner(database, "UPDATE note SET body = 'lost'; CREATE TABLE later (n int)")
    [dump] = (database.folder / "backups").glob("*.dump")
    result = database.run(*command.split(), f"/var/backups/{dump.name}", PGHOST="/var/run/postgresql")
    assert result.returncode == 0, result.stderr
    assert sums(database) == before | {"public.later": "0|0"}
    assert database.psql("flaskapp", "app", "SELECT body FROM note", PGOPTIONS="-c app.tenant=a").stdout == "one\n"
    assert database.superuser("SELECT tableowner FROM pg_tables WHERE tablename = 'note'").stdout == "flaskapp_owner\n"


@pytest.mark.skipif(not has_debian_packages(), reason="needs Debian's libnss-wrapper")
@pytest.mark.parametrize("named", [False, True])
def test_backup_as_an_arbitrary_user(tmp_path: Path, database: Pod, named: bool) -> None:
    owner(database, POLICIES)
    other = make_pod(tmp_path, account=arbitrary_user(named))
    other.port = database.port
    other.set_files("scripts", SCRIPTS)
    back_up(other)


def test_both_charts_name_an_arbitrary_user_alike() -> None:
    assert (CHARTS / "postgresql/files/user.sh").read_text() == SCRIPTS["user.sh"]
