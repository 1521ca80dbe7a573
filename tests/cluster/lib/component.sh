# Starting components inside the namespaces.
# shellcheck shell=bash

# component NAME COMMAND...: runs it, with its output in $LOG/NAME.log. The
# command is kept, for `cluster start NAME`.
component() {
  local name=$1
  shift
  { printf 'exec '; printf '%q ' "$@"; echo; } >"$RUN/$name.cmd"
  setsid bash "$RUN/$name.cmd" >>"$LOG/$name.log" 2>&1 </dev/null &
}

# Process 1 of a pid namespace: bash reaps orphans while it waits.
sleep_forever() {
  while :; do
    sleep infinity &
    wait $!
  done
}

# An init script that stops without a word is hard to mend.
trap 'say "${BASH_SOURCE[0]##*/}, line $LINENO: failed: $BASH_COMMAND"' ERR

# private DIRECTORY FOLDER: puts FOLDER of the state directory over DIRECTORY.
private() {
  mkdir -p "$2"
  mount --bind "$2" "$1"
}
