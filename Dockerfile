# The image of a WSGI application (docs/images.md): `docker build .`, or `docker build -f Dockerfile examples/hello`.
ARG PYTHON=3.13
ARG BASE=public.ecr.aws/docker/library/python:${PYTHON}-slim-trixie
# Timestamps inside the image, so that the same source gives the same digest.
ARG SOURCE_DATE_EPOCH=1767225600
# `flaskapp-deploy` gives strip.py in its place. Without it, libraries keep their debug information.
FROM scratch AS helpers
FROM --platform=$BUILDPLATFORM ${BASE} AS tools
SHELL ["/bin/sh", "-euc"]
ENV PATH=/uv/bin:$PATH PYTHONHASHSEED=0 PYTHONDONTWRITEBYTECODE=1 UV_PYTHON_DOWNLOADS=never UV_NO_WRAP=1 XDG_CACHE_HOME=/cache
RUN --mount=type=cache,target=/cache --mount=type=secret,id=index --mount=type=secret,id=ca \
    [ ! -e /run/secrets/index ] || . /run/secrets/index; \
    echo "uv==0.13.9 --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19" \
      "--hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe" > uv.txt; \
    python3 -m pip install --quiet --root-user-action=ignore --target=/uv --require-hashes -r uv.txt

# What installing reads, without the code: a change of code installs nothing again.
FROM tools AS requirements
RUN --mount=type=bind,target=/context mkdir /requirements; cd /context; \
    cp --parents *.txt */*.txt *.in */*.in *.lock pyproject.toml setup.* README* /requirements 2> /dev/null || true; \
    cd /requirements; if [ -e requirements.lock ]; then echo --require-hashes -r requirements.lock > arguments; \
    elif grep -qsxE '(-e *)?\.(\[.*\])?' requirements.txt; then echo -r resolved.txt > arguments; \
    elif [ -e requirements.txt ]; then echo -r requirements.txt > arguments; \
    elif [ -e uv.lock ]; then uv export -q --frozen --no-dev --no-emit-project -o uv.txt; echo -r uv.txt > arguments; \
    elif [ -e pyproject.toml ]; then echo -r pyproject.toml > arguments; \
    else echo "error: no requirements.txt: add one (pip freeze > requirements.txt), or a pyproject.toml"; exit 1; fi

# The requirements in a directory for each architecture: the image's, and this machine's to try the code with.
FROM tools AS deps
ARG BUILDARCH TARGETARCH
RUN --mount=from=requirements,source=/requirements,target=/requirements,rw --mount=from=helpers,target=/helpers \
    --mount=type=cache,target=/cache --mount=type=secret,id=index --mount=type=secret,id=ca \
    [ ! -e /run/secrets/index ] || . /run/secrets/index; cd /requirements; \
    ! grep -q resolved arguments || { uv pip compile -q --universal requirements.txt -o all.txt; \
      grep -vE '^(-e )?(\.|file:)' all.txt > resolved.txt; }; \
    for arch in $TARGETARCH $BUILDARCH; do \
      echo "architecture: $arch"; platform=$(echo "$arch" | sed 's/amd64/x86_64/; s/arm64/aarch64/')-manylinux_2_36; \
      uv pip install --python-platform="$platform" --target="/$arch" $(cat arguments); rm -f "/$arch/.lock"; \
      pin="gunicorn==27.0.1 --hash=sha256:378b26b9a38adcf4592f28828233c1716acc55e833ea06bf48719782efaa0d10"; \
      [ -e "/$arch/gunicorn" ] || echo "$pin" | uv pip install --target="/$arch" --no-deps -r -; done; \
    [ ! -e /helpers/strip.py ] || python3 /helpers/strip.py "/$TARGETARCH"; \
    python3 -X no_debug_ranges -m compileall -qq --invalidation-mode=unchecked-hash "/$TARGETARCH" || true

FROM deps AS app
WORKDIR /app
ARG FLASK_APP="" WSGI=""
ENV PATH=/$BUILDARCH/bin:$PATH PYTHONPATH=/app:/$BUILDARCH HOME=/tmp
COPY <<'EOF' /gunicorn.conf.py
import os
threads = int(os.environ.get("WEB_THREADS", "4"))
graceful_timeout = int(os.environ.get("GRACEFUL_TIMEOUT", "30"))
worker_tmp_dir = "/dev/shm"  # a heartbeat on a disk can block the worker
control_socket_disable = True
accesslog = "-"
EOF
RUN --mount=type=bind,target=/code \
    from=/code; [ ! -d /code/src ] || [ -e /code/wsgi.py ] || [ -e /code/app.py ] || from=/code/src; cp -R $from/. .; \
    find . -name pyvenv.cfg -printf '%h\0' | xargs -0 rm -rf; \
    find . \( -name '.?*' -o -name __pycache__ -o -name node_modules -o -name instance \) -print0 | xargs -0 rm -rf; \
    [ ! -e /code/image-build.sh ] || sh -eu /code/image-build.sh
# WSGI, or gunicorn.conf.py's own, or what Flask finds: there, wsgi.py names the only package that has an application.
RUN [ -e gunicorn.conf.py ] || cp /gunicorn.conf.py .; app=$WSGI; \
    [ -n "$app" ] || grep -q '^wsgi_app' gunicorn.conf.py || { app=flask_discovery:app; \
      flask='import os\nfrom flask.cli import ScriptInfo\n\napp = ScriptInfo(%s).load_app()\n'; \
      printf "$flask" 'os.environ.get("FLASK_APP")' > flask_discovery.py; \
      set -- $(grep -lsE '(create|make)_app\b|import .*\b(app|application)\b|\bFlask\(' */__init__.py); \
      [ $# != 1 ] || [ -e wsgi.py ] || [ -e app.py ] || printf "$flask" "\"${1%/*}\"" > wsgi.py; }; \
    [ -z "$app" ] || printf '\nimport os\nwsgi_app = os.environ.get("WSGI_APP") or "%s"\n' "$app" >> gunicorn.conf.py
RUN chmod -R u=rwX,go=rX .; python3 -m compileall -qq --invalidation-mode=unchecked-hash . || true; \
    find . -type f -exec cksum {} + | while read -r sum _ name; do touch -d "@$((sum % 1700000000))" "$name"; done
# An application that can't be found ends the build. One that needs its environment to be imported does not.
RUN timeout 60 setpriv --reuid=10001 --regid=10001 --clear-groups python3 -c "import os, runpy, gunicorn.util as util; \
      conf = runpy.run_path('gunicorn.conf.py'); os.chdir(conf.get('chdir', '.')); util.import_app(conf['wsgi_app'])" \
      > /log 2>&1 || { last=$(grep . /log | tail -n 1); case $last in \
      *NoAppException:*|*AppImportError*|*"cannot import name"*|ModuleNotFoundError:*|SyntaxError:*|Indentation*) \
        place=$(sed -n '/discovery/d; s|^ *File "/app/\(.*\)", line \([0-9]*\).*| (\1:\2)|p' /log | tail -n 1); \
        echo "error: ${last#*NoAppException: }$place; correct it, or set WSGI=module:callable"; exit 1 ;; \
      *) echo "note: the application was not tried, for it needs its environment: $last" ;; esac; }

FROM ${BASE}
ARG FLASK_APP="" TARGETARCH
ENV PATH=/deps/bin:$PATH PYTHONPATH=/app:/deps PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/tmp PORT=8000
ENV FLASK_APP=${FLASK_APP}
COPY --from=deps /${TARGETARCH} /deps
COPY --from=app /app /app
WORKDIR /app
USER 10001:10001
EXPOSE 8000
CMD ["python", "-m", "gunicorn"]
