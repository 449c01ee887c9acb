# quantize: outputs appear whole or not at all, whatever happens on the way; calibration says what it did.
. tests/lib.sh
need_shared models/stories260K/gguf/stories260K-ffn192-f32.gguf
g=$SHARED_DATA/models/stories260K/gguf/stories260K-ffn192-f32.gguf
hf=$SHARED_DATA/models/stories260K/hf_f32
cp "$g" "$work/in.gguf"; mkdir "$work/hf"; cp "$hf"/* "$work/hf"; chmod u+w "$work"/in.gguf "$work"/hf/*
q() { "$QDELTA" quantize --quiet "$@"; }
gptq() { q -q gptq:q4_0 --calib-rows 8 --calib-tokens 128 "$@"; }
# No file may grow beyond so many blocks of 512 bytes: a disk without room.
full() { (trap '' XFSZ; ulimit -f "$1"; shift; "$@"); }

# ---- an output that is an input ----
ln "$work/in.gguf" "$work/hard.gguf"; ln -s in.gguf "$work/soft.gguf"
for name in in hard soft; do
    expect "the output is the input ($name link)" 1 "$name.gguf: the output is the input" q -q rtn:q8_0 -o "$work/$name.gguf" "$work/in.gguf"
done
expect "the output folder is the input's" 1 "hf: the output is the input" q -q nf4 -o "$work/hf" "$work/hf"
expect "the output folder holds the input" 1 "hf: the output is the input" q -q nf4 -o "$work/hf" "$work/hf/model.safetensors"
check "the input is as it was" cmp "$g" "$work/in.gguf"
printf 'Once upon a time there was a little girl who had a red ball. %s' "$(seq -s ' and ' 2000)" >"$work/text.txt"
ln "$work/text.txt" "$work/text.gguf"
expect "the output is the calibration text" 1 "text.gguf: the output is the calibration text" gptq --calib "$work/text.txt" -o "$work/text.gguf" "$g"
q -q imatrix:q4_0 --calib "$work/text.txt" --calib-rows 2 --calib-tokens 64 --save-imatrix "$work/im.gguf" -o "$work/o.gguf" "$g" 2>/dev/null
expect "the output is the imatrix" 1 "im.gguf: the output is the imatrix" q -q rtn:q4_0 --imatrix "$work/im.gguf" -o "$work/im.gguf" "$g"

# ---- names that cannot be written, said before the first pass ----
expect "no such folder" 1 "none/o.gguf.*cannot create.*No such file" gptq --calib "$work/text.txt" -o "$work/none/o.gguf" "$g"
mkdir "$work/dir.gguf"; : >"$work/file"
expect "a folder where a file is to be" 1 "dir.gguf is a folder" q -q rtn:q4_0 -o "$work/dir.gguf" "$g"
expect "a file where a folder is to be" 1 "file is a file" q -q nf4 -o "$work/file" "$hf"
expect "a setting that the method has not, with those that it has" 2 "stages=layer.*algorithm.*damp" gptq --set stages=layer -o "$work/o.gguf" "$g"
expect "a setting without value" 2 "KEY=VALUE" gptq --set damp -o "$work/o.gguf" "$g"

# ---- no room ----
q -q rtn:q8_0 -o "$work/old.gguf" "$g"; cp "$work/old.gguf" "$work/old.copy"
expect "no room for the file" 1 "old.gguf.partial.*cannot write.*(large|space)" full 100 q -q rtn:q4_0 -o "$work/old.gguf" "$g"
expect "no room for a calibrated file" 1 "old.gguf.partial.*cannot write.*(large|space)" full 100 gptq --calib "$work/text.txt" -o "$work/old.gguf" "$g"
check "what stood there still stands" cmp "$work/old.gguf" "$work/old.copy"
check "and nothing half-written" sh -c "! ls '$work'/*.partial 2>/dev/null"
q -q rtn:q4_0 -o "$work/old.gguf" "$g"
check "a whole run replaces it" sh -c "! cmp -s '$work/old.gguf' '$work/old.copy'"
q -q fp4 -o "$work/folder" "$hf"; cp -r "$work/folder" "$work/folder.copy"
expect "no room for a folder's weights" 1 "partial.*cannot write.*(large|space)" full 100 q -q nf4 -o "$work/folder" "$hf"
check "the folder that stood there still stands" diff -r "$work/folder" "$work/folder.copy"
q -q nf4 -o "$work/folder" "$hf"
check "a whole run replaces it" grep -q nf4 "$work/folder/config.json"

# ---- killed at any moment ----
slow() { q -q gptq:q4_0 --calib-rows 32 --calib-tokens 256 --calib "$work/text.txt" "$@" "$g"; }
slow -o "$work/whole.gguf"
start() { exec "$QDELTA" quantize --quiet -q gptq:q4_0 --calib-rows 32 --calib-tokens 256 --calib "$work/text.txt" -o "$work/killed.gguf" "$g"; }
kills=0 tries=0 seen=0
while [ $kills -lt 8 ] && [ $tries -lt 60 ]; do
    tries=$((tries + 1))
    start 2>/dev/null & pid=$!
    if [ $((tries % 2)) -eq 0 ]; then           # as soon as there is something half-written
        while [ ! -e "$work/killed.gguf.partial" ] && kill -0 $pid 2>/dev/null; do :; done
    else
        sleep "0.0$(( (tries * 7919 + 5) % 9 + 1 ))"
    fi
    kill -9 $pid 2>/dev/null && [ ! -e "$work/killed.gguf" ] && kills=$((kills + 1))
    wait $pid 2>/dev/null
    [ ! -e "$work/killed.gguf" ] || { cmp -s "$work/killed.gguf" "$work/whole.gguf" || seen=$((seen + 1)); rm -f "$work/killed.gguf"; }
done
check "killed before the end 8 times (was $kills)" test $kills -ge 8
check "no file under the name but a whole one" test $seen -eq 0
slow -o "$work/killed.gguf"
check "said again, the same bytes" cmp "$work/killed.gguf" "$work/whole.gguf"

# ---- streams: shards, and the room that inputs and Hessians take, change no value ----
slow --set memory=1 -j 1 -o "$work/little.gguf"
logits() { "$QDELTA" logits "$1" --ids "$SHARED_DATA/models/tiny_golden/llama3/ids.i32" --seq 16 -o "$2"; }
logits "$work/whole.gguf" "$work/a.f32"; logits "$work/little.gguf" "$work/b.f32"
check "little memory, one thread: the same logits" cmp "$work/a.f32" "$work/b.f32"
for shard in 5000 1; do
    q -q gptq:int4-g32 --calib "$work/text.txt" --calib-rows 2 --calib-tokens 64 --set shard=$shard -o "$work/shards$shard" models/demo/bf16
    logits "$work/shards$shard" "$work/s$shard.f32"
done
check "more than one shard, and an index" sh -c "ls '$work'/shards1/model-00002-of-*.safetensors '$work'/shards1/model.safetensors.index.json"
check "shards hold what one file holds" cmp "$work/s5000.f32" "$work/s1.f32"

# ---- calibration ----
metadata() { grep -a -o "qdelta.quantize.$1[^a-z].\{0,90\}" "$2" | head -1 | tr -c '[:print:]\n' ' '; }
gptq --calib "$work/text.txt" --seed 1 -o "$work/seed.gguf" "$g"
check "the hash of the ids is in the file" sh -c "grep -a -q 'qdelta.quantize.calibration.sha256' '$work/whole.gguf'"
check "another seed, other windows" sh -c "[ '$(metadata calibration.sha256 "$work/seed.gguf")' != '$(metadata calibration.sha256 "$work/whole.gguf")' ]"
expect "the built-in text, and a warning that says so" 0 "built-in" q -q imatrix:q4_0 -o "$work/default.gguf" "$g"
expect "128 windows, of 1024 tokens or the model's context" 0 "128 x 512" metadata calibration.windows "$work/default.gguf"
expect "experts that saw too few tokens are named" 0 "ffn_down_exps.weight, matrix [0-9]+: scales by importance only, the expert was (rarely|hardly) called; it saw [0-9]+ tokens" \
    q -q gptq:q4_0 --calib "$SHARED_DATA/models/tiny_golden/gemma4_moe/ids.i32" --calib-rows 1 --calib-tokens 32 -o "$work/moe.gguf" "$SHARED_DATA/models/tiny_golden/gemma4_moe"
check "and kept in the file" grep -a -q "blk.0.ffn_down_exps.weight\[[0-9]*\]: scales by importance only" "$work/moe.gguf"
: >"$work/empty.txt"; head -c 3000 /dev/urandom >"$work/binary.txt"; printf 'Once upon a time.' >"$work/short.txt"
expect "an empty text" 1 "empty.txt is empty" gptq --calib "$work/empty.txt" -o "$work/o2.gguf" "$g"
expect "a binary text" 1 "binary.txt is not UTF-8" gptq --calib "$work/binary.txt" -o "$work/o2.gguf" "$g"
expect "a text too short for one window" 1 "short.txt gives [0-9]+ tokens, at least 32" gptq --calib "$work/short.txt" -o "$work/o2.gguf" "$g"
expect "a text that fills fewer windows than asked for" 0 "fills [0-9]+ windows of 128 tokens, 5000 were asked" gptq --calib "$work/text.txt" --calib-rows 5000 -o "$work/o2.gguf" "$g"
finish
