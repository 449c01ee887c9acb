# inspect: the memory table of the five Gemma 4 sizes in Google's Q4_0 layout, as it is written down for them (GiB for
# the K/V and in all at 8k, 32k and 128k, and the cards of 8, 12, 16 and 24 GB that hold it), and recipes by name.
. tests/lib.sh

# shape SIZE KV NEED CARDS...: one row a context, cards as a word of y and n.
shape() {
    size=$1; shift
    "$QDELTA" inspect --shape "$size" >"$work/out" 2>&1
    awk '$1 ~ /^(8192|32768|131072)$/ { c = ""; for (i = 4; i <= 7; i++) c = c ($i == "fits" ? "y" : "n"); print $1, $2, $3, c }' "$work/out" >"$work/got"
    printf '8192 %s\n32768 %s\n131072 %s\n' "$1" "$2" "$3" >"$work/want"
    if cmp -s "$work/got" "$work/want"; then ok "memory of $size"; else wrong "memory of $size" "$(diff "$work/want" "$work/got" | tr '\n' ' ')"; fi
    check "$size: recipe" grep -q "^tensor types: as Google Q4_0" "$work/out"
}
shape gemma4-e2b     "0.06 3.68 yyyy"  "0.20 3.82 yyyy"  "0.76 4.38 yyyy"
shape gemma4-e4b     "0.16 5.46 yyyy"  "0.54 5.84 yyyy"  "2.04 7.34 nyyy"
check "E4B at 128k fits 8 GB with its per-layer embeddings on disk (7.34 - 2.15)" grep -q "left on disk.*: 2.15 GiB less" "$work/out"
shape gemma4-12b     "0.59 7.59 nyyy"  "0.97 7.97 nyyy"  "2.47 9.47 nyyy"
shape gemma4-26b-a4b "0.45 14.40 nnyy" "0.92 14.87 nnyy" "2.79 16.74 nnny"
shape gemma4-31b     "1.80 18.74 nnny" "3.67 20.61 nnny" "11.17 28.11 nnnn"
# Published file sizes, of which the tensors are all but 15.82 MB: within 1000 bytes.
for s in "e4b 5154939136" "26b-a4b 14439361440"; do
    got=$("$QDELTA" inspect --shape "gemma4-${s% *}" --json | tr -dc '"a-z_0-9:,' | grep -o '"file_bytes":[0-9]*' | cut -d: -f2)
    check "file size of ${s% *}: $got for ${s#* }" test $((got - ${s#* })) -gt -1000 -a $((got - ${s#* })) -lt 1000
done
expect "recipe in JSON" 0 '"published_recipe":[[:space:]]*"Google Q4_0' "$QDELTA" inspect --shape gemma4-e2b --json
expect "no published recipe in JSON" 0 '"published_recipe":[[:space:]]*null' "$QDELTA" inspect --shape gemma4-e2b:bf16 --json
expect "no published recipe" 0 "of no published recipe known" "$QDELTA" inspect --shape gemma4-e2b:bf16
expect "unknown shape, nearest named" 2 "did you mean .gemma4-e2b" "$QDELTA" inspect --shape gemma4-e2c

need_shared models/stories260K/gguf/stories260K-ffn192-f32.gguf
# A file that llama-quantize's rule made: recipe recognised from the tensors.
check "quantize to q8_0" "$QDELTA" quantize --quiet -q rtn:q8_0 -o "$work/q8_0.gguf" "$SHARED_DATA/models/stories260K/gguf/stories260K-ffn192-f32.gguf"
expect "and its recipe named" 0 "as llama-quantize Q8_0" "$QDELTA" inspect "$work/q8_0.gguf"
"$QDELTA" inspect "$work/q8_0.gguf" >"$work/out" 2>&1
check "classes: five attention outputs, and no output head where it is tied" sh -c "grep -q '^attention out  *5 ' '$work/out' && ! grep -q '^output head' '$work/out'"
finish
