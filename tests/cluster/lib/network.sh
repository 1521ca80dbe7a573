# Addresses. A cluster has an index that no other cluster on this machine has:
#   10.(100+index).NODE.0/24  pods of a node      10.(150+index).0.0/16  services
#   10.200.index.0/24         .1 this machine, .2 control plane, .10+N node N
# The link scope<index> is how this machine gets in; every route hangs on it.
# shellcheck shell=bash disable=SC2034

MAX_INDEX=49

set_addresses() {
  INDEX=$1
  LINK=scope$INDEX
  LAN=10.200.$INDEX
  HOST_IP=$LAN.1
  CONTROL_IP=$LAN.2
  POD_CIDR=10.$((100 + INDEX)).0.0/16
  SERVICE_CIDR=10.$((150 + INDEX)).0.0/16
  SERVICE_IP=10.$((150 + INDEX)).0.1      # the service `kubernetes`
  API=https://$CONTROL_IP:6443
}

node_ip() { printf '%s.%d' "$LAN" "$((10 + $1))"; }
node_pods() { printf '10.%d.%d.0/24' "$((100 + INDEX))" "$1"; }

# Links of this cluster, found by their label: works without a state directory.
own_links() { ip -o link show type veth | grep -F " alias scriptscope:$DIR;" | sed -E 's/^[0-9]+: ([^:@]+).*/\1/' || true; }

subnet_is_free() {
  # Routes within the subnet, and routes around it other than the default one.
  [[ -z $(ip -4 route show root "$1") ]] && ! ip -4 route show match "${1%/*}" | grep -qv '^default'
}

# Making the link is what takes the index, so two callers cannot take the same.
create_link() {
  local index subnet
  for ((index = 0; index <= MAX_INDEX; index++)); do
    set_addresses "$index"
    for subnet in "$POD_CIDR" "$SERVICE_CIDR" "$LAN.0/24"; do subnet_is_free "$subnet" || continue 2; done
    ip link add "$LINK" type veth peer name "${LINK}p" 2>/dev/null || continue
    # The semicolon keeps `a` from being taken for the start of `ab`.
    ip link set "$LINK" alias "scriptscope:$DIR;"
    return 0
  done
  die "no free address range for another cluster"
}

# connect_host PID: gives the link's other end to the cluster and sets the routes.
connect_host() {
  ip link set "${LINK}p" netns "$1" name uplink
  ip addr add "$HOST_IP/24" dev "$LINK"
  ip link set "$LINK" up
  add_node_routes "$LINK"
  ip route add "$SERVICE_CIDR" via "$(node_ip 0)" dev "$LINK"
}

# add_node_routes DEVICE [SELF]: the way to the pods of every node but SELF.
add_node_routes() {
  local node
  for ((node = 0; node < NODES; node++)); do
    [[ $node == "${2-}" ]] || ip route add "$(node_pods "$node")" via "$(node_ip "$node")" dev "$1"
  done
}

# await_link NAME: until the other side has given it.
await_link() { wait_until 10 ip link show "$1" || die "the link $1 did not come"; }
