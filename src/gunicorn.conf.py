"""gunicorn's settings; `python -m gunicorn` beside this file reads it. Why each is so: docs/performance.md."""

import gc
import os
import socket
import struct
import sys

from flaskapp import logs
from flaskapp.settings import Settings, SettingsError
from flaskapp.worker import Worker

try:
    settings = Settings.from_environment()
except SettingsError as error:
    sys.exit(f"flaskapp: {error}")

CLIENT_TIMEOUT = 3  # seconds without a byte, for what a thread reads or writes

Worker.max_body = settings.max_body

wsgi_app = "flaskapp.wsgi:app"
bind = f"0.0.0.0:{settings.port}"
worker_class = "flaskapp.worker.Worker"  # gthread
workers = settings.web_concurrency
threads = settings.web_threads
# Few, so that a worker leaves to the others what it cannot begin soon.
worker_connections = threads * 16
# Loaded before the fork, so what cannot start ends the whole server with its reason, and workers share memory.
preload_app = True
# The heartbeat file must not wait for a disk.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108
control_socket_disable = True
timeout = 30
graceful_timeout = settings.graceful_timeout
keepalive = 5
logger_class = "flaskapp.worker.Log"
logconfig_dict = logs.configuration(settings.log_level)


def when_ready(server):  # type: ignore[no-untyped-def]
    # A client that stops in mid-request would hold a thread for ever; connections inherit this from their listener.
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", CLIENT_TIMEOUT, 0))
    gc.collect()
    gc.freeze()


def post_worker_init(worker):  # type: ignore[no-untyped-def]
    probes = worker.wsgi.wsgi_app
    probes.watch.start()
    probes.drain_on_sigterm()
    if settings.metrics_port:
        from flaskapp.wsgi import app

        app.extensions["metrics"].serve(settings.metrics_port)
