"""`make up` for our service and for a directory that isn't ours, as people type it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.kubernetes import Cluster
from flaskapp_deploy.release import config
from flaskapp_deploy.shell import DeployError, wait_until
from flaskapp_deploy.up import recovery, removal, target
from flaskapp_deploy.up.doctor import history
from flaskapp_deploy.up.install import claim_name, ensure_namespace
from tests.kubernetes import INSTANCE, ROOT


def make(word: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = ["make", "--no-print-directory", word, f"INSTANCE={INSTANCE}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)


def make_up(*arguments: str) -> list[str]:
    """Run `make up`; return the lines for the shell that it printed."""
    result = make("up", *arguments)
    assert result.returncode == 0, result.stderr
    return [line.strip() for line in result.stdout.splitlines() if line.startswith("  ")]


def revisions(cluster: Cluster, release: str) -> list[str]:
    """The state of each revision of a release."""
    return [one["status"] for one in history(cluster, release)]


def shell(lines: list[str]) -> str:
    """Paste lines into a shell."""
    result = subprocess.run(["bash", "-euo", "pipefail"], input="\n".join(lines), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_ledger(kubernetes: LocalCluster, admin: Callable[[str], Cluster]) -> None:
    lines = make_up()
    asked = [line for line in lines if line.startswith(("TOKEN=", "curl"))]
    assert len(asked) == 4
    answers = shell(asked)
    assert answers.count('"shop"') >= 3, answers
    assert "problem" not in answers
    [look] = [line for line in lines if "get pods,hpa,pvc" in line]
    assert "Running" in shell([look])

    installed, rows = revisions(admin("flaskapp"), "flaskapp"), json.loads(shell(asked[2:3]))["items"]
    again = make_up()  # the same port, the same rows
    assert revisions(admin("flaskapp"), "flaskapp") == installed
    assert json.loads(shell(asked[2:3]))["items"] == rows
    assert [line for line in again if line.startswith("curl")] == [line for line in asked if line.startswith("curl")]


EIGHT_LINES = """
from flask import Flask

app = Flask(__name__)


@app.get("/hello")
def hello():
    return "Hello from eight lines"
"""


def test_an_application_without_values(
    kubernetes: LocalCluster, admin: Callable[[str], Cluster], tmp_path: Path
) -> None:
    """TCP probes, no database, no migration; nothing is at `/`."""
    application = tmp_path / "eight"
    application.mkdir()
    (application / "app.py").write_text(EIGHT_LINES.lstrip())
    (application / "requirements.txt").write_text("flask\n")
    result = make("up", f"APP={application}")
    assert result.returncode == 0, result.stderr
    assert "GET /: 404 NOT FOUND" in result.stderr
    [curl] = [line.strip() for line in result.stdout.splitlines() if line.strip().startswith("curl")]
    assert shell([f"{curl}hello"]) == "Hello from eight lines"
    kinds = "deployments,statefulsets,jobs,persistentvolumeclaims"
    [deployment] = admin("eight").objects(kinds)
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    assert deployment["metadata"]["name"] == "eight"
    for kind in ("startup", "liveness", "readiness"):
        assert container[f"{kind}Probe"]["tcpSocket"] == {"port": "http"}


DATABASE = """
import os

import psycopg2
from flask import Flask

app = Flask(__name__)


@app.get("/")
def version():
    with psycopg2.connect(os.environ["DATABASE_URL"]) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE IF NOT EXISTS visits (at timestamptz)")
        cursor.execute("SELECT current_user")
        return cursor.fetchone()[0]
"""


def test_one_switch_gives_a_database(kubernetes: LocalCluster, tmp_path: Path) -> None:
    application = tmp_path / "visits"
    application.mkdir()
    (application / "app.py").write_text(DATABASE.lstrip())
    (application / "requirements.txt").write_text("flask\npsycopg2-binary\n")
    (tmp_path / "values.yaml").write_text("postgresql: {enabled: true}\n")
    lines = make_up(f"APP={application}", f"VALUES={tmp_path / 'values.yaml'}")
    assert "app" in shell([line for line in lines if line.startswith("curl")])


def test_directory_that_is_not_ours(kubernetes: LocalCluster) -> None:
    lines = make_up("APP=examples/hello", "VALUES=examples/hello/values.yaml")
    assert "Hello, world" in shell([line for line in lines if line.startswith("curl")])


def test_what_is_unchanged_makes_no_revision(kubernetes: LocalCluster, admin: Callable[[str], Cluster]) -> None:
    arguments = ["APP=examples/hello", "VALUES=examples/hello/values.yaml", "NAME=steady"]
    make_up(*arguments)
    assert revisions(admin("steady"), "steady") == ["deployed"]
    assert "nothing has changed since revision 1 of 'steady'" in make("up", *arguments).stderr
    assert revisions(admin("steady"), "steady") == ["deployed"]
    # What was deleted by hand is put there again.
    admin("steady").kubectl("delete", "service", "steady")
    make_up(*arguments)
    assert revisions(admin("steady"), "steady") == ["superseded", "deployed"]


def test_one_application_is_removed_and_the_others_stay(
    kubernetes: LocalCluster, admin: Callable[[str], Cluster]
) -> None:
    hello = ["APP=examples/hello", "VALUES=examples/hello/values.yaml"]
    leaving, staying = make_up(*hello, "NAME=leaving"), make_up(*hello, "NAME=staying")
    volume = {"kind": "PersistentVolumeClaim", "apiVersion": "v1", "metadata": {"name": "uploads"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    admin("leaving").kubectl("create", "-f", "-", stdin=yaml.safe_dump(volume | {"spec": spec}))
    absent = make("down", "NAME=absent")
    assert absent.returncode != 0
    assert "there is no application 'absent' on the local cluster" in absent.stderr
    assert "leaving, " in absent.stderr

    result = make("down", "NAME=leaving")
    assert result.returncode == 0, result.stderr
    assert "removing the application 'leaving' from the local cluster" in result.stderr
    assert "with the data in uploads" in result.stderr
    assert admin("leaving").kubectl("get", "namespace", "leaving", check=False).returncode
    [curl] = [line for line in leaving if line.startswith("curl")]
    assert subprocess.run(["bash", "-c", curl], capture_output=True).returncode == 7  # nothing listens any more
    assert "Hello, world" in shell([line for line in staying if line.startswith("curl")])
    assert revisions(admin("staying"), "staying") == ["deployed"]
    lines = removal.contents(target.Local(INSTANCE, ""))
    assert "application staying, in the namespace staying" in lines
    assert "leaving" not in lines


def processes(session: int, word: str = "") -> list[int]:
    """The processes of a session, or those whose command line has the word."""
    command = ["pgrep", "--session", str(session), *(["--full", word] if word else [])]
    return [int(line) for line in subprocess.run(command, capture_output=True, text=True).stdout.split()]


# Whom a signal reaches, as `pgrep --full` finds them: everybody (Ctrl-C), make, the command, or helm itself.
ENDS = [
    ("", signal.SIGINT),
    ("^make ", signal.SIGTERM),
    ("^make ", signal.SIGKILL),
    ("flaskapp_deploy up", signal.SIGTERM),
    ("flaskapp_deploy up", signal.SIGKILL),
    ("helm upgrade .*wait-for-jobs", signal.SIGKILL),
]


def interrupt(command: list[str], log: Path, word: str, sent: signal.Signals) -> None:
    """Send a signal to the processes with `word` as soon as helm is at work; return when none of them is left."""
    with log.open("w") as output:
        running = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output, start_new_session=True)
    helm = "helm upgrade .*wait-for-jobs"
    wait_until(lambda: bool(processes(running.pid, helm)), 120, "helm", [log], lambda: running.poll() is None)
    time.sleep(2)
    for process in processes(running.pid, word):
        os.kill(process, sent)
    running.wait(30)
    wait_until(lambda: not recovery.at_work("killed") and not processes(running.pid), 30, "the end", [log])


def test_a_kill_leaves_nothing_that_blocks(
    kubernetes: LocalCluster, admin: Callable[[str], Cluster], tmp_path: Path
) -> None:
    """While helm waits for pods that no node takes, again and again; then the same application is installed."""
    values = tmp_path / "values.yaml"
    command = ["make", "up", f"INSTANCE={INSTANCE}", "APP=examples/hello", "NAME=killed", f"VALUES={values}"]
    good = (ROOT / "examples/hello/values.yaml").read_text()
    for number, (word, sent) in enumerate(ENDS):
        values.write_text(good + f"nodeSelector: {{disk: absent}}\nconfig: {{ATTEMPT: '{number}'}}\n")
        log = tmp_path / f"{number}.log"
        interrupt(command, log, word, sent)
        assert "Traceback" not in log.read_text()
    assert "Hello, world" in shell(
        [line for line in make_up(*command[3:5], "VALUES=examples/hello/values.yaml") if line.startswith("curl")]
    )
    assert revisions(admin("killed"), "killed")[-1] == "deployed"


def test_a_kill_at_any_moment(kubernetes: LocalCluster, tmp_path: Path) -> None:
    application = tmp_path / "sudden"
    shutil.copytree(ROOT / "examples/hello", application)
    arguments = [f"APP={application}", "VALUES=examples/hello/values.yaml"]
    for moment in (0.3, 1, 2, 3.5, 5, 8):
        (application / "moment").write_text(str(moment))  # the image is built again
        command = ["make", "up", f"INSTANCE={INSTANCE}", *arguments]
        running = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(moment)
        for process in processes(running.pid, "flaskapp_deploy|^make "):
            os.kill(process, signal.SIGKILL)
        running.wait(30)
    assert "Hello, world" in shell([line for line in make_up(*arguments) if line.startswith("curl")])


def test_caches_stay_while_a_cluster_runs(kubernetes: LocalCluster, tmp_path: Path) -> None:
    (tmp_path / "flaskapp/tools").mkdir(parents=True)
    command = [sys.executable, "-m", "flaskapp_deploy", "clean"]
    variables = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    result = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60)
    assert result.returncode != 0
    assert f"runs by programs in {tmp_path}/flaskapp\n  delete it first: " in result.stderr
    assert (tmp_path / "flaskapp/tools").exists()


def refused(*arguments: str) -> str:
    result = make("up", *arguments)
    assert result.returncode != 0
    assert "Traceback" not in result.stderr
    return result.stderr


def test_two_directories_of_one_name(kubernetes: LocalCluster, tmp_path: Path) -> None:
    for place in ("one", "two"):
        shutil.copytree(ROOT / "examples/hello", tmp_path / place / "web")
    (tmp_path / "two/web/app.py").write_text((ROOT / "examples/hello/app.py").read_text().replace("Hello", "Goodbye"))
    one, two = ([f"APP={tmp_path / place / 'web'}", "VALUES=examples/hello/values.yaml"] for place in ("one", "two"))
    first = make_up(*one)
    message = refused(*two)
    assert f"the name 'web' is taken by {tmp_path / 'one/web'}" in message
    assert "NAME=web-2" in message
    assert "building" not in message
    second = make_up(*two, "NAME=web-2")
    assert make_up(*one)[0] == first[0]
    for lines, answer in ((first, "Hello"), (second, "Goodbye")):
        assert answer in shell([line for line in lines if line.startswith("curl")])
    assert "can't name a release" in refused(*two, "NAME=1web")


def test_a_moved_directory_keeps_its_name(admin: Callable[[str], Cluster], tmp_path: Path) -> None:
    cluster = admin("moved")
    ensure_namespace(cluster)
    release = replace(config.load(), name="moved", namespace="moved")
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    claim_name(cluster, replace(release, application=tmp_path / "before"))
    with pytest.raises(DeployError, match="is taken by"):
        claim_name(cluster, replace(release, application=tmp_path / "after"))
    (tmp_path / "before").rmdir()
    claim_name(cluster, replace(release, application=tmp_path / "after"))
    claim_name(cluster, replace(release, application=tmp_path / "after"))


# The pods wait for the same thing as the migration, longer than a rollout may take.
MIGRATION = """
health: {path: /}
replicas: 1
postgresql: {enabled: true}
migrations:
  command: [python, migrate.py]
  waitCommand: [python, -c, import socket; socket.gethostbyname('gate')]
  backoffLimit: 0
rollout: {progressDeadlineSeconds: 30}
"""


def test_up_again_after_a_failed_migration(
    kubernetes: LocalCluster, admin: Callable[[str], Cluster], tmp_path: Path
) -> None:
    """First the application is repaired, then what it needs: neither takes a step by hand."""
    application = tmp_path / "gated"
    shutil.copytree(ROOT / "examples/hello", application)
    (application / "values.yaml").write_text(MIGRATION)
    arguments = [f"APP={application}", f"VALUES={application / 'values.yaml'}"]
    (application / "migrate.py").write_text("raise SystemExit('the column is missing')")
    assert "the migration failed" in refused(*arguments)
    (application / "migrate.py").write_text("import socket\nsocket.gethostbyname('gate')")
    assert "the migration failed" in refused(*arguments)
    past = ["deployment", "--selector=app.kubernetes.io/instance=gated", "--for=condition=Progressing=False"]
    admin("gated").kubectl("wait", *past, "--timeout=60s")
    admin("gated").kubectl("create", "service", "clusterip", "gate", "--tcp=80")
    assert "Hello, world" in shell([line for line in make_up(*arguments) if line.startswith("curl")])


def test_directory_without_an_application() -> None:
    command = ["make", "up", "APP=docs", f"INSTANCE={INSTANCE}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode != 0
    assert "requirements.txt" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_cluster_that_people_have(kubernetes: LocalCluster, images: dict[str, str]) -> None:
    """KUBE_CONTEXT: their kubeconfig, an image that its nodes can get; nothing of the cluster is ours."""
    people = os.environ | {"KUBECONFIG": str(kubernetes.kubeconfig)}
    context = [f"KUBE_CONTEXT=flaskapp-{INSTANCE}", "APP=examples/hello"]
    command = ["make", "--no-print-directory", "up", *context, "VALUES=examples/hello/values.yaml"]
    environment = people | {"IMAGE": images["hello"]}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "GET /: " in result.stderr
    assert "port-forward service/hello" in result.stdout

    refused = subprocess.run(command, cwd=ROOT, env=people, capture_output=True, text=True, timeout=300)
    assert "IMAGE=registry/name:tag" in refused.stderr
    down = subprocess.run(["make", "down", *context], cwd=ROOT, env=people, capture_output=True, text=True, timeout=300)
    assert "the release 'hello' is uninstalled" in down.stderr
