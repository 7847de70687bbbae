#!/bin/bash
# The first process of a node: it has network, mount, PID and UTS namespaces of its own, and its end ends the node.
# NODE, STATE (outlives a reboot), RUN (sockets), BIN (Kubernetes programs) come from the environment.
set -euo pipefail

mount --make-rshared /
mount -t proc proc /proc
hostname "$NODE"
# What the components keep at fixed places is this node's own: nothing of it is seen on the host.
mkdir -p /run/containerd /var/lib/cni "$STATE"/{kubelet,log,containerd,volumes,imported}
mount -t tmpfs -o size=16m tmpfs /run/netns
mount -t tmpfs -o size=64m tmpfs /run/containerd
mount -t tmpfs -o size=16m tmpfs /var/lib/cni
mount --bind "$STATE/log" /var/log
mount --bind "$STATE/volumes" /mnt
[ ! -e /etc/resolv.conf ] || mount --bind "$RUN/resolv.conf" /etc/resolv.conf

# Restart a program that ends, as systemd does on other nodes. One that never lasted 5 s, five times in a row, can't run
# here: the node ends, and the last lines of its log are the last ones of this script's.
keep() { # NAME COMMAND...
  local log=$STATE/log/$1.log short=0 began
  : > "$log"
  while :; do
    began=$SECONDS
    "${@:2}" >> "$log" 2>&1 || true
    if ((SECONDS - began >= 5)); then
      short=-1
    elif ((short >= 0 && ++short == 5)); then
      echo "$1 ended $short times as soon as it was started:"
      tail -n 6 "$log"
      return
    fi
    sleep 1
  done
}

keep containerd containerd --config "$RUN/containerd.toml" &
until ctr --address "$RUN/containerd.sock" version > /dev/null 2>&1; do
  kill -0 $! 2> /dev/null || exit
  sleep 0.1
done
for archive in "$IMAGES"/*.tar; do
  stamp=$STATE/imported/$(basename "$archive")
  identity=$(stat --format='%s %Y' "$archive")
  [ "$(cat "$stamp" 2> /dev/null)" = "$identity" ] && continue
  ctr --address "$RUN/containerd.sock" --namespace k8s.io images import "$archive" > /dev/null
  echo "$identity" > "$stamp"
done
keep kube-proxy "$BIN/kube-proxy" --config="$RUN/kube-proxy.yaml" &
# A zone, as a cloud's nodes have one: pods that are to be spread over zones ignore nodes without.
keep kubelet "$BIN/kubelet" --config="$RUN/kubelet.yaml" --kubeconfig="$STATE/kubelet.conf" --root-dir="$STATE/kubelet" \
  --node-labels="topology.kubernetes.io/region=local,topology.kubernetes.io/zone=local-$NODE" \
  --hostname-override="$NODE" --node-ip="$ADDRESS" &
wait -n
