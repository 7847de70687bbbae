"""docs/your-application.md: its blocks run as they stand there, in one shell; the last names a registry."""

import os
import re
import shutil
import subprocess

from localcluster.instance import Instance
from pipeline.helm import Cluster
from tests.release.conftest import INSTANCE, ROOT

PAGE = ROOT / "docs/your-application.md"


def test_every_step(kubernetes: Instance) -> None:
    *blocks, last = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 5
    assert "registry.example.com" in last
    script = "set -euxo pipefail\n" + "\n".join(blocks)
    try:
        done = subprocess.run(
            ["bash", "-c", script], cwd=ROOT, env=os.environ | {"INSTANCE": INSTANCE},
            capture_output=True, text=True, timeout=580,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("Ada") >= 2
    finally:
        shutil.rmtree("/tmp/guestbook", ignore_errors=True)
        admin = Cluster(kubernetes.kubeconfig, "", "guestbook")
        admin.kubectl("delete", "namespace", "guestbook", "--ignore-not-found", "--wait=false")
