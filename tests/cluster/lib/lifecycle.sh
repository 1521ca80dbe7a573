# Up, down and load.
# shellcheck shell=bash

VOLUMES=8
FAILED_LOGS=$CLUSTERS/.failed-$CLUSTER_NAME

need_root() { ((EUID == 0)) || die "this verb makes namespaces and links: run it as root"; }

verb_up() {
  need_root
  verb_deps
  verb_build
  verb_images
  with_lock "$CLUSTERS/.locks/$CLUSTER_NAME" up_locked
}

up_locked() {
  local began
  if [[ -e $DIR/ready ]] && is_healthy; then
    recycle_volumes
    say "cluster $CLUSTER_NAME is already up, with $(node_names | wc -l) node(s)"
    return 0
  fi
  if has_remains; then
    say "cluster $CLUSTER_NAME is not whole: cleaning it away first"
    down_locked
  fi
  rm -rf "$FAILED_LOGS"
  began=$(now_ms)
  # Whatever goes wrong from here, nothing of a failed start stays behind but its logs.
  trap 'failed_up' EXIT
  start_cluster
  trap - EXIT
  touch "$DIR/ready"
  say "cluster $CLUSTER_NAME is up: $(seconds_since "$began") s, $API, nodes: $NODES"
}

failed_up() {
  trap - EXIT
  say "cluster $CLUSTER_NAME did not come up; the ends of its logs:"
  tail -n 3 "$DIR"/log/*.log "$DIR"/log/*/*.log >&2 2>/dev/null || true
  rm -rf "$FAILED_LOGS"
  cp -r "$DIR/log" "$FAILED_LOGS" 2>/dev/null && say "whole logs, until the next up or down: $FAILED_LOGS"
  down_locked
}

start_cluster() {
  local bin
  bin=$(bin_dir)
  mkdir -p "$DIR"/{log,run}
  create_link
  make_pki
  (
    enter_cgroup "$CGROUP/control"
    exec env -i PATH="$bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/root LANG=C.UTF-8 \
      SCRIPTSCOPE_CACHE="$SCRIPTSCOPE_CACHE" CLUSTER_NAME="$CLUSTER_NAME" NODES="$NODES" CLUSTER_INDEX="$INDEX" \
      CONTAINER_LOG_MAX_SIZE="$CONTAINER_LOG_MAX_SIZE" BIN="$bin" IMAGE_DIR="$(image_dir)" \
      POD_CGROUPS="${POD_CGROUPS:-true}" IGNORE_CGROUPS="${IGNORE_CGROUPS:-false}" \
      setsid unshare --mount --pid --net --ipc --uts --fork --kill-child --mount-proc bash "$HERE/lib/control-init.sh"
  ) >"$DIR/log/control.log" 2>&1 </dev/null 9>&- &
  wait_until 10 has_init control || die "the namespaces did not come: see $DIR/log/control.log"
  connect_host "$(init_pid control)"
  wait_until 60 api_came_or_died
  [[ -e $DIR/run/api-ready ]] || die "the API server is not ready"
  create_objects
  wait_until 60 nodes_came_or_died || die "the nodes are not ready"
  nodes_live || die "a node has ended"
  wait_until 20 network_is_ready || die "DNS or services are not ready"
  # Pods are refused until the controller has made their account.
  wait_until 20 kube get serviceaccount default || die "the service account 'default' did not come"
}

api_came_or_died() { [[ -e $DIR/run/api-ready ]] || ! has_init control; }

kube() { "$(bin_dir)/kubectl" --kubeconfig="$KUBECONFIG_FILE" "$@"; }

create_objects() {
  { cat "$HERE"/manifests/runtimeclass.yaml; echo ---; cat "$HERE"/manifests/storageclass.yaml; volumes; } |
    kube create --validate=false -f - >>"$DIR/log/objects.log"
}

# Volumes are folders that anyone may write into, the same on every node.
volumes() {
  local number folder
  for ((number = 0; number < VOLUMES; number++)); do
    folder=$DIR/volumes/$number
    mkdir -p "$folder" && chmod 0777 "$folder"
    cat <<TEXT
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: volume-$number}
spec:
  storageClassName: standard
  capacity: {storage: 20Gi}
  accessModes: [ReadWriteOnce, ReadWriteMany]
  persistentVolumeReclaimPolicy: Retain
  hostPath: {path: "$folder", type: Directory}
TEXT
  done
}

# Empties the volumes whose claim is gone and makes them available again.
recycle_volumes() {
  local name
  for name in $(kube get persistentvolumes -o 'jsonpath={range .items[?(@.status.phase=="Released")]}{.metadata.name} {end}'); do
    [[ $name == volume-[0-9] ]] || continue
    find "$DIR/volumes/${name#volume-}" -mindepth 1 -delete
    kube patch persistentvolume "$name" --type=merge -p '{"spec":{"claimRef":null}}' >>"$DIR/log/objects.log"
  done
}

nodes_are_ready() {
  local ready
  ready=$(kube get nodes -o 'jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{" "}{end}')
  [[ $(grep -o True <<<"$ready" | wc -l) == "$NODES" ]]
}

nodes_live() {
  local node
  for ((node = 0; node < NODES; node++)); do has_init "node$node" || return 1; done
}

nodes_came_or_died() { ! nodes_live || nodes_are_ready; }

network_is_ready() {
  local node
  (: <"/dev/tcp/$CONTROL_IP/53") || return 1
  for ((node = 0; node < NODES; node++)); do
    [[ $(curl -s -o /dev/null -w '%{http_code}' --max-time 2 "http://$(node_ip "$node"):10256/healthz") == 200 ]] || return 1
  done
}

has_remains() { [[ -d $DIR || -n $(own_links) || -d $(first_cgroup_mount)/$CGROUP ]]; }

verb_down() {
  need_root
  rm -rf "$FAILED_LOGS"
  with_lock "$CLUSTERS/.locks/$CLUSTER_NAME" down_locked
}

down_locked() {
  local link pid pids
  has_remains || return 0
  # Process 1 takes everything in its pid namespace with it, the nodes' included.
  # Then whatever is still in the cgroups: nothing, unless a start was cut short.
  pid=$(init_pid control)
  [[ -z $pid ]] || kill -9 "$pid" 2>/dev/null || true
  wait_until 5 no_processes || {
    mapfile -t pids < <(cgroup_pids)
    ((${#pids[@]} == 0)) || kill -9 "${pids[@]}" 2>/dev/null || true
    wait_until 10 no_processes || say "processes of $CLUSTER_NAME do not end: $(cgroup_pids | tr '\n' ' ')"
  }
  for link in $(own_links); do ip link del "$link" 2>/dev/null || true; done
  wait_until 10 remove_cgroups || say "some cgroups of $CLUSTER_NAME could not be removed"
  rm -rf "$DIR"
  say "cluster $CLUSTER_NAME is down"
}

no_processes() { [[ -z $(cgroup_pids) ]]; }

verb_load() {
  local tar node
  tar=$(readlink -f "${1:?usage: cluster load IMAGE.tar}")
  [[ -f $tar ]] || die "no such file: $1"
  need_root
  [[ -n $(init_pid node0) ]] || die "cluster $CLUSTER_NAME is not up"
  for node in $(node_names); do
    # From standard input: the node may not see the file (its /tmp is its own).
    inside "$node" "$(bin_dir)/ctr" -n k8s.io images import - <"$tar" >&2
  done
}
