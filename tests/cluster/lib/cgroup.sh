# Control groups. A cluster has one folder in each hierarchy, a node one below
# it, which is the root of the node's cgroup namespace: kubelet and containers
# keep within it, and `down` finds every process and every folder there.
# shellcheck shell=bash

CGROUP=scriptscope-$CLUSTER_NAME-$(sha256sum <<<"$DIR" | head -c 8)

cgroup_mounts() { awk '$3 == "cgroup" || $3 == "cgroup2" {print $2}' /proc/self/mounts | sort -u; }

# The hierarchy used to look processes up.
first_cgroup_mount() { cgroup_mounts | head -n 1; }

# make_cgroup MOUNT PATH: with all controllers usable in every folder of PATH.
make_cgroup() {
  local path=$1 part file
  local -a parts
  IFS=/ read -ra parts <<<"$2"
  for part in "${parts[@]}"; do
    delegate_controllers "$path"
    mkdir -p "$path/$part"
    for file in cpuset.cpus cpuset.mems; do
      # Version 1: empty in a new folder, and no process may enter then.
      if [[ -e $path/$part/cgroup.clone_children && -e $path/$part/$file && -z $(<"$path/$part/$file") ]]; then
        cat "$path/$file" >"$path/$part/$file"
      fi
    done
    path+=/$part
  done
}

# Version 2: children have only the controllers that their parent hands on.
delegate_controllers() {
  local controller
  [[ -e $1/cgroup.subtree_control && -e $1/cgroup.controllers ]] || return 0
  for controller in $(<"$1/cgroup.controllers"); do
    { echo "+$controller" >"$1/cgroup.subtree_control"; } 2>/dev/null || true
  done
}

# enter_cgroup PATH [PID]: puts the calling shell there, or PID, in every hierarchy.
enter_cgroup() {
  local mount pid=${2:-$BASHPID}
  for mount in $(cgroup_mounts); do
    make_cgroup "$mount" "$1"
    echo "$pid" >"$mount/$1/cgroup.procs"
  done
}

# For a node, in its own namespaces: mounts the hierarchies anew, so that they
# start at the node's folder.
mount_own_cgroups() {
  local controllers controller name
  if [[ $(stat -f -c %T /sys/fs/cgroup) == cgroup2fs ]]; then
    mount -t sysfs sysfs /sys
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
  else
    mount -t sysfs sysfs /sys
    mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
    while IFS=: read -r _ controllers _; do
      name=${controllers#name=}
      if [[ -z $controllers ]]; then
        mkdir /sys/fs/cgroup/unified
        mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
        continue
      fi
      mkdir "/sys/fs/cgroup/$name"
      [[ $controllers == name=* ]] && controllers=none,$controllers
      # A controller may be known but not mounted on this machine: leave it out then.
      mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$name" || rmdir "/sys/fs/cgroup/$name"
      if [[ $name == *,* ]]; then
        for controller in ${name//,/ }; do ln -s "$name" "/sys/fs/cgroup/$controller"; done
      fi
    done </proc/self/cgroup
  fi
  enter_cgroup init
}

# cgroup_pids [PATH]: processes below the cluster's folder, as this machine numbers them.
cgroup_pids() {
  local folder
  folder=$(first_cgroup_mount)/$CGROUP${1:+/$1}
  [[ -d $folder ]] || return 0
  find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

remove_cgroups() {
  local mount left
  for mount in $(cgroup_mounts); do
    [[ ! -d $mount/$CGROUP ]] || find "$mount/$CGROUP" -depth -type d -exec rmdir {} + 2>/dev/null || left=1
  done
  [[ -z ${left-} ]]
}
