#!/bin/bash
# image.sh RELEASE DIRECTORY: make a stock Debian that boots, as disk.img, vmlinuz and initrd.img in DIRECTORY.
# Needs root, debootstrap and e2fsprogs. RELEASE.sh beside this file is what sets one machine apart from the other.
set -euo pipefail
release=$1 directory=$2 root=$2/root here=$(dirname "$(realpath "$0")")

# In namespaces of its own: a mount made here is seen nowhere else, and goes with this script.
[ "${ISOLATED:-}" ] || ISOLATED=1 exec unshare --mount --pid --fork --kill-child --mount-proc "$here/image.sh" "$@"
umask 022
home=$(getent passwd root | cut -d: -f6)
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# Debian's standard system and what README.md asks for: Python, make, git, curl.
packages=apparmor,ca-certificates,curl,dbus,git,make,openssh-server,python3,python3-venv,systemd-sysv,zstd
debootstrap --include="$packages" "$release" "$root"
# A company's proxy may sign in its own name: this machine's certificates and settings of pip go along.
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
env | grep -iE '^[A-Z_]*(CA_BUNDLE|CERT_FILE|PIP_CERT|_PROXY)=' > "$root/etc/environment" || true
[ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
mount --bind /proc "$root/proc"
chroot "$root" apt-get update -qq
chroot "$root" apt-get install -y -qq --no-install-recommends linux-image-cloud-amd64 initramfs-tools

printf 'LABEL=root / ext4 defaults 0 1\nLABEL=cache %s/.cache ext4 defaults 0 2\n' "$home" > "$root/etc/fstab"
mkdir -p "$root$home/.cache" "$root/etc/systemd/network"
printf '[Match]\nName=en* eth*\n[Network]\nDHCP=yes\n' > "$root/etc/systemd/network/10-dhcp.network"
echo "$release" > "$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$release" > "$root/etc/hosts"
# Who boots it may log in: the kernel's command line has the key (machine.py).
cat > "$root/usr/local/sbin/machine-key" << 'SCRIPT'
#!/bin/sh
sed -n "s/.* machine-key=\([^ ]*\).*/ssh-ed25519 \1/p" /proc/cmdline
SCRIPT
chmod 755 "$root/usr/local/sbin/machine-key"
printf '%s\n' 'AuthorizedKeysCommand /usr/local/sbin/machine-key' 'AuthorizedKeysCommandUser nobody' \
  > "$root/etc/ssh/sshd_config.d/machine-key.conf"
chroot "$root" systemctl enable ssh systemd-networkd
# They would compete for an emulated processor.
chroot "$root" systemctl disable apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer
chroot "$root" bash -euo pipefail -s < "$here/$release.sh"
chroot "$root" apt-get clean
umount "$root/proc"

cp "$root"/boot/vmlinuz-* "$directory/vmlinuz"
cp "$root"/boot/initrd.img-* "$directory/initrd.img"
truncate -s 20G "$directory/disk.img"
mke2fs -q -t ext4 -L root -d "$root" "$directory/disk.img"
rm -rf "$root"
