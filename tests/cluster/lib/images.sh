# Container images as docker-archive tars, made without Docker.
# shellcheck shell=bash

SOURCE_DATE_EPOCH=1767225600            # 2026-01-01, the time stamp of everything in an image
LEAN=(doc man locale info lintian bug perl5 bash-completion debconf)  # folders of /usr/share that nobody needs
BASE_PACKAGES=base-files,libc6,libgcc-s1,ca-certificates,tzdata
PYTHON_PACKAGES=base-files,dash,coreutils,grep,sed,tar,libc6,ca-certificates,python3-minimal,libpython3-stdlib,python3-pip

NODE_PACKAGES=base-files,dash,coreutils,grep,sed,tar,libc6,libstdc++6,ca-certificates
NODE_VERSION=24.21.0                    # Debian 12 has none that is new enough, so it comes from a package of npm's
NPM_VERSION=11.6.2

# The release whose packages are used, and the host's own apt sources for it.
apt_suite() { (. /etc/os-release && printf '%s' "${VERSION_CODENAME:?the release has no code name}"); }

apt_sources() { grep -lsE "^[^#]*\b$(apt_suite)\b" /etc/apt/sources.list /etc/apt/sources.list.d/*.{list,sources} || true; }

# rootfs OUT.tar PACKAGES: unpacks the packages and their dependencies without
# running their scripts, which is all that a container needs and takes seconds.
rootfs() {
  local out=$1 packages=$2 sources options=() line
  mapfile -t sources < <(apt_sources)
  ((${#sources[@]})) || die "no apt sources for Debian $(apt_suite) under /etc/apt"
  # Proxies, validity checks and the like as this machine has them.
  while IFS= read -r line; do options+=("--aptopt=$line"); done < <(apt-config dump Acquire | grep -E '"[^"]+";$')
  # shellcheck disable=SC2016  # the hooks expand $1 themselves
  SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH mmdebstrap --quiet --variant=extract --include="$packages" "${options[@]}" \
    --extract-hook='cd "$1" && rm -rf var/log/* usr/lib/*/gconv '"${LEAN[*]/#/usr/share/}" \
    --extract-hook='cat "$1"/usr/share/ca-certificates/mozilla/*.crt >"$1/etc/ssl/certs/ca-certificates.crt"' \
    --extract-hook='printf "root:x:0:0:root:/root:/bin/sh\nnonroot:x:65532:65532:nonroot:/home/nonroot:/bin/sh\n" >"$1/etc/passwd"' \
    --extract-hook='printf "root:x:0:\nnonroot:x:65532:\n" >"$1/etc/group"' \
    --extract-hook='mkdir -p "$1/home/nonroot" "$1/root" "$1/tmp" && chown 65532:65532 "$1/home/nonroot" && chmod 1777 "$1/tmp"' \
    --extract-hook='rm -rf "$1"/etc/resolv.conf "$1"/etc/hostname' \
    "$(apt_suite)" "$out" "${sources[@]}"
}

# node_binary FOLDER: Node itself, as FOLDER/node. npm checks the package against its registry's checksum.
node_binary() {
  local package=node-linux-$(node_arch)@$NODE_VERSION folder=$1 archive
  mkdir -p "$folder"
  archive=$(cd "$folder" && npm pack --silent --ignore-scripts "$package") || die "npm could not fetch $package"
  tar -xzf "$folder/$archive" -C "$folder" --strip-components=2 package/bin/node
  rm "$folder/$archive"
}

# npm_layer OUT.tar FOLDER: npm itself, where the image of Node's own makers has it.
npm_layer() {
  local out=$1 folder=$2 archive modules=$2/usr/local/lib/node_modules/npm
  mkdir -p "$modules" "$folder/usr/local/bin"
  archive=$(cd "$folder" && npm pack --silent --ignore-scripts "npm@$NPM_VERSION") || die "npm could not fetch itself"
  tar -xzf "$folder/$archive" -C "$modules" --strip-components=1
  rm -r "$folder/$archive" "$modules/docs" "$modules/man"
  chmod 755 "$modules/bin/npm-cli.js"
  ln -s ../lib/node_modules/npm/bin/npm-cli.js "$folder/usr/local/bin/npm"
  tar -cf "$out" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 -C "$folder" usr
}

node_arch() { case $(uname -m) in x86_64) echo x64 ;; aarch64) echo arm64 ;; *) die "no Node for $(uname -m)" ;; esac; }

# archive OUT.tar NAME CONFIG LAYER.tar...: a docker-archive; CONFIG is the inner
# part of the image's "config" object. Layers are linked, not copied, before tar.
archive() {
  local out=$1 name=$2 config=$3 layer hash ids="" names="" work
  shift 3
  work=$(mktemp -d "$out.XXXXXX")
  for layer; do
    hash=$(sha256sum "$layer") hash=${hash%% *}
    ln -f "$layer" "$work/$hash.tar"
    ids+="${ids:+,}\"sha256:$hash\"" names+="${names:+,}\"$hash.tar\""
  done
  printf '{"architecture":"%s","os":"linux","created":"2026-01-01T00:00:00Z","config":{%s},"rootfs":{"type":"layers","diff_ids":[%s]}}' \
    "$(go_arch)" "$config" "$ids" >"$work/config"
  hash=$(sha256sum "$work/config") hash=${hash%% *}
  mv "$work/config" "$work/$hash.json"
  printf '[{"Config":"%s.json","RepoTags":["%s"],"Layers":[%s]}]' "$hash" "$name" "$names" >"$work/manifest.json"
  tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 -cf "$out.part" .
  mv "$out.part" "$out"
  rm -rf "$work"
}

go_arch() { case $(uname -m) in x86_64) echo amd64 ;; aarch64) echo arm64 ;; *) uname -m ;; esac; }

# layer OUT.tar FILE PATH: one executable at PATH.
layer() {
  tar -cf "$1" --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --mode=0755 -h \
    --transform "s|.*|${3#/}|" -C "$(dirname "$2")" "$(basename "$2")"
}

# The recipe: this file, the sources and the release. Packages that move on in
# the archive do not make an image stale; `rm` the cache's images for that.
image_dir() {
  local hash
  hash=$({ cat "$HERE/lib/images.sh"; apt_suite; } | sha256sum)
  printf '%s/%s' "$IMAGES" "${hash:0:12}"
}

make_images() {
  local dir part began
  dir=$(image_dir)
  [[ ! -d $dir ]] || return 0
  part=$dir.part
  rm -rf "$part" && mkdir -p "$part"
  began=$(now_ms)
  layer "$part/pause.layer" "$(bin_dir)/pause" /pause
  archive "$part/pause.tar" localhost/pause:1 '"Entrypoint":["/pause"],"User":"65535:65535"' "$part/pause.layer"
  say "image  localhost/pause:1 $(seconds_since "$began") s"

  began=$(now_ms)
  rootfs "$part/base.layer.tar" "$BASE_PACKAGES"
  archive "$part/scriptscope-base.tar" localhost/scriptscope-base:latest '"Env":["PATH=/usr/local/bin:/usr/bin:/bin"]' "$part/base.layer.tar"
  say "image  localhost/scriptscope-base $(seconds_since "$began") s"

  began=$(now_ms)
  rootfs "$part/python.layer.tar" "$PYTHON_PACKAGES"
  archive "$part/python.tar" localhost/python:3.11 '"Env":["PATH=/usr/local/bin:/usr/bin:/bin","LANG=C.UTF-8"],"Cmd":["python3"]' "$part/python.layer.tar"
  [[ $(tar -tf "$part/python.layer.tar") == *usr/bin/python3.11* ]] ||
    say "image  warning: this Debian's Python is not 3.11, whatever the name of the image says"
  say "image  localhost/python:3.11 $(seconds_since "$began") s"

  began=$(now_ms)
  rootfs "$part/node.layer.tar" "$NODE_PACKAGES"
  node_binary "$part/node"
  layer "$part/node.binary.tar" "$part/node/node" /usr/local/bin/node
  npm_layer "$part/node.npm.tar" "$part/npm"
  archive "$part/node.tar" "localhost/node:${NODE_VERSION%%.*}" '"Env":["PATH=/usr/local/bin:/usr/bin:/bin","LANG=C.UTF-8"],"Cmd":["node"]' \
    "$part/node.layer.tar" "$part/node.binary.tar" "$part/node.npm.tar"
  say "image  localhost/node:${NODE_VERSION%%.*} $(seconds_since "$began") s"
  # The same with a script in it.
  printf 'def word():\n    return "from the image"\n' >"$part/main.py"
  layer "$part/script.layer" "$part/main.py" /app/main.py
  archive "$part/script.tar" localhost/script:1 '"Env":["PATH=/usr/local/bin:/usr/bin:/bin","LANG=C.UTF-8"],"Cmd":["python3"]' \
    "$part/python.layer.tar" "$part/script.layer"
  rm -rf "$part/pause.layer" "$part/python.layer.tar" "$part/node.layer.tar" "$part/node.binary.tar" "$part/node" \
    "$part/node.npm.tar" "$part/npm" \
    "$part/script.layer" "$part/main.py"
  mv "$part" "$dir"
}

verb_images() {
  verb_build
  [[ -d $(image_dir) ]] || with_lock "$SCRIPTSCOPE_CACHE/images.lock" make_images
}

# Writes the image's tar to stdout's path: base layer plus the binary.
verb_image_scriptscope() {
  local binary=${1:?usage: cluster image-scriptscope BINARY} dir out
  [[ -f $binary ]] || die "no such file: $binary"
  verb_images
  dir=$(image_dir)
  out=${SCRIPTSCOPE_IMAGE:-$IMAGES/scriptscope.tar}
  local layer
  layer=$(mktemp "$IMAGES/scriptscope.XXXXXX")
  layer "$layer" "$binary" /usr/local/bin/scriptscope
  archive "$out" localhost/scriptscope:dev \
    '"Env":["PATH=/usr/local/bin:/usr/bin:/bin"],"User":"65532:65532","Entrypoint":["/usr/local/bin/scriptscope"]' \
    "$dir/base.layer.tar" "$layer"
  rm -f "$layer"
  printf '%s\n' "$out"
}
