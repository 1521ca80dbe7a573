#!/usr/bin/env bash
# Process 1 of a node: containerd, kubelet and kube-proxy with a /run, /tmp, /var
# and /sys of their own. Usage: node-init.sh N (by control-init.sh).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
for file in common network cgroup component; do
  # shellcheck source=/dev/null
  source "$HERE/lib/$file.sh"
done
set_addresses "$CLUSTER_INDEX"
NUMBER=$1 NAME=node$1 IP=$(node_ip "$1")
STATE=$DIR/$NAME PKI=$DIR/pki RUN=$DIR/run/$NAME LOG=$DIR/log/$NAME
mkdir -p "$STATE" "$RUN" "$LOG"

isolate() {
  hostname "$NAME"
  mount --make-rshared /
  mount_own_cgroups
  mount -t tmpfs -o mode=755 tmpfs /run
  private /tmp "$STATE/tmp" && chmod 1777 /tmp
  private /var "$STATE/var"
  mkdir -p /var/log/pods /var/lib/cni /var/lib/kubelet /var/lib/containerd /var/tmp /run/containerd
  ln -s /run /var/run
}

connect() {
  ip link set lo up
  await_link eth0
  delegate_controllers /sys/fs/cgroup
  ip addr add "$IP/24" dev eth0
  ip link set eth0 up
  sysctl -qw net.ipv4.ip_forward=1
  add_node_routes eth0 "$NUMBER"
  # Never used as such: kube-proxy rewrites the address, but a route must exist before.
  ip route add "$SERVICE_CIDR" dev eth0
}

start_containerd() {
  mkdir -p "$STATE/cni"
  # Point to point links rather than a bridge: all traffic between pods is routed,
  # so services work without bridge netfilter.
  cat >"$STATE/cni/10-pods.conflist" <<TEXT
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local",
   "ranges": [[{"subnet": "$(node_pods "$NUMBER")"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
TEXT
  cat >"$STATE/runsc.toml" <<TEXT
[runsc_config]
  platform = "systrap"
  network = "sandbox"
  ignore-cgroups = "$IGNORE_CGROUPS"
TEXT
  cat >"$STATE/containerd.toml" <<TEXT
version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing"]
[grpc]
  address = "/run/containerd/containerd.sock"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "localhost/pause:1"
[plugins."io.containerd.cri.v1.runtime"]
  disable_apparmor = true
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = ["$BIN"]
  conf_dir = "$STATE/cni"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc]
  runtime_type = "io.containerd.runsc.v1"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runsc.options]
    TypeUrl = "io.containerd.runsc.v1.options"
    ConfigPath = "$STATE/runsc.toml"
TEXT
  component containerd "$BIN/containerd" -c "$STATE/containerd.toml"
}

import_images() {
  local tar
  wait_until 20 "$BIN/ctr" version || die "containerd does not answer: see $LOG/containerd.log"
  for tar in "$IMAGE_DIR"/{pause,python,node,script}.tar; do
    "$BIN/ctr" -n k8s.io images import "$tar" >>"$LOG/images.log"
  done
}

start_kubelet() {
  : >"$STATE/resolv.conf"             # pods ask the cluster's DNS and nothing else
  cat >"$STATE/kubelet.yaml" <<TEXT
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $IP
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $PKI/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $PKI/$NAME.crt
tlsPrivateKeyFile: $PKI/$NAME.key
readOnlyPort: 0
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
clusterDomain: cluster.local
clusterDNS: [$CONTROL_IP]
resolvConf: $STATE/resolv.conf
cgroupDriver: cgroupfs
cgroupsPerQOS: $POD_CGROUPS
enforceNodeAllocatable: [$([[ $POD_CGROUPS == true ]] && echo pods || echo none)]
failCgroupV1: false
failSwapOn: false
oomScoreAdj: 0
localStorageCapacityIsolation: false
evictionHard: {memory.available: "0%", nodefs.available: "0%", imagefs.available: "0%"}
imageGCHighThresholdPercent: 100
containerLogMaxSize: $CONTAINER_LOG_MAX_SIZE
containerLogMaxFiles: 5
containerLogMonitorInterval: 3s
syncFrequency: 10s
nodeStatusUpdateFrequency: 4s
serializeImagePulls: false
registerNode: true
TEXT
  component kubelet "$BIN/kubelet" --config="$STATE/kubelet.yaml" --kubeconfig="$PKI/$NAME.conf" \
    --hostname-override="$NAME" --node-ip="$IP" --root-dir=/var/lib/kubelet
}

start_kube_proxy() {
  cat >"$STATE/kube-proxy.yaml" <<TEXT
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: $PKI/kube-proxy.conf}
mode: iptables
clusterCIDR: $POD_CIDR
hostnameOverride: $NAME
healthzBindAddress: $IP:10256
iptables: {minSyncPeriod: 100ms}
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
TEXT
  component kube-proxy "$BIN/kube-proxy" --config "$STATE/kube-proxy.yaml"
}

isolate
connect
start_containerd
import_images
wait_until 90 test -e "$DIR/run/api-ready" || die "the API server did not come"
start_kubelet
start_kube_proxy
sleep_forever
