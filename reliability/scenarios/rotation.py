"""New passwords and tokens for a release with data: nobody notices, the old ones end, and none is written anywhere."""

import secrets
import time

import psycopg2

from reliability.scenarios import scenario
from reliability.stage import DATABASE, RELEASE, Stage, until

WORKS, REFUSED = 180, 300  # seconds after the change, by which the new password works and the old one is refused
OVERLAP = "postgresql.auth.overlapSeconds=10"  # less than a kubelet takes to bring a changed Secret
ODD = "'\"\\$@%/:# \u00e4\u20ac`!*?&=+~"  # what breaks a shell, a URL, SQL or an encoding


def logs_in(stage: Stage, username: str, password: str) -> bool:
    """Whether PostgreSQL lets these in over the network."""
    address = {"host": stage.database_pod()["status"]["podIP"], "dbname": "flaskapp", "connect_timeout": 3}
    try:
        psycopg2.connect(**address, user=username, password=password).close()
    except psycopg2.OperationalError as error:
        if "authentication failed" in str(error) or "not permitted to log in" in str(error):
            return False
        raise
    return True


def log_every_statement(stage: Stage) -> None:
    """log_statement=all, until the scenario's end."""
    stage.sql("ALTER SYSTEM SET log_statement = 'all'")
    stage.sql("SELECT pg_reload_conf()")
    undo = ["ALTER SYSTEM RESET log_statement", "SELECT pg_reload_conf()"]
    stage.later("PostgreSQL logs every statement", lambda: [stage.sql(statement) for statement in undo])


def nowhere(stage: Stage, canary: str, *said: str) -> None:
    """No log of the namespace and nothing that helm said has it; the database's log has every statement."""
    logs = {
        pod["metadata"]["name"]: stage.admin.kubectl("logs", pod["metadata"]["name"], "--all-containers").stdout
        for pod in stage.get("pods")
    }
    found = [name for name, log in logs.items() if canary in log]
    stage.check(not found, f"the password is in the log of {', '.join(found)}")
    stage.check(not any(canary in text for text in said), "helm said the password")
    stage.check("statement: " in logs[f"{DATABASE}-0"], "PostgreSQL logged no statement, so nothing is shown")


def times(stage: Stage, old: tuple[str, str], new: tuple[str, str]) -> None:
    """Wait until the new login works and the old one is refused, and say how long each took since the first mark."""

    def passed() -> float:
        return time.time() - stage.marks[0][0]

    until(lambda: logs_in(stage, *new), WORKS - passed(), "the new password's working")
    works = passed()
    stage.mark("works")
    until(lambda: not logs_in(stage, *old), REFUSED - works, "the old password's refusal")
    stage.mark("refused")
    stage.note(f"new works after {works:.0f} s, old refused after {passed():.0f} s")
    time.sleep(max(10, 100 - passed()))  # each kubelet has its own minute and a half; who is late shows until then


def login(stage: Stage) -> tuple[str, str]:
    secret = stage.secret(DATABASE)
    return secret["username"], secret["password"]


@scenario()
def password_by_secret(stage: Stage) -> None:
    """The Secret gets the other login with another password, and helm does nothing: no pod is rolled."""
    log_every_statement(stage)
    canary = secrets.token_hex(12)
    old = login(stage)
    new = ("flaskapp" if old[0] == "flaskapp_2" else "flaskapp_2", f"{canary}{ODD}")
    pods = {pod["metadata"]["uid"] for pod in stage.web_pods()}
    stage.mark("Secret")
    stage.patch_secret(DATABASE, dict(zip(("username", "password"), new, strict=True)))
    times(stage, old, new)
    stage.check(pods == {pod["metadata"]["uid"] for pod in stage.web_pods()}, "pods were rolled")
    nowhere(stage, canary)


def with_a_short_overlap(stage: Stage) -> None:
    stage.upgrade("--set", OVERLAP)


@scenario(short=True, prepare=with_a_short_overlap)
def password_quickly(stage: Stage) -> None:
    """helm upgrade with another password, and an overlap shorter than what a kubelet takes."""
    old = login(stage)
    values = stage.values_file({"postgresql": {"auth": {"password": secrets.token_urlsafe(24)}}})
    stage.mark("helm upgrade")
    stage.upgrade("--set", OVERLAP, "--values", str(values))
    times(stage, old, login(stage))


@scenario(times=2)
def password_by_helm(stage: Stage) -> None:
    """helm upgrade with another password."""
    log_every_statement(stage)
    canary = secrets.token_hex(12)
    old = login(stage)
    values = stage.values_file({"postgresql": {"auth": {"password": f"{canary}{ODD}"}}})
    stage.mark("helm upgrade")
    done = stage.upgrade("--values", str(values))
    again = stage.upgrade("--values", str(values))  # nothing happens twice
    new = login(stage)
    stage.check(new[1] == f"{canary}{ODD}", "the Secret has another password than the values")
    times(stage, old, new)
    nowhere(stage, canary, done.stdout, done.stderr, again.stdout, again.stderr)
    history = stage.releaser.helm("history", RELEASE).stdout
    stage.check(canary not in history, "helm's history shows the password")


VARIABLES = {"database": {"env": {"files": False}}, "migrations": {"waitCommand": []}}


def with_variables(stage: Stage) -> None:
    """The release as of an application that knows nothing of rotation: variables, and no command that waits."""
    stage.upgrade("--values", str(stage.values_file(VARIABLES)))


@scenario(times=2, prepare=with_variables)
def password_by_rollout(stage: Stage) -> None:
    """helm upgrade with another password, of an image that has it as a variable: the pods are rolled."""
    log_every_statement(stage)
    canary = secrets.token_hex(12)
    old = login(stage)
    values = stage.values_file(VARIABLES | {"postgresql": {"auth": {"password": f"{canary}{ODD}"}}})
    pods = {pod["metadata"]["uid"] for pod in stage.web_pods()}
    stage.mark("helm upgrade")
    done = stage.upgrade("--values", str(values))
    stage.check(not pods & {pod["metadata"]["uid"] for pod in stage.ready_pods()}, "the pods were not rolled")
    stage.mark("rolled")
    times(stage, old, login(stage))
    nowhere(stage, canary, done.stdout, done.stderr)


@scenario()
def password_amid_faults(stage: Stage) -> None:
    """A rotation whose doer, the container beside PostgreSQL, is killed four times: it goes on by itself."""
    old = login(stage)
    new = (old[0], secrets.token_urlsafe(24))
    stage.mark("Secret")
    stage.patch_secret(DATABASE, dict(zip(("username", "password"), new, strict=True)))
    for _ in range(4):
        time.sleep(15)
        stage.mark("kill -9")
        stage.kill(stage.database_pod(), "roles")
    times(stage, old, new)


@scenario()
def token_rotation(stage: Stage) -> None:
    """A new API token, clients that move to it, and the end of the old one."""
    first = stage.token
    pod = stage.ready_pods()[0]["metadata"]["name"]

    def flaskapp(*arguments: str) -> str:
        command = ["exec", pod, "--container=app", "--", "python", "-m", "flaskapp", *arguments]
        return stage.admin.kubectl(*command).stdout.strip()

    name = f"rotation-{int(time.time())}"
    made, other = (flaskapp("token", "create", f"{name}-{which}") for which in "ab")
    stage.load.token = made
    stage.mark("first token")
    time.sleep(8)  # what was fed with the one before is sent
    stage.load.token = other
    stage.mark("second token")
    time.sleep(8)
    flaskapp("token", "revoke", f"{name}-a")
    stage.mark("first revoked")
    time.sleep(5)
    stage.load.token = first
    time.sleep(5)
