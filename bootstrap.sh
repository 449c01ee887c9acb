#!/bin/sh
# bootstrap.sh - from a fresh Debian 12/13 or Ubuntu 24.04 to a built, tested or demonstrated qdelta.
#
#   ./bootstrap.sh deps    install what is missing (as root, or with sudo)
#   ./bootstrap.sh build   deps, then make
#   ./bootstrap.sh test    build, then make test
#   ./bootstrap.sh demo    build, then quantize and score the demonstration model, and write its report
#
# Needs nothing but a POSIX shell and apt-get; a second run installs nothing.
set -eu
cd "$(dirname "$0")"

PACKAGES="gcc libc6-dev make pkg-config git gnuplot-nox libsqlite3-dev libcjson-dev libpcre2-dev libssl-dev
          libcsv-dev libutf8proc-dev libcurl4-openssl-dev libcmocka-dev"

say() { printf 'bootstrap: %s\n' "$*"; }
die() { printf 'bootstrap: %s\n' "$*" >&2; exit 1; }

usage() {
    sed -n 's/^#   //p' "$0"
    exit 2
}

# gcc may stand for any working C11 compiler that is there already.
installed() {
    dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'install ok installed'
}

deps() {
    command -v dpkg-query >/dev/null 2>&1 || {
        say "this is not a Debian-like system; please provide: $(echo $PACKAGES)"
        return 0
    }
    missing=""
    for p in $PACKAGES; do installed "$p" || missing="$missing $p"; done
    [ -n "$missing" ] || { say "everything needed is installed"; return 0; }
    as_root=""
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null 2>&1 || die "missing:$missing; run as root, install sudo, or install these by hand"
        as_root="sudo"
    fi
    say "installing:$missing"
    log=$(mktemp)
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get update >"$log" 2>&1 ||
        { cat "$log" >&2; rm -f "$log"; die "apt-get update failed"; }
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing >"$log" 2>&1 ||
        { cat "$log" >&2; rm -f "$log"; die "apt-get install failed"; }
    rm -f "$log"
    say "installed:$missing"
}

build() {
    deps
    jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
    say "building with $jobs jobs"
    make -s -j"$jobs"
    say "built: build/qdelta, $(build/qdelta --version)"
}

case "${1:-}" in
deps) deps ;;
build) build ;;
test)
    build
    make -s -j"$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)" test
    ;;
demo)
    build
    models/demo/demo.sh
    ;;
*) usage ;;
esac
