"""A Debian in QEMU: its boot, and commands in it by ssh. What is written in it is gone when it ends."""

import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flaskapp_deploy import shell
from flaskapp_deploy.programs import packages
from tests.machines import disks
from tests.machines.disks import Debian

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "build/logs"
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "debootstrap": "debootstrap",
    "mke2fs": "e2fsprogs",
    "ssh": "openssh-client",
}
EMULATION = 10  # times slower than this machine


class Machine:
    """A booted Debian.

    Attributes:
        accelerator: `kvm` or `tcg`.
        factor: By how much every limit in seconds is longer here than on a quick machine.
        applications: What `make up` started in it, and the kubectl line that it printed.
        address: Of the ledger.
        boot_seconds: Until it answered.
    """

    def __init__(self, debian: Debian, work: Path, accelerator: str) -> None:
        self.debian, self.work, self.accelerator = debian, work, accelerator
        slowness = 1 if accelerator == "kvm" else EMULATION
        self.factor = max(slowness, float(os.environ.get("TIMEOUT_FACTOR", "1")))
        self.port = shell.free_port()
        self.log = LOGS / f"machines-{debian.release}.log"
        self.console = LOGS / f"machines-{debian.release}-console.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.applications: dict[str, str] = {}
        self.address = ""
        self.boot_seconds = 0.0

    def boot(self, limit: float) -> bool:
        """Start it, and wait at most `limit` seconds for ssh; return whether it answers."""
        base, cache = disks.system(self.debian), disks.cache(self.debian)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        command = [*self._hardware(base, cache), "-append", self._kernel_options()]
        # A test run that is killed leaves no machine behind; KEEP=1 asks for one.
        leash = [] if os.environ.get("KEEP") else ["setpriv", "--pdeathsig=KILL"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([*leash, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        started = time.monotonic()
        while (seconds := time.monotonic() - started) < limit and self.process.poll() is None:
            if self.run("true", check=False).returncode == 0:
                self.boot_seconds = seconds
                return True
            time.sleep(1)
        return False

    def stop(self) -> None:
        """Switch it off."""
        if self.process:
            shell.stop(self.process)

    def run(
        self, command: str, limit: float = 60, *, check: bool = True, stdin: str | bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of bash in the checkout, as the machine's user; it is logged with its output.

        Args:
            command: The line.
            limit: Seconds on a quick machine.
            check: Whether a failure is an error.
            stdin: What it reads.
        """
        inside = f"umask {self.debian.umask}; cd {shlex.quote(self.debian.checkout)} 2> /dev/null || cd; {command}"
        with self.log.open("ab+") as log:
            log.write(f"\n$ {command}\n".encode())
            log.flush()
            started = time.monotonic()
            try:
                result = subprocess.run(
                    [*self.ssh(), f"bash -c {shlex.quote(inside)}"],
                    input=stdin.encode() if isinstance(stdin, str) else stdin,
                    capture_output=True,
                    timeout=limit * self.factor,
                )
            except subprocess.TimeoutExpired as error:
                log.write((error.stdout or b"") + (error.stderr or b""))
                raise AssertionError(f"`{command}` took more than {limit * self.factor:.0f} s: {self.log}") from None
            log.write(result.stdout + result.stderr)
            log.write(f"# {result.returncode} after {time.monotonic() - started:.0f} s\n".encode())
        stdout, stderr = (text.decode(errors="replace") for text in (result.stdout, result.stderr))
        if check and result.returncode:
            pytest.fail(f"`{command}` ended with {result.returncode}:\n{shell.tail(stdout + stderr, 30)}")
        return subprocess.CompletedProcess(command, result.returncode, stdout, stderr)

    def root(
        self, command: str, limit: float = 60, *, check: bool = True, stdin: str | bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of bash as root."""
        sudo = "" if self.debian.user == "root" else "sudo "
        return self.run(f"{sudo}bash -c {shlex.quote(command)}", limit, check=check, stdin=stdin)

    def ssh(self) -> list[str]:
        """The command that logs in."""
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "BatchMode=yes"]
        options += ["ConnectTimeout=30", "ServerAliveInterval=60", "ServerAliveCountMax=20"]
        words = [word for option in options for word in ("-o", option)]
        return ["ssh", *words, "-i", str(self._key()), "-p", str(self.port), f"{self.debian.user}@127.0.0.1"]

    def _key(self) -> Path:
        """The key of this run."""
        key = self.work / "key"
        if not key.exists():
            shell.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "machines", "-f", key)
        return key

    def _kernel_options(self) -> str:
        public = self._key().with_suffix(".pub").read_text().split()[1]
        return f"root=LABEL=root rw console=ttyS0 net.ifnames=0 loglevel=4 panic=-1 machine-key={public}"

    def _hardware(self, base: Path, cache: Path) -> list[str]:
        kvm = self.accelerator == "kvm"
        emulator = ["-accel", "kvm" if kvm else "tcg,thread=multi,tb-size=1024", "-cpu", "host" if kvm else "max"]
        disks = [
            word
            for disk in (base / "disk.img", cache)
            for word in ("-drive", f"file={disk},format=raw,if=virtio,snapshot=on,cache=unsafe")
        ]
        network = [
            "-netdev",
            f"user,id=net,hostfwd=tcp:127.0.0.1:{self.port}-:22",
            "-device",
            "virtio-net-pci,netdev=net",
        ]
        return [
            "qemu-system-x86_64",
            *("-machine", "q35", *emulator, "-smp", "2", "-m", str(self.debian.memory)),
            *("-display", "none", "-serial", f"file:{self.console}", "-no-reboot"),
            *("-device", "virtio-rng-pci", *disks, *network),
            *("-kernel", str(base / "vmlinuz"), "-initrd", str(base / "initrd.img")),
        ]


@contextmanager
def booted(debian: Debian, work: Path) -> Iterator[Machine]:
    """A machine with a clone of this checkout's last commit; KEEP=1 leaves it running."""
    if os.geteuid() != 0:
        pytest.fail("making a disk image needs root")
    packages.ensure(PACKAGES)
    machine = _boot(debian, work)
    try:
        machine.run(f"mkdir -p {shlex.quote(str(Path(debian.checkout).parent))}")
        shell.run("git", "bundle", "create", work / "bundle", "HEAD", cwd=ROOT)
        clone = f"cat > /tmp/bundle && git clone -q /tmp/bundle {shlex.quote(debian.checkout)} && rm /tmp/bundle"
        machine.run(clone, stdin=(work / "bundle").read_bytes())
        yield machine
    finally:
        if os.environ.get("KEEP"):
            shell.say(f"{debian} is still there: {shlex.join(machine.ssh())}")
        else:
            machine.stop()


def _boot(debian: Debian, work: Path) -> Machine:
    """Boot by KVM where that works: some machines have /dev/kvm, and a guest dies in it."""
    emulated = {"tcg": shell.seconds(600)}
    accelerators = {"kvm": 60.0} | emulated if os.access("/dev/kvm", os.W_OK) else emulated
    for accelerator, limit in accelerators.items():
        machine = Machine(debian, work, accelerator)
        if machine.boot(limit):
            return machine
        machine.stop()
    pytest.fail(f"{debian} did not boot{shell.last_lines([machine.console, machine.log], 20)}")
