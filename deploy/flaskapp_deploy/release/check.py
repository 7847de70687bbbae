"""What must hold before anything is published: the lines `checks` of release.toml."""

import os
import subprocess
import tempfile
import time

from flaskapp_deploy.release.config import ReleaseConfig
from flaskapp_deploy.resources import PROJECT
from flaskapp_deploy.shell import DeployError, say


def run(config: ReleaseConfig) -> None:
    """Run the checks one after another, their output shown as it comes; the first that fails ends them."""
    # Without the logins and tokens of the release: a check runs what a commit brings.
    environment = {key: value for key, value in os.environ.items() if key not in {"LEDGER_TOKEN", "COSIGN_PASSWORD"}}
    with tempfile.TemporaryDirectory(prefix="flaskapp-check-") as empty:
        environment |= {"DOCKER_CONFIG": empty, "KUBECONFIG": f"{empty}/none"}
        for line in config.checks:
            say(f"check: {line}")
            started = time.monotonic()
            code = subprocess.run(["bash", "-c", line], cwd=PROJECT, env=environment).returncode
            if code:
                raise DeployError(f"the check `{line}` ended with {code}: nothing is published")
            say(f"check: passed in {time.monotonic() - started:.0f} s")
