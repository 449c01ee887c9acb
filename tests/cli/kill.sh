# Killed at any moment and said again: the rows of an uninterrupted run.
. tests/lib.sh
need_shared models/stories260K/gguf/stories260K-ffn192-q4_0.gguf
need_shared mmlu/test/abstract_algebra_test.csv
g=$SHARED_DATA/models/stories260K/gguf
# exec, so that the process that is killed is the program itself
start() { exec "$QDELTA" run -m q4_0=$g/stories260K-ffn192-q4_0.gguf -t mmlu,gsm8k --data "$SHARED_DATA" --limit 150 --shots 0 --quiet --db "$1" >/dev/null 2>&1; }
run() { (start "$1"); }
dump() { "$QDELTA" export --db "$1" | sed -E 's/"(elapsed_ns|run|id)": ?[^,}]*,?//g' | grep -v '"type": *"run"' | sort; }
run "$work/whole.db"; dump "$work/whole.db" >"$work/whole.txt"
kills=0 tries=0
while [ $kills -lt 12 ] && [ $tries -lt 60 ]; do
    tries=$((tries + 1))
    start "$work/killed.db" & pid=$!
    sleep "0.$(( (tries * 7919 + 13) % 45 + 3 ))"
    if kill -9 $pid 2>/dev/null; then kills=$((kills + 1)); fi
    wait $pid 2>/dev/null
    [ $kills -ge 10 ] || [ $tries -lt 20 ] || rm -f "$work"/killed.db*
done
check "killed at least 10 times (was $kills)" test $kills -ge 10
run "$work/killed.db"; dump "$work/killed.db" >"$work/killed.txt"
check "rows exist" test -s "$work/whole.txt"
check "rows equal those of an uninterrupted run" cmp "$work/whole.txt" "$work/killed.txt"
start "$work/two.db" & a=$!
start "$work/two.db" & b=$!
wait $a; ra=$?; wait $b; rb=$?
dump "$work/two.db" >"$work/two.txt"
check "two runs into one database end well ($ra, $rb)" test $ra -eq 0 -a $rb -eq 0
check "and leave the rows of one" cmp "$work/whole.txt" "$work/two.txt"
finish
