# The image of any WSGI application: a directory with its code and its requirements.
#
#   docker build .                                   this repository's service
#   docker build -f Dockerfile examples/hello        any other directory
#     --build-arg WSGI=shop.web:create_app()         where neither wsgi.py nor app.py says it
#
# Nothing runs in the last stage, so building for another architecture needs no emulation.

# Timestamps inside the image, so that the same source gives the same digest.
ARG SOURCE_DATE_EPOCH=1767225600
ARG PYTHON=public.ecr.aws/docker/library/python:3.13-slim-trixie


# The code, and its requirements apart from it: a change of code installs nothing again.
FROM --platform=$BUILDPLATFORM ${PYTHON} AS app
ENV PYTHONHASHSEED=0
ARG WSGI=""
RUN --mount=type=bind,target=/context <<'PYTHON'
#!/usr/bin/env python
import ast, compileall, os, shutil, sys, zlib
from pathlib import Path
from py_compile import PycInvalidationMode

context, app, requirements = Path("/context"), Path("/app"), Path("/requirements")


def stop(message):
    sys.exit(f"error: {message}")


def unwanted(folder, names):
    """What people keep beside their code: hidden files, secrets, local data, other people's packages."""
    known = {"__pycache__", "node_modules", "instance"}
    return [n for n in names if n in known or n.startswith(".") or (Path(folder) / n / "pyvenv.cfg").exists()]


def bound(module):
    """Names that a module binds at its top, each with what it is, as far as reading tells."""
    found = {}
    try:
        nodes = list(ast.parse(module.read_bytes()).body)
    except SyntaxError as error:
        stop(f"{module.relative_to(app)}, line {error.lineno}: {error.msg}")
    for node in nodes:
        if isinstance(node, (ast.If, ast.Try, ast.With)):
            nodes += node.body
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {alias.asname or alias.name: "imported" for alias in node.names}
        elif isinstance(node, ast.FunctionDef):
            required = len(node.args.posonlyargs + node.args.args) - len(node.args.defaults)
            found[node.name] = "function" if required else "factory"
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            kind = "Flask" if ast.unparse(node.value).startswith(("Flask(", "flask.Flask(")) else "object"
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id: kind for target in targets if isinstance(target, ast.Name)}
    return found


def callables(module):
    """What of a module can be served, best first, as `module:callable`."""
    found = bound(module) if module.exists() else {}
    objects = [name for name in ("app", "application") if name in found]
    objects += [name for name, kind in found.items() if kind == "Flask"]
    factories = [f"{name}()" for name in ("create_app", "make_app") if found.get(name) in ("factory", "imported")]
    name = module.parent.name if module.name == "__init__.py" else module.stem
    return [f"{name}:{served}" for served in objects + factories]


def wsgi():
    """The application as `flask run` would find it, in wsgi.py or app.py; else that of the only package with one."""
    usual = callables(app / "wsgi.py") + callables(app / "app.py")
    packages = [found[:1] for module in sorted(app.glob("*/__init__.py")) if (found := callables(module))]
    if not usual and len(packages) != 1:
        stop(
            "no WSGI application found: neither wsgi.py, app.py nor one package has `app`, `application` or"
            " `create_app()`; name it with WSGI=module:callable, or wsgi_app in gunicorn.conf.py"
        )
    return (usual or packages[0])[0]


if not any((context / f"requirements.{kind}").exists() for kind in ("lock", "txt")):
    stop("no requirements.txt: add one that lists the application's packages (pip freeze > requirements.txt)")
requirements.mkdir()
for path in [*context.glob("requirements*"), *context.glob("constraints*")]:
    (shutil.copytree if path.is_dir() else shutil.copy)(path, requirements / path.name)

top = any((context / name).exists() for name in ("wsgi.py", "app.py"))
source = context / "src" if (context / "src").is_dir() and not top else context
shutil.copytree(source, app, ignore=unwanted, symlinks=True)

settings, given = app / "gunicorn.conf.py", os.environ["WSGI"]
if not settings.exists():
    settings.write_text(f'''\
# Written by the Dockerfile, because the application brings no gunicorn.conf.py.
import os

wsgi_app = os.environ.get("WSGI_APP") or {given or wsgi()!r}
bind = "0.0.0.0:" + os.environ.get("PORT", "8000")
worker_class = "gthread"
threads = int(os.environ.get("WEB_THREADS", "4"))
graceful_timeout = int(os.environ.get("GRACEFUL_TIMEOUT", "20"))
worker_tmp_dir = "/dev/shm"  # a heartbeat on a disk can block the worker
control_socket_disable = True
accesslog = "-"
''')
elif given:
    with settings.open("a") as file:
        file.write(f"\nwsgi_app = {given!r}\n")

compileall.compile_dir(app, quiet=2, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
for path in [app, *app.rglob("*")]:
    if path.is_symlink():
        continue
    # Readable for every user, whatever the umask of the checkout was.
    path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    # A file's time follows its content: equal source gives an equal image, and a new static file a new ETag.
    time = zlib.crc32(path.read_bytes()) % 1_700_000_000 if path.is_file() else 0
    os.utime(path, (time, time))
PYTHON


# The requirements: /deps.
FROM --platform=$BUILDPLATFORM ${PYTHON} AS deps
ARG BUILDARCH TARGETARCH
ENV PYTHONHASHSEED=0 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_CONFIG_FILE=/run/secrets/pip
RUN --mount=type=bind,from=app,source=/requirements,target=/requirements \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip \
    --mount=type=secret,id=ca <<'PYTHON'
#!/usr/bin/env python
import compileall, os, platform, re, struct, subprocess, sys
from pathlib import Path
from py_compile import PycInvalidationMode

# Added where the application brings no gunicorn of its own.
GUNICORN = (
    "gunicorn==27.0.1"
    " --hash=sha256:378b26b9a38adcf4592f28828233c1716acc55e833ea06bf48719782efaa0d10"
    " --hash=sha256:b1514965361c8b7e8107a80aa2a92636878df1ccfac6dd204a676426e04d9e3e"
)
build, target, deps = os.environ["BUILDARCH"], os.environ["TARGETARCH"], Path("/deps")
if Path("/run/secrets/ca").exists():
    os.environ["PIP_CERT"] = "/run/secrets/ca"


def install(*arguments):
    command = [sys.executable, "-m", "pip", "install", "--progress-bar=off", "--no-compile", "--target", deps]
    if target != build:
        # Wheels of the other architecture, for this Python and every glibc up to this one.
        machine = {"amd64": "x86_64", "arm64": "aarch64"}[target]
        newest = int(platform.libc_ver()[1].split(".")[1])
        tags = [f"manylinux_2_{minor}_{machine}" for minor in range(5, newest + 1)] + [f"manylinux2014_{machine}"]
        command += ["--only-binary=:all:", "--python-version", platform.python_version(), "--implementation", "cp"]
        command += [f"--platform={tag}" for tag in tags]
    if subprocess.run([*command, *arguments], cwd="/requirements").returncode:
        version = ".".join(platform.python_version_tuple()[:2])
        wheels = "" if target == build else " from wheels"
        found = f"for Python {version} on {target}{wheels}"
        sys.exit(f"error: the requirements can't be installed {found}: see pip's lines above")


def drop_debug_information(library):
    """Cut an ELF file (64 bits, little-endian) after its last segment: what follows is for debuggers, not loaders."""
    elf = bytearray(library.read_bytes())
    if elf[:6] != b"\x7fELF\2\1" or b".debug_info\0" not in elf:
        return
    start, sections, size, count = *struct.unpack_from("<QQ", elf, 32), *struct.unpack_from("<HH", elf, 54)
    segments = [struct.unpack_from("<Q16xQ", elf, start + number * size + 8) for number in range(count)]
    end = max(offset + length for offset, length in segments)
    if end <= sections:
        struct.pack_into("<Q", elf, 40, 0)
        struct.pack_into("<HH", elf, 60, 0, 0)
        library.write_bytes(elf[:end])


if Path("/requirements/requirements.lock").exists():
    install("--require-hashes", "-r", "requirements.lock")
else:
    install("-r", "requirements.txt")
if not (deps / "gunicorn").exists():
    print(f"note: the requirements bring no gunicorn: {GUNICORN.split()[0]} is added", flush=True)
    Path("/tmp/gunicorn.txt").write_text(GUNICORN)
    install("--require-hashes", "--no-deps", "-r", "/tmp/gunicorn.txt")
for library in [path for path in deps.rglob("*.so*") if path.is_file() and not path.is_symlink()]:
    drop_debug_information(library)
# Bytecode makes the start quick, but packages' own tests never start here.
tests = re.compile("/tests?/|/testing/")
compileall.compile_dir(deps, quiet=2, rx=tests, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)
PYTHON


FROM ${PYTHON}
ARG PYTHON NAME=app
LABEL org.opencontainers.image.title=${NAME} \
      org.opencontainers.image.base.name=${PYTHON}
ENV PATH=/deps/bin:$PATH \
    PYTHONPATH=/app:/deps \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp
COPY --from=deps /deps /deps
COPY --from=app /app /app
WORKDIR /app
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "gunicorn"]
