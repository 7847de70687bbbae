#!/bin/bash
# Run in the root of a new Debian 13: a German user with sudo, and systemd-resolved's 127.0.0.53 in resolv.conf.
apt-get install -y -qq --no-install-recommends locales sudo systemd-resolved
echo 'de_DE.UTF-8 UTF-8' > /etc/locale.gen
locale-gen
update-locale LANG=de_DE.UTF-8
useradd --create-home --shell /bin/bash --groups sudo dev
echo 'dev ALL=(ALL:ALL) NOPASSWD: ALL' > /etc/sudoers.d/dev
systemctl enable systemd-resolved
ln -sf ../run/systemd/resolve/stub-resolv.conf /etc/resolv.conf
