# bench: what is refused, shapes made in memory, and what is printed and written.
. tests/lib.sh
fast="-j 2 -r 1 --only decode --quiet"
expect "neither model nor shape" 2 "give MODEL.. or --shape" "$QDELTA" bench
expect "a task on a shape" 2 "a shape has no tokenizer" "$QDELTA" bench --shape gemma4-e2b --task demo-facts
expect "unknown work, nearest named" 2 "--only decoed: expected prefill, threads.*did you mean decode" "$QDELTA" bench models/demo/bf16 --only decoed
expect "unknown shape, nearest named" 2 "no shape .gemma4-e3b.*did you mean .gemma4-e[24]b" "$QDELTA" bench --shape gemma4-e3b
expect "unknown recipe, nearest named" 2 "no recipe .q4_9.*did you mean .q4_0" "$QDELTA" bench --shape gemma3-270m:q4_9
expect "repeats out of range" 2 "whole number from" "$QDELTA" bench models/demo/bf16 -r 0
for s in gemma4-e2b gemma4-e4b gemma4-12b gemma4-26b-a4b gemma4-31b; do
    expect "$s is a shape" 0 "$s" "$QDELTA" list models
done
expect "a shape cut to one layer" 0 "^gemma3-270m +decode +[0-9.]+ +[0-9.]+ %  (read|int16)" "$QDELTA" bench --shape gemma3-270m:q4_0 --layers 1 $fast
expect "a model, its table and page" 0 "^bf16 +decode" "$QDELTA" bench models/demo/bf16 $fast -o "$work/bench"
check "the table has its columns" grep -q "^model	work	tokens_per_second	items_per_second	share_of_peak	bound_by$" "$work/bench/bench.tsv"
check "one row of data" test "$(wc -l < "$work/bench/bench.tsv")" = 2
check "the page names the machine" grep -q "kernels" "$work/bench/bench.md"
"$QDELTA" bench models/demo/bf16 $fast --prompt-tokens 16 --json > "$work/b.json"
for key in machine peaks peaks_one_thread rows cpu caches kernels act threads int8_gops int16_gops f32_gflops read_gbs model work tokens_per_second share_of_peak bound_by; do
    check "JSON has $key" grep -q "\"$key\":" "$work/b.json"
done
check "a length of its own is measured first" grep -q '"prefill 16"' "$work/b.json"
check "--only leaves the rest out" sh -c "! grep -q 'decode x' '$work/b.json'"
finish
