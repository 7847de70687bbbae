"""Run a command as on Amazon Linux 2023, where releases are built: without Debian's programs, with its groups.

This machine's files are hidden in a mount namespace that ends with the command, so an absolute path finds none either.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ABSENT = [
    "apt",
    "apt-cache",
    "apt-get",
    "debootstrap",
    "dpkg",
    "dpkg-deb",
    "adduser",
    "addgroup",
    "qemu-aarch64-static",
]
FOLDERS = ["/etc/apt", "/usr/lib/cni", "/usr/lib/postgresql", "/var/lib/dpkg"]
# A file that can't be executed counts as absent from every PATH. The group of `nobody` has that name there.
HIDE = """
set -eu
for place in /usr/bin /usr/sbin /bin /sbin /usr/local/bin /usr/local/sbin; do
  for name in $ABSENT; do
    if [ -e "$place/$name" ]; then mount --bind "$EMPTY" "$place/$name"; fi
  done
done
for folder in $FOLDERS; do
  if [ -d "$folder" ]; then mount -t tmpfs tmpfs "$folder"; fi
done
sed 's/^nogroup:/nobody:/' /etc/group > "$EMPTY.group"
mount --bind "$EMPTY.group" /etc/group
# systemd's module makes up a group `nogroup`.
sed 's/^\\(group\\|passwd\\):.*/\\1: files/' /etc/nsswitch.conf > "$EMPTY.nsswitch"
mount --bind "$EMPTY.nsswitch" /etc/nsswitch.conf
exec "$@"
"""


def can_run() -> bool:
    return os.geteuid() == 0 and shutil.which("unshare") is not None


def run(folder: Path, *command: str, seconds: float = 300) -> "subprocess.CompletedProcess[str]":
    """Run a command in the repository; `folder` is for what the namespace needs."""
    (folder / "empty").touch(mode=0o644)
    settings = {"ABSENT": " ".join(ABSENT), "FOLDERS": " ".join(FOLDERS), "EMPTY": str(folder / "empty")}
    environment = os.environ | settings | {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'deploy'}:{ROOT}"}
    line = ["unshare", "--mount", "--propagation=private", "bash", "-c", HIDE, "amazon-linux", *command]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds)


def python(folder: Path, code: str, *arguments: str, seconds: float = 300) -> "subprocess.CompletedProcess[str]":
    return run(folder, sys.executable, "-c", code, *arguments, seconds=seconds)
