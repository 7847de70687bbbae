"""gunicorn's settings, read by `python -m gunicorn` in this folder. The reasons: docs/performance.md."""

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
# Few, so that a busy worker leaves new connections to the others.
worker_connections = threads * 16
# Load before the fork: an application that can't start ends the server with its error, and workers share memory.
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
    """Set the sockets' timeouts, and take what is loaded out of garbage collection, before the first fork."""
    # A client that stops in the middle of a request would hold its thread; connections inherit this from the listener.
    for listener in server.LISTENERS:
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            listener.sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", CLIENT_TIMEOUT, 0))
    gc.collect()
    gc.freeze()


def post_worker_init(worker):  # type: ignore[no-untyped-def]
    """Start the worker's background threads, its SIGTERM handler and its metrics."""
    probes = worker.wsgi.wsgi_app
    probes.watch.start()
    probes.drain_on_sigterm()
    if settings.metrics_port:
        from flaskapp.wsgi import app

        app.extensions["metrics"].serve(settings.metrics_port)
