"""A file tree of Debian packages that has what the official Python image has: the recipe of the Python stand-in."""

import shutil
import subprocess
from pathlib import Path

from flaskapp_deploy.images.buildkit import BuildError, Progress, run
from flaskapp_deploy.programs import packages

PACKAGES = ["ca-certificates", "netbase", "python3", "python3-pip-whl", "tzdata"]
# No use inside an image, or different from one build to the next.
FILLED_LATER = [
    "boot/*",
    "dev/*",
    "proc/*",
    "run/*",
    "sys/*",
    "tmp/*",
    "debootstrap",
    "etc/hostname",
    "etc/resolv.conf",
]
OWN = ["etc/apt/sources.list", "etc/machine-id", "etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-"]
SHARED = [f"usr/share/{name}" for name in ("doc/*", "info/*", "lintian", "locale/*", "man/*", "python-wheels")]
PRUNED = [*FILLED_LATER, *OWN, *SHARED, "var/cache/*/*", "var/lib/apt/lists/*", "var/log/*"]
# Bytecode that never goes stale, whatever the times of the sources become.
COMPILE = "PYTHONHASHSEED=0 python3 -m compileall -q --invalidation-mode=unchecked-hash"


def make(root: Path, suite: str, arch: str, log: Path, progress: Progress, *, native: bool) -> None:
    """Fill `root` with packages of a Debian `suite`.

    A foreign architecture's packages are only unpacked, and its Python has no bytecode yet.
    """
    if not shutil.which("debootstrap") and not shutil.which("apt-get"):
        raise BuildError(
            "no registry answered for the base image, and a substitute needs debootstrap, which is not installed\n"
            "  let this machine reach the registry and try again"
        )
    packages.ensure(packages.STAND_INS)
    # In namespaces of its own: what debootstrap mounts and starts goes when it goes.
    command = ["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"]
    command += ["debootstrap", "--variant=minbase", f"--arch={arch}", *([] if native else ["--foreign"])]
    run([*command, f"--include={','.join(PACKAGES)}", suite, str(root), *_mirror()], log, "debootstrap", progress)
    if not native:
        _unpack(root)
    [library] = root.glob("usr/lib/python3.*")
    modules = root / "usr/local/lib" / library.name / "dist-packages"
    for folder in (modules, root / "usr/local/bin"):
        folder.mkdir(parents=True, exist_ok=True)
    for name in ("python", "python3"):
        (root / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
    [wheel] = root.glob("usr/share/python-wheels/pip-*.whl")
    shutil.unpack_archive(wheel, modules, "zip")
    for path in [path for pattern in PRUNED for path in root.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    for cache in list(library.rglob("__pycache__")):
        shutil.rmtree(cache)
    if native:
        command = ["chroot", str(root), "sh", "-c", f"{COMPILE} /usr/lib /usr/local/lib"]
        subprocess.run(command, check=True, env={"PATH": "/usr/sbin:/usr/bin"})


def _unpack(root: Path) -> None:
    """Unpack a foreign architecture's packages, and do what matters of their scripts, which can't run here."""
    for package in sorted(root.glob("var/cache/apt/archives/*.deb")):
        subprocess.run(["dpkg-deb", "--extract", str(package), str(root)], check=True)
    for name in ("passwd", "group"):
        shutil.copy(root / "usr/share/base-passwd" / f"{name}.master", root / "etc" / name)
    certificates = sorted(root.glob("usr/share/ca-certificates/mozilla/*.crt"))
    (root / "etc/ssl/certs/ca-certificates.crt").write_text("".join(path.read_text() for path in certificates))


def _mirror() -> list[str]:
    """The Debian mirror that this machine's apt uses; none elsewhere, so that debootstrap takes its own default."""
    if shutil.which("apt-get") is None:
        return []
    form = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
    result = subprocess.run(["apt-get", "indextargets", "--format", form], capture_output=True, text=True)
    mirrors = [line.rpartition("|")[2] for line in result.stdout.splitlines() if line.startswith("Debian|Debian|http")]
    return mirrors[:1]
