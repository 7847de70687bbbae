"""New passwords and tokens for a release with data: no request fails, the old ones end, none is written anywhere."""

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg2

from reliability.environment import Environment
from reliability.release import DATABASE, DATABASE_POD, RELEASE, until

WORKS, REFUSED = 180, 300  # seconds after the change, by which the new password works and the old one is refused
OVERLAP = "postgresql.auth.overlapSeconds=10"  # less than a kubelet takes to bring a changed Secret
ODD = "'\"\\$@%/:# \u00e4\u20ac`!*?&=+~"  # what breaks a shell, a URL, SQL or an encoding
# As an application that knows nothing of rotation has it.
VARIABLES = {"database": {"env": {"files": False}}}
Login = tuple[str, str]


def logs_in(env: Environment, login: Login) -> bool:
    """Return whether PostgreSQL accepts this login over the network."""
    address = {"host": env.database_pod()["status"]["podIP"], "dbname": "flaskapp", "connect_timeout": 3}
    try:
        psycopg2.connect(**address, user=login[0], password=login[1]).close()
    except psycopg2.OperationalError as error:
        if "authentication failed" in str(error) or "not permitted to log in" in str(error):
            return False
        raise
    return True


def current_login(env: Environment) -> Login:
    """Return the login of the database's Secret."""
    secret = env.secret(DATABASE)
    return secret["username"], secret["password"]


def password_values(password: str) -> dict[str, object]:
    """Return the chart's values that set the password."""
    return {"postgresql": {"auth": {"password": password}}}


@contextmanager
def secret_password(env: Environment) -> Iterator[tuple[str, list[str]]]:
    """Give a new password and a list for what helm prints; nothing there, and no log of the namespace, may have it.

    PostgreSQL logs every statement until the scenario's end.
    """
    canary = secrets.token_hex(12)
    undo = ["ALTER SYSTEM RESET log_statement", "SELECT pg_reload_conf()"]
    env.later("PostgreSQL logs every statement", lambda: list(map(env.sql, undo)))
    for statement in ("ALTER SYSTEM SET log_statement = 'all'", "SELECT pg_reload_conf()"):
        env.sql(statement)
    printed: list[str] = []
    yield f"{canary}{ODD}", printed
    pods = [pod["metadata"]["name"] for pod in env.get("pods")]
    logs = {pod: env.log(pod, "--all-containers") for pod in pods}
    leaks = [pod for pod, log in logs.items() if canary in log]
    env.check(not leaks, f"the password is in the log of {', '.join(leaks)}")
    env.check(not any(canary in text for text in printed), "helm printed the password")
    env.check("statement: " in logs[DATABASE_POD], "PostgreSQL logged no statement, so nothing is shown")


def measure(env: Environment, old: Login, new: Login) -> None:
    """Wait until the new login works and the old one is refused, and note how long each took since the first mark."""

    def passed() -> float:
        return time.time() - env.marks[0][0]

    until(lambda: logs_in(env, new), WORKS - passed(), "the new password")
    works = passed()
    env.mark("works")
    until(lambda: not logs_in(env, old), REFUSED - works, "the old password's refusal")
    env.mark("refused")
    env.note(f"new works after {works:.0f} s, old refused after {passed():.0f} s")
    time.sleep(max(10, 100 - passed()))  # each kubelet has its own minute and a half; who is late shows until then


def password_by_secret(env: Environment) -> None:
    """The Secret gets the other login with another password, and helm does nothing: no pod is rolled."""
    with secret_password(env) as (password, _):
        old = current_login(env)
        new = ("flaskapp" if old[0] == "flaskapp_2" else "flaskapp_2", password)
        before = env.uids()
        env.mark("Secret")
        env.change_login(*new)
        measure(env, old, new)
        env.check(before == env.uids(), "pods were rolled")


def password_quickly(env: Environment) -> None:
    """An upgrade with another password, and an overlap shorter than what a kubelet takes."""
    old = current_login(env)
    env.mark("helm upgrade")
    env.upgrade("--set", OVERLAP, values=password_values(secrets.token_urlsafe(24)))
    measure(env, old, current_login(env))


def password_by_helm(env: Environment) -> None:
    """An upgrade with another password."""
    with secret_password(env) as (password, printed):
        old = current_login(env)
        env.mark("helm upgrade")
        for _ in range(2):  # the second changes nothing
            result = env.upgrade(values=password_values(password))
            printed += [result.stdout, result.stderr]
        new = current_login(env)
        env.check(new[1] == password, "the Secret has another password than the values")
        measure(env, old, new)
        printed.append(env.releaser.helm("history", RELEASE).stdout)


def password_by_rollout(env: Environment) -> None:
    """An upgrade with another password, of an image that has it as a variable: the pods are rolled."""
    with secret_password(env) as (password, printed):
        old, before = current_login(env), env.uids()
        env.mark("helm upgrade")
        result = env.upgrade(values=VARIABLES | password_values(password))
        printed += [result.stdout, result.stderr]
        env.check(not before & env.uids(), "the pods were not rolled")
        env.mark("rolled")
        measure(env, old, current_login(env))


def password_amid_faults(env: Environment) -> None:
    """A rotation while the container that does it, beside PostgreSQL, is killed four times: it goes on by itself."""
    old = current_login(env)
    new = (old[0], secrets.token_urlsafe(24))
    env.mark("Secret")
    env.change_login(*new)
    for _ in range(4):
        time.sleep(15)
        env.mark("kill -9")
        env.kill(env.database_pod(), "roles")
    measure(env, old, new)


def token_rotation(env: Environment) -> None:
    """A new API token, clients that move to it, and the end of the old one."""
    pod = env.ready_pods()[0]["metadata"]["name"]

    def token(*arguments: str) -> str:
        return env.execute(pod, "app", "python", "-m", "flaskapp", "token", *arguments)

    name, original = f"rotation-{int(time.time())}", env.token
    first, second = (token("create", f"{name}-{which}") for which in "ab")
    for what, value in (("first token", first), ("second token", second)):
        env.load.token = value
        env.mark(what)
        time.sleep(8)  # what was fed with the one before is sent
    token("revoke", f"{name}-a")
    env.mark("first revoked")
    time.sleep(5)
    env.load.token = original
    time.sleep(5)
