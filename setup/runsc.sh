#!/bin/sh
# Installs gVisor's runsc, 20240729 or newer: from the release, or from its backports where the release's is older (Debian 12).
# The backports entry is derived from the machine's own apt sources, of either format. `entry CODENAME FILE…` only prints it.
set -eu
OLDEST=20240729

# The first source whose suite is the release itself, with -backports for its suite.
entry() {
  suite=$1; shift
  for file in "$@"; do
    [ -f "$file" ] || continue
    case $file in
    *.sources) found=$(grep -v '^#' "$file" | awk -v suite="$suite" 'BEGIN { RS = ""; FS = "\n" }
      { hit = 0; text = ""
        for (i = 1; i <= NF; i++) { line = $i
          if (line ~ /^Suites:/) { n = split(line, words, /[ \t]+/); for (j = 2; j <= n; j++) if (words[j] == suite) hit = 1; line = "Suites: " suite "-backports" }
          text = text line "\n" }
        if (hit && text !~ /\nEnabled: *no/) { printf "%s", text; exit } }') ;;
    *) found=$(awk -v suite="$suite" '$1 == "deb" { for (i = 2; i <= NF; i++) if ($i == suite) { $i = suite "-backports"; print; exit } }' "$file") ;;
    esac
    [ -z "$found" ] || { printf '%s\n' "$found"; return 0; }
  done
  return 1
}

candidate() { LC_ALL=C apt-cache policy runsc 2>/dev/null | sed -n 's/^ *Candidate:.*~\(20[0-9]\{6\}\).*/\1/p'; }
new_enough() { date=$(candidate); [ -n "$date" ] && [ "$date" -ge $OLDEST ]; }

if [ "${1:-}" = entry ]; then shift; entry "$@"; exit; fi
if runsc --version 2>/dev/null | grep -o '20[0-9]\{6\}' | head -n 1 | { read -r date && [ "$date" -ge $OLDEST ]; }; then exit 0; fi
export DEBIAN_FRONTEND=noninteractive
target=
if ! new_enough; then
  . /etc/os-release
  found=$(entry "$VERSION_CODENAME" /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list) || { echo "no apt source of $VERSION_CODENAME to derive backports from" >&2; exit 1; }
  case $found in deb*) file=holdfast-backports.list ;; *) file=holdfast-backports.sources ;; esac
  printf '%s\n' "$found" >"/etc/apt/sources.list.d/$file"
  apt-get update -qq || { rm -f "/etc/apt/sources.list.d/$file"; echo "this mirror has no $VERSION_CODENAME-backports" >&2; exit 1; }
  target="-t $VERSION_CODENAME-backports"
fi
# shellcheck disable=SC2086  # two words, or none
apt-get install -y -qq --no-install-recommends $target runsc
