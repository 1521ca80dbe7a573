# Looking into a cluster from outside. Nothing here trusts a pid file: processes
# are found by their cgroup, so a number used again cannot mislead.
# shellcheck shell=bash

# Where the processes of `control` or a node are, below the cluster's cgroup.
place() { [[ $1 == control ]] && echo control || echo "$1/init"; }

place_pids() {
  local file
  file=$(first_cgroup_mount)/$CGROUP/$(place "$1")/cgroup.procs
  [[ ! -e $file ]] || cat "$file"
}

# init_pid PLACE: its process 1, as this machine numbers it.
init_pid() {
  local pid
  for pid in $(place_pids "$1"); do
    if [[ $(grep -s ^NSpid: "/proc/$pid/status") =~ [[:space:]]1$ ]]; then
      echo "$pid"
      return 0
    fi
  done
}

has_init() { [[ -n $(init_pid "$1") ]]; }

# component_pid PLACE NAME
component_pid() {
  local pid comm
  for pid in $(place_pids "$1"); do
    comm=
    { read -r comm <"/proc/$pid/comm"; } 2>/dev/null || true
    [[ $comm == "${2:0:15}" ]] && echo "$pid"
  done
  return 0
}

node_names() {
  local folder
  for folder in "$DIR"/run/node[0-9]; do [[ ! -d $folder ]] || basename "$folder"; done
}

# All components as place/name.
components() {
  local file
  for file in "$DIR"/run/*/*.cmd; do
    [[ ! -e $file ]] || { file=${file#"$DIR/run/"} && echo "${file%.cmd}"; }
  done
}

is_healthy() {
  local entry all
  all=$(components)
  [[ -n $all ]] || return 1
  for entry in $all; do
    [[ -n $(component_pid "${entry%/*}" "${entry#*/}") ]] || return 1
  done
  [[ $(kube get --raw=/readyz --request-timeout=5s 2>/dev/null) == ok ]] || return 1
}

# inside PLACE COMMAND...: in its namespaces.
inside() {
  local pid
  pid=$(init_pid "$1")
  [[ -n $pid ]] || die "there is no $1 in cluster $CLUSTER_NAME (is it up?)"
  shift
  nsenter --target "$pid" --mount --pid --net --ipc --uts --cgroup -- "$@"
}

verb_exec() {
  (($# >= 2)) || die "usage: cluster exec NODE COMMAND..."
  need_root
  local where=$1
  shift
  # In the node's cgroup, so that `down` ends what runs here too.
  [[ -z $(init_pid "$where") ]] || enter_cgroup "$CGROUP/$(place "$where")"
  export PATH
  PATH=$(bin_dir):$PATH
  inside "$where" "$@"
}

# find_component NAME: `kubelet` means node0/kubelet, `etcd` control/etcd.
find_component() {
  local entry
  for entry in $(components); do
    if [[ $entry == "$1" || ${entry#*/} == "$1" || ${entry#*/kube-} == "$1" ]]; then
      echo "$entry"
      return 0
    fi
  done
  die "no component $1; there are: $(components | tr '\n' ' ')"
}

verb_stop() {
  local entry pid
  need_root
  entry=$(find_component "${1:?usage: cluster stop COMPONENT}")
  pid=$(component_pid "${entry%/*}" "${entry#*/}")
  [[ -n $pid ]] || { say "$entry does not run"; return 0; }
  kill "$pid"
  wait_until 5 test ! -d "/proc/$pid" || kill -9 "$pid"
  say "$entry stopped"
}

verb_start() {
  local entry
  need_root
  entry=$(find_component "${1:?usage: cluster start COMPONENT}")
  [[ -z $(component_pid "${entry%/*}" "${entry#*/}") ]] || { say "$entry runs already"; return 0; }
  (verb_exec "${entry%/*}" setsid --fork bash "$DIR/run/$entry.cmd") >>"$DIR/log/$entry.log" 2>&1 </dev/null
  say "$entry started"
}

verb_env() {
  [[ -e $KUBECONFIG_FILE ]] || die "cluster $CLUSTER_NAME is not up"
  # shellcheck disable=SC2016  # $PATH is for the shell that evaluates this
  printf 'export KUBECONFIG=%q\nexport PATH=%q:$PATH\n' "$KUBECONFIG_FILE" "$(bin_dir)"
}

verb_status() {
  local entry pid
  [[ -d $DIR ]] || { echo "cluster $CLUSTER_NAME: down"; return 1; }
  for entry in $(components); do
    pid=$(component_pid "${entry%/*}" "${entry#*/}")
    if [[ -n $pid ]]; then pid="process $pid"; fi
    printf '%-34s %s\n' "$entry" "${pid:-DEAD}"
  done
  kube get nodes -o wide --request-timeout=5s || true
  if is_healthy; then echo "cluster $CLUSTER_NAME: up"; else echo "cluster $CLUSTER_NAME: not whole"; return 1; fi
}

verb_logs() {
  local entry
  if (($#)); then
    entry=$(find_component "$1")
    cat "$DIR/log/$entry.log"
  else
    components
  fi
}

# What tests of the chart need without a cluster: its tools, and the API's schema.
build_chart_tools() { local step; for step in helm kubeconform; do build_step "$step"; done; }

verb_chart_tools() {
  have go || die "building needs Go 1.21 or newer in PATH (it fetches the version that the modules ask for)"
  with_lock "$SCRIPTSCOPE_CACHE/build.lock" build_chart_tools
  local module
  module=$(cd "$MODULES/kubernetes" && go mod download -json k8s.io/kubernetes | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
  printf 'export PATH=%q:%q:"$PATH"\n' "$(step_dir helm)" "$(step_dir kubeconform)"
  printf 'export KUBERNETES_OPENAPI=%q\n' "$module/api/openapi-spec/swagger.json"
}
