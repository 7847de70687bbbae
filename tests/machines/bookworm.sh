#!/bin/bash
# Run in the root of a new Debian 12: a server's firewall, which drops what it doesn't name, and a plain resolv.conf.
apt-get install -y -qq --no-install-recommends nftables
cat > /etc/nftables.conf << 'RULES'
flush ruleset
table inet filter {
  chain input {
    type filter hook input priority filter; policy drop;
    iifname "lo" accept
    ct state established,related accept
    tcp dport ssh accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
  }
  chain output {
    type filter hook output priority filter; policy accept;
  }
}
RULES
systemctl enable nftables
echo 'nameserver 10.0.2.3' > /etc/resolv.conf
