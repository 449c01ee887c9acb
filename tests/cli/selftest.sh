# The same bits for every setting on the files at hand, and the parts that need no model.
. tests/lib.sh
expect "selftest" 0 "selftest: [0-9]+ passed, 0 failed" "$QDELTA" selftest
# 1200 ids, 4 bytes each: 30 sequences of 40 side by side (two windows), against each alone
i=0; while [ $i -lt 1200 ]; do printf "\\$(printf %03o $((3 + i * 7 % 250)))\\0\\0\\0"; i=$((i + 1)); done >"$work/ids.i32"
check "logits of many sequences" "$QDELTA" logits models/demo/bf16 --ids "$work/ids.i32" --seq 40 -o "$work/many.f32"
i=0; while [ $i -lt 30 ]; do
    dd if="$work/ids.i32" bs=160 skip=$i count=1 of="$work/one.i32" 2>/dev/null
    "$QDELTA" logits models/demo/bf16 --ids "$work/one.i32" -o "$work/one.f32" && cat "$work/one.f32"; i=$((i + 1))
done >"$work/each.f32"
check "side by side: the bits of each alone" cmp "$work/many.f32" "$work/each.f32"
need_shared models/stories260K/gguf/stories260K-ffn192-q4_0.gguf
g=$SHARED_DATA/models/stories260K/gguf t=$SHARED_DATA/models/tiny_golden
expect "invariance: llama q4_0, q8_0, f32; gemma 4 dense" 0 "selftest: [0-9]+ passed, 0 failed" "$QDELTA" selftest --invariance \
    "$g/stories260K-ffn192-q4_0.gguf" "$g/stories260K-ffn192-q8_0.gguf" "$g/stories260K-f32.gguf" "$t/gemma4_dense"
expect "greedy text as llama2.c's" 0 "^Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a big, red ball." \
    "$QDELTA" generate "$g/stories260K-f32.gguf" --prompt "Once upon a time" -n 60
cp "$g/stories260K-ffn192-f32.gguf" "$work/shrinks.gguf"
"$QDELTA" generate "$work/shrinks.gguf" --in-place --prompt "Once" -n 100000 >/dev/null 2>"$work/shrink.err" & pid=$!
sleep 0.02; : >"$work/shrinks.gguf"; wait $pid; rc=$?
check "a file cut short while it runs ends with a message ($rc)" sh -c "test $rc -le 1 && { test $rc -eq 0 || test -s '$work/shrink.err'; }"
finish
