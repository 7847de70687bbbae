"""docs/your-application.md: its blocks run unchanged, in one shell; the last names a registry."""

import os
import shutil

from flaskapp_deploy.cluster.localcluster import LocalCluster
from flaskapp_deploy.kubernetes import Cluster
from tests import pages
from tests.kubernetes import INSTANCE


def test_every_step(kubernetes: LocalCluster) -> None:
    *blocks, last = pages.blocks("your-application.md")
    assert len(blocks) == 5
    assert "registry.example.com" in last
    try:
        result = pages.run("\n".join(blocks), env=os.environ | {"INSTANCE": INSTANCE}, timeout=580)
        assert result.stdout.count("Ada") >= 2
    finally:
        shutil.rmtree("/tmp/guestbook", ignore_errors=True)
        admin = Cluster(kubernetes.kubeconfig, "", "guestbook")
        admin.kubectl("delete", "namespace", "guestbook", "--ignore-not-found", "--wait=false")
