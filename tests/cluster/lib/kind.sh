# The same verbs on kind, for machines with Docker: CLUSTER=kind.
# shellcheck shell=bash

KIND_NAME=scriptscope-$CLUSTER_NAME

need_kind() {
  have docker || die "CLUSTER=kind needs docker"
  have kind || die "CLUSTER=kind needs kind (https://kind.sigs.k8s.io)"
}

kind_is_up() { kind get clusters 2>/dev/null | grep -qx "$KIND_NAME"; }

kind_up() {
  local config worker node
  need_kind
  verb_images
  if kind_is_up; then
    say "cluster $CLUSTER_NAME is already up (kind)"
    return 0
  fi
  mkdir -p "$DIR"
  config=$DIR/kind-config.yaml
  sed "s|SCRIPTSCOPE_BIN|$(bin_dir)|; s|CONTAINER_LOG_MAX_SIZE|$CONTAINER_LOG_MAX_SIZE|" "$HERE/../../kind-config.yaml" >"$config"
  # A worker is the only node's entry, which ends the file, under another role.
  worker=$(sed -n '/^- role: control-plane/,$p' "$config" | sed 's/control-plane/worker/')
  for ((node = 1; node < NODES; node++)); do printf '%s\n' "$worker" >>"$config"; done
  kind create cluster --name "$KIND_NAME" --config "$config" --kubeconfig "$KUBECONFIG_FILE" --wait 120s
  kube apply -f "$HERE/manifests/runtimeclass.yaml"
  kind_load "$(image_dir)/python.tar"
  kind_load "$(image_dir)/node.tar"
  kind_load "$(image_dir)/script.tar"
}

kind_down() {
  need_kind
  kind delete cluster --name "$KIND_NAME"
  rm -rf "$DIR"
}

kind_load() {
  need_kind
  kind load image-archive --name "$KIND_NAME" "${1:?usage: cluster load IMAGE.tar}"
}

kind_env() { verb_env; }

kind_status() { kube get nodes -o wide; }

# node0 is the control plane's container, node1 and so on the workers.
kind_exec() {
  local node
  (($# >= 2)) || die "usage: cluster exec NODE COMMAND..."
  case $1 in
    node0 | control) node=$KIND_NAME-control-plane ;;
    node1) node=$KIND_NAME-worker ;;
    *) node=$KIND_NAME-worker${1#node} ;;
  esac
  shift
  docker exec -i "$node" "$@"
}
