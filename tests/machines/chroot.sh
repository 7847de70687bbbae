#!/bin/bash
# chroot.sh DISK CACHE CHECKOUT COMMAND: run COMMAND in a system disk that stays as it is, with CACHE as ~/.cache
# and CHECKOUT as /mnt. Its mounts go with the mount namespace that it is called in (unshare --mount).
set -euo pipefail
mount -t tmpfs tmpfs /mnt
mkdir /mnt/{lower,upper,work,merged}
mount -o loop,ro,noload "$1" /mnt/lower
mount -t overlay overlay -o lowerdir=/mnt/lower,upperdir=/mnt/upper,workdir=/mnt/work /mnt/merged
cp -L --remove-destination /etc/resolv.conf /mnt/merged/etc/resolv.conf
mount --bind /dev /mnt/merged/dev
mount -t proc proc /mnt/merged/proc
mount --bind "$2" "/mnt/merged$HOME/.cache"
mount --bind "$3" /mnt/merged/mnt
exec chroot /mnt/merged "${@:4}"
