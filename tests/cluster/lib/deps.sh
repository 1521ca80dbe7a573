# What the machine must have.
# shellcheck shell=bash

# command=Debian package
DEPENDENCIES=(
  runc=runc iptables=iptables ip=iproute2 sysctl=procps mmdebstrap=mmdebstrap openssl=openssl curl=curl
  npm=npm unshare=util-linux nsenter=util-linux flock=util-linux mount=mount tar=tar setsid=util-linux
)

missing_dependencies() {
  local entry
  for entry in "${DEPENDENCIES[@]}"; do
    have "${entry%=*}" || printf '%s\n' "${entry#*=}"
  done | sort -u
  [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates
}

verb_deps() {
  local missing
  mapfile -t missing < <(missing_dependencies)
  if ((${#missing[@]})); then
    if ! have apt-get || ((EUID)); then
      die "missing: ${missing[*]} (Debian package names; as root on Debian this verb installs them)"
    fi
    say "deps   installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq >&2 || say "deps   apt-get update failed, trying with the lists that are there"
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
      die "could not install: ${missing[*]}"
  fi
  # Debian 12's Go is too old to fetch the toolchain that the modules ask for.
  if [[ ! -d $(bin_dir) ]] && ! have go; then
    die "missing: go (1.21 or newer, https://go.dev/dl), to build the binaries once"
  fi
}
