wsgi_app = "shop.wsgi:application"
worker_tmp_dir = "/dev/shm"  # noqa: S108 - a heartbeat on a disk can block the worker
control_socket_disable = True
