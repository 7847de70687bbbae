#!/bin/bash
# chroot.sh DISK CACHE CHECKOUT COMMAND: run COMMAND in a system disk that stays as it is, with CACHE as root's cache
# and CHECKOUT as /mnt. Its mounts go with the mount namespace that it is called in (unshare --mount).
set -euo pipefail
mount -t tmpfs tmpfs /mnt
mkdir /mnt/{lower,upper,work,root}
mount -o loop,ro,noload "$1" /mnt/lower
mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
cp -L --remove-destination /etc/resolv.conf /mnt/root/etc/resolv.conf
mount --bind /dev /mnt/root/dev
mount -t proc proc /mnt/root/proc
mount --bind "$2" /mnt/root/root/.cache
mount --bind "$3" /mnt/root/mnt
exec chroot /mnt/root "${@:4}"
