#!/bin/sh
# What the tests and benchmarks against real peers need: the npm packages of this directory, and two Python environments of their own
# under build/ (mcp 1.x beside the project's 2.x; mitmproxy for the benchmark). Quick when all of it is there.
# Usage: tests/real/setup.sh [npm|mcp1|mitm]…   (without words: all)
set -eu
cd "$(dirname "$0")/../.."
mkdir -p build

say() { printf 'holdfast: %s\n' "$1"; }

# done_for NAME TEXT: whether build/.real-NAME holds this text already.
done_for() { [ -f "build/.real-$1" ] && [ "$(cat "build/.real-$1")" = "$2" ]; }

npm_packages() {
    lock=$(sha256sum tests/real/package-lock.json | cut -d' ' -f1)
    if done_for npm "$lock" && [ -d tests/real/node_modules/@modelcontextprotocol/sdk ]; then return; fi
    if ! command -v npm >/dev/null; then
        say "npm is missing: the npm clients and servers will be skipped (apt-get install npm)" >&2
        return
    fi
    say "installing the npm clients and servers of tests/real"
    npm ci --prefix tests/real --no-audit --no-fund --loglevel=error >build/npm.log 2>&1 || { cat build/npm.log >&2; exit 1; }
    printf %s "$lock" >build/.real-npm
}

# environment NAME REQUIREMENT: a venv build/venv-NAME with one package.
environment() {
    if done_for "$1" "$2" && [ -x "build/venv-$1/bin/python" ]; then return; fi
    say "installing $2 into build/venv-$1"
    rm -rf "build/venv-$1"
    /usr/bin/python3 -m venv "build/venv-$1"
    "build/venv-$1/bin/pip" install --disable-pip-version-check -q "$2" >"build/venv-$1.log" 2>&1 || { cat "build/venv-$1.log" >&2; exit 1; }
    printf %s "$2" >"build/.real-$1"
}

[ $# -gt 0 ] || set -- npm mcp1 mitm
for what in "$@"; do
    case $what in
        npm) npm_packages ;;
        mcp1) environment mcp1 "mcp>=1.27,<2" ;;
        mitm) environment mitm "mitmproxy>=11,<13" ;;
        *) say "unknown: $what" >&2; exit 2 ;;
    esac
done
