# Names, paths and small functions that every other file uses.
# shellcheck shell=bash disable=SC2034

SCRIPTSCOPE_CACHE=${SCRIPTSCOPE_CACHE:-$HOME/.cache/scriptscope}
CLUSTER_NAME=${CLUSTER_NAME:-dev}
NODES=${NODES:-1}
CONTAINER_LOG_MAX_SIZE=${CONTAINER_LOG_MAX_SIZE:-10Mi}

CLUSTERS=$SCRIPTSCOPE_CACHE/clusters
DIR=$CLUSTERS/$CLUSTER_NAME             # all state of this cluster
IMAGES=$SCRIPTSCOPE_CACHE/images
KUBECONFIG_FILE=$DIR/kubeconfig

say() { printf '%s\n' "$*" >&2; }
die() { say "cluster: $*"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

check_settings() {
  [[ $CLUSTER_NAME =~ ^[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?$ ]] ||
    die "CLUSTER_NAME '$CLUSTER_NAME' must be 1 to 30 lower case letters, digits and inner dashes"
  [[ $NODES =~ ^[1-9]$ ]] || die "NODES '$NODES' must be 1 to 9"
  [[ $SCRIPTSCOPE_CACHE == /* ]] || die "SCRIPTSCOPE_CACHE must be an absolute path"
  case $SCRIPTSCOPE_CACHE/ in
    # A node has a /run, /tmp and /var of its own, so the cache would be out of its sight.
    /run/* | /tmp/* | /var/*) die "SCRIPTSCOPE_CACHE must not lie under /run, /tmp or /var" ;;
  esac
}

now_ms() { local t=${EPOCHREALTIME/[.,]/}; printf '%s' "$((t / 1000))"; }

# seconds_since MS: elapsed time with one decimal.
seconds_since() {
  local ms=$(($(now_ms) - $1))
  printf '%d.%d' "$((ms / 1000))" "$((ms % 1000 / 100))"
}

# wait_until SECONDS COMMAND...: polls every 100 ms; fails when the time is over.
wait_until() {
  local end=$((SECONDS + $1))
  shift
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || return 1
    sleep 0.1
  done
}

# with_lock FILE FUNCTION...: runs it while holding FILE, telling when it has to
# wait. The descriptor is closed to the function's children by the callee where
# they outlive it (`9>&-`).
with_lock() {
  local file=$1
  shift
  mkdir -p "${file%/*}"
  (
    flock -n 9 || { say "waiting for another caller ($file)"; flock 9; }
    "$@"
  ) 9>"$file"
}
