# Builds everything a node runs from pinned Go modules.
# shellcheck shell=bash
#
# A step is a folder under modules/. Its result is kept under a hash of that
# folder and of the function that builds it, so an interrupted build goes on
# where it was and a change of one step rebuilds only that one.

MODULES=$HERE/modules
BUILD_STEPS=(pause cni etcd containerd gvisor kubernetes coredns helm kubeconform)
CONTAINERD_TAGS="no_btrfs no_devmapper no_zfs no_aufs no_tracing"

# All the binaries together; the hash moves with any step.
bin_dir() {
  local hash
  hash=$(cd "$MODULES" && { cat "$HERE/lib/build.sh"; find . -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum)
  printf '%s/bin-%s' "$SCRIPTSCOPE_CACHE" "${hash:0:12}"
}

step_dir() {
  local hash builder=build_tools
  declare -F "build_$1" >/dev/null && builder=build_$1
  hash=$({ declare -f "$builder" go_build; echo "$CONTAINERD_TAGS"; cd "$MODULES/$1" && find . -type f -print0 | sort -z | xargs -0 sha256sum; } | sha256sum)
  printf '%s/built/%s-%s' "$SCRIPTSCOPE_CACHE" "$1" "${hash:0:12}"
}

# go_build OUT ARGUMENTS...
go_build() {
  local out=$1
  shift
  CGO_ENABLED=0 GOFLAGS="-buildvcs=false ${GOFLAGS-}" go build -trimpath -o "$out/" "$@"
}

# The tool lines of a go.mod name what to build.
build_tools() { go_build "$1" -ldflags "-s -w" tool; }

build_pause() { go_build "$1" -ldflags "-s -w" .; }

build_etcd() {
  build_tools "$1"
  mv "$1/server" "$1/etcd"
}

build_containerd() { go_build "$1" -ldflags "-s -w" -tags "$CONTAINERD_TAGS" tool; }

# Without a version the API server calls itself v0.0.0 and charts refuse it.
build_kubernetes() {
  local version package flags="-s -w"
  version=$(go list -m -f '{{.Version}}' k8s.io/kubernetes)
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=$(cut -d. -f2 <<<"$version")"
    flags+=" -X $package.gitTreeState=clean -X $package.gitCommit=0000000 -X $package.buildDate=2026-01-01T00:00:00Z"
  done
  go_build "$1" -ldflags "$flags" tool
}

# The shim gives itself oom_score_adj -999 and fails where CAP_SYS_RESOURCE is
# missing; 0 works everywhere. The module cache is read-only and -overlay does
# not reach into it, so the source is vendored into a scratch copy and patched.
build_gvisor() {
  local work=$1.src patched=vendor/gvisor.dev/gvisor/pkg/shim/v1/manager.go
  rm -rf "$work" && cp -r . "$work" && cd "$work"
  go mod vendor
  grep -q 'oomScoreMax = -999' "$patched" || die "gVisor's $patched changed: look at the patch in build_gvisor"
  sed -i 's/oomScoreMax = -999/oomScoreMax = 0/' "$patched"
  go_build "$1" -mod=vendor -ldflags "-s -w" tool
  mv "$1/shim" "$1/containerd-shim-runsc-v1"
  rm -rf "$work"
}

build_step() {
  local step=$1 out builder=build_tools began status
  out=$(step_dir "$step")
  [[ ! -d $out ]] || return 0
  declare -F "build_$step" >/dev/null && builder=build_$step
  began=$(now_ms)
  printf 'build  %-12s' "$step" >&2
  rm -rf "$out.part" && mkdir -p "$out.part"
  # Not `if ! (...)`: bash ignores `set -e` inside anything under a condition.
  set +e
  (set -e; cd "$MODULES/$step"; "$builder" "$out.part") >"$out.log" 2>&1
  status=$?
  set -e
  if ((status)); then
    say " failed"
    tail -n 20 "$out.log" >&2
    die "building $step failed; the whole output is in $out.log"
  fi
  mv "$out.part" "$out"
  say " $(seconds_since "$began") s"
}

build_all() {
  local bin step part
  bin=$(bin_dir)
  [[ ! -d $bin ]] || return 0
  have go || die "building needs Go 1.21 or newer in PATH (it fetches the version that the modules ask for)"
  for step in "${BUILD_STEPS[@]}"; do build_step "$step"; done
  part=$bin.part
  rm -rf "$part" && mkdir -p "$part"
  for step in "${BUILD_STEPS[@]}"; do ln -f "$(step_dir "$step")"/* "$part/"; done
  mv "$part" "$bin"
  say "build  done: $bin"
}

verb_build() {
  [[ ! -d $(bin_dir) ]] || return 0
  with_lock "$SCRIPTSCOPE_CACHE/build.lock" build_all
}
