# lib.sh - sourced by tests/cli/*.sh: a scratch folder and the words that run.sh counts.
: "${QDELTA:=build/qdelta}"
: "${SHARED_DATA:=../shared/data}"
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
bad=0

ok() { echo "ok $1"; }
wrong() { echo "FAIL $1: $2"; bad=1; }
skip() { echo "skip $1: $2"; }

# check NAME CONDITION-COMMAND...: ok when the command succeeds.
check() {
    name=$1; shift
    if "$@" >"$work/check.out" 2>&1; then ok "$name"; else wrong "$name" "$(tail -n 3 "$work/check.out" | tr '\n' ' ')"; fi
}

# expect NAME EXIT PATTERN COMMAND...: the exit code and an extended regex that must match stdout + stderr.
expect() {
    name=$1 want=$2 pattern=$3; shift 3
    "$@" >"$work/out" 2>"$work/err" </dev/null; got=$?
    cat "$work/out" "$work/err" >"$work/both"
    if [ $got -ne "$want" ]; then
        wrong "$name" "exit $got, expected $want: $(head -c 300 "$work/both" | tr '\n' ' ')"
    elif ! grep -Eq -- "$pattern" "$work/both"; then
        wrong "$name" "no match for /$pattern/ in: $(head -c 400 "$work/both" | tr '\n' ' ')"
    else
        ok "$name"
    fi
}
need_shared() { [ -e "$SHARED_DATA/$1" ] || { skip "$(basename "$0" .sh)" "$SHARED_DATA/$1 is not here"; exit 0; }; }
finish() { exit $bad; }
