"""This machine's pip settings, handed to a build as secrets, so that no index or certificate ends in a layer."""

import configparser
import subprocess
import sys
from pathlib import Path

# What decides where packages come from; the rest of a user's settings is nobody else's business.
KEYS = {"index-url", "extra-index-url", "no-index", "trusted-host", "proxy", "timeout", "default-timeout", "retries"}


def secrets(directory: Path) -> dict[str, Path]:
    """Write pip's effective settings into `directory`; return the files by the name of their secret (`pip`, `ca`)."""
    settings = _settings()
    config = configparser.RawConfigParser()
    config["global"] = {key: value for key, value in settings.items() if key in KEYS}
    found = {"pip": directory / "pip.conf"}
    with found["pip"].open("w") as file:
        config.write(file)
    certificates = Path(settings.get("cert", ""))
    if certificates.is_file():
        found["ca"] = certificates
    return found


def _settings() -> dict[str, str]:
    """`pip config list`, later sources over earlier ones: files, then `[install]`, then the environment."""
    result = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    found: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in result.stdout.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(f"{section}."):
                found[name.rpartition(".")[2]] = value.strip().strip("'\"")
    return found
