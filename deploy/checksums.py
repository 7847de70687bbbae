"""Write into programs/downloads.json the checksums that the projects publish for the versions of go.mod.

For whoever moves a version: `PYTHONPATH=deploy $(deploy/venv.sh)/bin/python deploy/checksums.py`, on a machine that
reaches the projects' servers.
"""

import json
import re

import requests

from flaskapp_deploy import programs
from flaskapp_deploy.programs import downloads
from flaskapp_deploy.shell import DeployError, write_atomic


def published(entry: dict[str, str], version: str, architecture: str) -> str:
    """Return the checksum in a list that the project publishes: alone in it, or in the line of the file's name."""
    url, file = (entry[key].format(version=version, arch=architecture) for key in ("published", "url"))
    answer = requests.get(downloads.mirrored(url), timeout=downloads.STALL)
    name = re.escape(file.rpartition("/")[2])
    line = re.search(rf"^([0-9a-f]{{64,128}})(?:\s.*{name})?\s*$", answer.text, re.MULTILINE)
    if not answer.ok or line is None:
        raise DeployError(f"{url} has no checksum of {file}: {answer.status_code} {answer.reason}")
    return line[1]


def main() -> None:
    """Ask for every program of downloads.json, in each version that a group pins."""
    pins = downloads.pins()
    tools = {(tool.name, tool.version) for group in programs.groups() for tool in programs.tools_of(group)}
    for name, entry in pins.items():
        versions = sorted(version for tool, version in tools if tool == name)
        entry["checksums"] = {
            version: {arch: published(entry, version, arch) for arch in downloads.ARCHITECTURES.values()}
            for version in versions
        }
    write_atomic(downloads.file(), json.dumps(pins, indent=2) + "\n")


if __name__ == "__main__":
    main()
