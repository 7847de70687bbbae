"""gunicorn's settings for the baselines: the service's own, without its hooks and log."""

worker_class = "gthread"
workers = 1
threads = 4
worker_connections = 64
preload_app = True
worker_tmp_dir = "/dev/shm"  # noqa: S108 - the heartbeat file must not wait for a disk
control_socket_disable = True
keepalive = 5
