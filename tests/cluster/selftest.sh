#!/usr/bin/env bash
# Checks of the test cluster itself, on two clusters of its own (selftest-a and
# selftest-b). One line a check; the last line counts. Under 90 s when built.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${SCRIPTSCOPE_CACHE:-$HOME/.cache/scriptscope}
WORK=$(mktemp -d)
PASSED=0 FAILED=0

on() { CLUSTER_NAME=selftest-$1 NODES=${NODES:-1} "$HERE/cluster" "${@:2}"; }
kubectl_on() { command kubectl --kubeconfig="$CACHE/clusters/selftest-$1/kubeconfig" "${@:2}"; }
trap 'on a down >/dev/null 2>&1; on b down >/dev/null 2>&1; rm -rf "$WORK"' EXIT

# check TEXT COMMAND...: the command's output is shown when it fails.
check() {
  local text=$1
  shift
  if "$@" >"$WORK/output" 2>&1; then
    PASSED=$((PASSED + 1))
    printf 'ok    %4d s  %s\n' "$SECONDS" "$text"
  else
    FAILED=$((FAILED + 1))
    printf 'FAIL  %4d s  %s\n' "$SECONDS" "$text"
    tail -n 15 "$WORK/output" | sed 's/^/              /'
  fi
}

# What a cluster could leave on the machine, without what others have running.
snapshot() {
  echo links; ip -o link show | grep -v ' alias scriptscope:' | sed -E 's/^[0-9]+: ([^:@]+).*/\1/'
  ip -o link show | grep ' alias scriptscope:.*/selftest-' || true
  echo routes; ip route show | grep -v ' dev scope' || true
  echo mounts; grep -v scriptscope- /proc/self/mounts
  # Tables spring into being when looked at; a rule does not.
  echo rules; iptables-save 2>/dev/null | grep '^-A' || true
  echo processes
  local file
  for file in /proc/[0-9]*/cgroup; do
    # What has ended and waits for process 1 of the machine to take note is no remains.
    ! grep -qs '^State:.Z' "${file%cgroup}status" || continue
    if grep -qs scriptscope-selftest "$file"; then echo "in a cgroup of the cluster: $(<"${file%cgroup}comm")"; fi
    if ! grep -qs scriptscope- "$file"; then
      grep -sxE 'etcd|kube.*|containerd.*|coredns|runsc.*|exe' "${file%cgroup}comm" || true
    fi
  done
  echo cgroups; find /sys/fs/cgroup \( -name 'scriptscope-*' -o -name k8s.io -o -name kubepods \) -prune -print |
    grep -v -E '/scriptscope-[^/]*$' || true
  find /sys/fs/cgroup -maxdepth 2 -name 'scriptscope-selftest*'
  echo state; ls -d "$CACHE"/clusters/selftest-* 2>/dev/null || true
}

# retry SECONDS COMMAND...
retry() {
  local end=$((SECONDS + $1))
  shift
  until "$@"; do
    ((SECONDS < end)) || return 1
    sleep 0.2
  done
}

first_address() { kubectl_on "$1" get pod web -o 'jsonpath={.status.podIP}'; }
cluster_address() { kubectl_on "$1" get service web-svc -o 'jsonpath={.spec.clusterIP}'; }
node_address() { kubectl_on "$1" get node node0 -o 'jsonpath={.status.addresses[?(@.type=="InternalIP")].address}'; }
fetch() { [[ $(curl -s --max-time 3 "http://$1/marker") == "from the script" ]]; }
python_fetches() { kubectl_on "$1" exec "$2" -- python3 -c "import urllib.request as u; assert u.urlopen('http://$3/marker', timeout=5).read() == b'from the script'"; }
reports() { [[ $(kubectl_on "$1" get pod "$2" -o "jsonpath=$3") == *$4* ]]; }
no_such_name() {
  kubectl_on "$1" exec web -- timeout 2 python3 -c '
import socket
try: socket.getaddrinfo("a.example.com", 80)
except socket.gaierror as e: assert "not known" in str(e), e
else: raise SystemExit("it has an address")'
}
same() { diff "$1" "$2"; }
is_gvisor() { kubectl_on "$1" exec web -- cat /proc/version | grep -i gvisor; }
recycles() {
  on "$1" up
  retry 5 no_released "$1"
  [[ -z $(find "$CACHE/clusters/selftest-$1/volumes" -type f) ]]
}
no_released() { [[ $(kubectl_on "$1" get pv -o 'jsonpath={.items[*].status.phase}') != *Released* ]]; }
oldest_process() {
  local pid
  for pid in $(pgrep -x unshare); do
    if grep -qs "scriptscope-$1-.*/control" "/proc/$pid/cgroup"; then echo "$pid"; fi
  done | sort -n | head -n 1
}
says() { grep -q "$1" "$WORK/said"; }
not() { ! "$@"; }

snapshot >"$WORK/before"

# --- one cluster
check "up" on a up
PATH=$(on a env | sed -n 's/^export PATH=\([^:]*\):.*/\1/p'):$PATH
check "pods, a service and a claim are accepted" kubectl_on a apply -f "$HERE/manifests/selftest.yaml"
check "pods are ready" kubectl_on a wait --for=condition=Ready pod/web pod/client --timeout=30s
check "RuntimeClass gvisor runs in gVisor" is_gvisor a
check "a service by its DNS name, from a runc pod" retry 5 python_fetches a client web-svc.default.svc.cluster.local
check "a service by its short name, from a gVisor pod, to itself" retry 5 python_fetches a web web-svc
check "a name outside is refused at once" no_such_name a
check "the pod's address, from this machine" fetch "$(first_address a):8080"
check "the service's address, from this machine" fetch "$(cluster_address a)"
check "the node port, from this machine" fetch "$(node_address a):30080"
check "a claim is bound" retry 5 reports a client '{.status.phase}' Running
check "the volume is written by user 65532" kubectl_on a exec client -- python3 -c "import os; assert os.stat('/data/file').st_uid == 65532"
check "kubectl logs of a gVisor pod" retry 5 grep -q 'GET /marker' <(kubectl_on a logs web)
check "its log file, from inside the node" on a exec node0 sh -c 'grep -q marker /var/log/pods/default_web_*/web/0.log'
check "a memory limit is enforced on a gVisor pod" retry 15 reports a hungry '{.status.containerStatuses[0]}' OOMKilled
on a up >"$WORK/said" 2>&1
check "a second up does nothing" says 'already up'
check "pods are deleted" kubectl_on a delete -f "$HERE/manifests/selftest.yaml" --timeout=30s
check "up gives a released volume out again" recycles a

# --- the operator's image
cp "$(command -v uname)" "$WORK/binary"
image=$(SCRIPTSCOPE_IMAGE=$WORK/image.tar on a image-scriptscope "$WORK/binary")
check "an image with a binary is loaded" on a load "$image"
kubectl_on a run operator --image=localhost/scriptscope:dev --restart=Never >/dev/null
check "it runs" retry 10 reports a operator '{.status.phase}' Succeeded

# --- two clusters, one of them with two nodes
check "a second cluster, with two nodes" env NODES=2 bash -c "CLUSTER_NAME=selftest-b '$HERE/cluster' up"
sed '0,/^spec:/s//&\n  nodeName: node1/' "$HERE/manifests/selftest.yaml" | kubectl_on b apply -f - >/dev/null
check "its pods are ready" kubectl_on b wait --for=condition=Ready pod/web pod/client --timeout=30s
check "a pod on node1, from this machine" fetch "$(first_address b):8080"
check "a service on node1, from a pod on another node" retry 5 python_fetches b client web-svc
check "the first cluster still answers" kubectl_on a get nodes
check "the two have different addresses" not test "$(node_address a)" = "$(node_address b)"

# --- the end
on b stop kube-scheduler >/dev/null 2>&1
check "status tells a dead component" not on b status
check "down" on b down
check "down again is harmless" on b down
root=$(oldest_process selftest-a)
check "kill -9 of the root process" kill -9 "$root"
check "down after it" on a down
snapshot >"$WORK/after"
check "nothing is left: links, routes, mounts, rules, processes, cgroups, state" same "$WORK/before" "$WORK/after"

echo "$PASSED passed, $FAILED failed"
((FAILED == 0))
