#!/usr/bin/env bash
# Process 1 of a cluster, in namespaces of its own: the control plane, and the
# bridge between this machine and the nodes. Its end is the end of everything.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for file in common network cgroup component; do
  # shellcheck source=/dev/null
  source "$HERE/lib/$file.sh"
done
set_addresses "$CLUSTER_INDEX"
PKI=$DIR/pki RUN=$DIR/run/control LOG=$DIR/log/control
mkdir -p "$RUN" "$LOG"

connect() {
  ip link set lo up
  ip link add lan type bridge
  ip addr add "$CONTROL_IP/24" dev lan
  ip link set lan up
  await_link uplink
  ip link set uplink master lan
  ip link set uplink up
  # The API server reaches pods and services too, for webhooks.
  add_node_routes lan
  ip route add "$SERVICE_CIDR" via "$(node_ip 0)" dev lan
}

# start_node N: in namespaces below these.
start_node() {
  local node=$1 parent
  (
    enter_cgroup "$CGROUP/node$node"
    exec setsid unshare --mount --pid --net --ipc --uts --cgroup --fork --kill-child --mount-proc \
      bash "$HERE/lib/node-init.sh" "$node"
  ) >"$DIR/log/node$node.log" 2>&1 </dev/null &
  parent=$!
  has_own_network() { [[ $(readlink "/proc/$parent/ns/net") != "$(readlink /proc/self/ns/net)" ]]; }
  wait_until 10 has_own_network || die "node$node did not start"
  # The waiting parent too: in version 2 a folder that hands controllers on, as the
  # node's does, may hold no process. The node goes on when it sees its link.
  enter_cgroup "$CGROUP/node$node/init" "$parent"
  ip link add "node$node" type veth peer name "node${node}p"
  ip link set "node${node}p" netns "$parent" name eth0
  ip link set "node$node" master lan
  ip link set "node$node" up
}

start_api() {
  component etcd "$BIN/etcd" --data-dir "$DIR/etcd" --unsafe-no-fsync --log-level warn \
    --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
    --listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 \
    --initial-cluster default=http://127.0.0.1:2380
  component kube-apiserver "$BIN/kube-apiserver" --etcd-servers=http://127.0.0.1:2379 \
    --bind-address=0.0.0.0 --advertise-address="$CONTROL_IP" --secure-port=6443 \
    --service-cluster-ip-range="$SERVICE_CIDR" --allow-privileged \
    --tls-cert-file="$PKI/apiserver.crt" --tls-private-key-file="$PKI/apiserver.key" --client-ca-file="$PKI/ca.crt" \
    --service-account-issuer=https://kubernetes.default.svc.cluster.local \
    --service-account-key-file="$PKI/sa.pub" --service-account-signing-key-file="$PKI/sa.key" \
    --kubelet-client-certificate="$PKI/kubelet-client.crt" --kubelet-client-key="$PKI/kubelet-client.key" \
    --kubelet-certificate-authority="$PKI/ca.crt" --kubelet-preferred-address-types=InternalIP \
    --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --profiling=false
}

api_is_ready() { [[ $(curl -sk --max-time 2 "https://127.0.0.1:6443/readyz") == ok ]]; }

start_controllers() {
  component kube-controller-manager "$BIN/kube-controller-manager" --kubeconfig="$PKI/kube-controller-manager.conf" \
    --leader-elect=false --use-service-account-credentials --service-account-private-key-file="$PKI/sa.key" \
    --root-ca-file="$PKI/ca.crt" --kube-api-qps=200 --kube-api-burst=400 --profiling=false \
    --node-monitor-period=2s --node-monitor-grace-period=20s \
    --controllers='*,-node-ipam-controller,-node-route-controller,-service-lb-controller,-cloud-node-lifecycle-controller'
  component kube-scheduler "$BIN/kube-scheduler" --kubeconfig="$PKI/kube-scheduler.conf" --leader-elect=false \
    --kube-api-qps=200 --kube-api-burst=400 --profiling=false
}

start_dns() {
  cat >"$DIR/run/Corefile" <<TEXT
cluster.local:53 in-addr.arpa:53 {
    bind $CONTROL_IP
    errors
    kubernetes cluster.local in-addr.arpa {
        kubeconfig $PKI/coredns.conf
        pods insecure
        ttl 2
    }
    cache 2
}
# A quick no to the rest of the world. Not in the block above: there the answer
# would come before the one of the cluster.
.:53 {
    bind $CONTROL_IP
    template ANY ANY {
        rcode NXDOMAIN
    }
}
TEXT
  component coredns "$BIN/coredns" -conf "$DIR/run/Corefile"
}

connect
start_api
for ((node = 0; node < NODES; node++)); do start_node "$node"; done
wait_until 60 api_is_ready || die "the API server is not ready after 60 s: see $LOG"
touch "$DIR/run/api-ready"            # what the nodes wait for
start_controllers
start_dns
sleep_forever
