#!/bin/sh
# Run every unit test program given, then every tests/cli/*.sh; one closing line "N passed, N failed, N skipped".
# A cli script prints "ok NAME", "FAIL NAME: why" or "skip NAME: why" lines; unit programs are cmocka's.
cd "$(dirname "$0")/.." || exit 1
BUILD=${BUILD:-build}; export BUILD
QDELTA="$PWD/$BUILD/qdelta"; export QDELTA
SHARED_DATA=${SHARED_DATA:-$PWD/../shared/data}; export SHARED_DATA
log=$BUILD/tests/log; mkdir -p "$BUILD/tests"
passed=0 failed=0 skipped=0
for t in "$@"; do
    echo "== $t"
    "$t" >"$log" 2>&1; rc=$?
    p=$(grep -c '^\[       OK \]' "$log"); f=$(grep -c '^\[  FAILED  \] [a-zA-Z0-9_]*$' "$log"); s=$(grep -c '^\[  SKIPPED \]' "$log")
    [ $rc -ne 0 ] && [ "$f" -eq 0 ] && f=1
    grep -E '^(skip|note)[: ]' "$log"
    [ $rc -ne 0 ] && cat "$log"
    passed=$((passed + p)); failed=$((failed + f)); skipped=$((skipped + s))
done
for t in tests/cli/*.sh; do
    [ -e "$t" ] || continue
    echo "== $t"
    sh "$t" >"$log" 2>&1; rc=$?
    grep -E '^(ok|FAIL|skip|note)[: ]' "$log"
    p=$(grep -c '^ok ' "$log"); f=$(grep -c '^FAIL ' "$log"); s=$(grep -c '^skip ' "$log")
    if [ $rc -ne 0 ] && [ "$f" -eq 0 ]; then f=1; cat "$log"; fi
    passed=$((passed + p)); failed=$((failed + f)); skipped=$((skipped + s))
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed -eq 0 ] && [ $passed -gt 0 ]
