# Bad files, tasks and databases: one message that names file, place, found and expected; exit 1; nothing half-written.
. tests/lib.sh
need_shared models/stories260K/gguf/stories260K-ffn192-q4_0.gguf
g=$SHARED_DATA/models/stories260K/gguf/stories260K-ffn192-q4_0.gguf
hf=$SHARED_DATA/models/stories260K/hf_f32
gen() { "$QDELTA" generate "$@" --prompt Once -n 3; }

# ---- model files ----
size=$(wc -c <"$g")
for n in 0 3 11 100 5000 $((size / 2)) $((size - 1)); do
    head -c "$n" "$g" >"$work/cut.gguf"
    expect "GGUF cut to $n bytes" 1 "cut.gguf" gen "$work/cut.gguf"
done
{ printf 'GGML'; tail -c +5 "$g"; } >"$work/magic.gguf"
expect "wrong magic" 1 "magic.gguf.*(magic|GGUF)" gen "$work/magic.gguf"
{ head -c 4 "$g"; printf '\011\0\0\0'; tail -c +9 "$g"; } >"$work/version.gguf"
expect "version 9" 1 "version.gguf.*version.* 9" gen "$work/version.gguf"
{ head -c 8 "$g"; printf '\377\377\377\377\377\377\377\177'; tail -c +17 "$g"; } >"$work/count.gguf"
expect "2^63 tensors" 1 "count.gguf" gen "$work/count.gguf"
# 0x7e7e is a NaN in f16: weights from the middle on are blocks whose scale is none.
{ head -c $((size / 2)) "$g"; head -c 20000 /dev/zero | tr '\0' '~'; tail -c +$((size / 2 + 20001)) "$g"; } >"$work/nan.gguf"
for how in "" --in-place; do
    expect "NaN scales, tensor named $how" 1 "tensor blk[.0-9a-z_]*weight, row [0-9]+, .*q4_0 block's scale is not a finite number" gen "$work/nan.gguf" $how
done
expect "NaN scales do not convert" 1 "tensor blk[.0-9a-z_]*weight, row .*q4_0 block's scale" "$QDELTA" convert --quiet -o "$work/nan2.gguf" "$work/nan.gguf"
expect "NaN scales do not quantize" 1 "tensor blk[.0-9a-z_]*weight, row .*q4_0 block's scale" "$QDELTA" quantize --quiet --requantize -q rtn:q8_0 -o "$work/nan2.gguf" "$work/nan.gguf"
check "and nothing was written" test ! -e "$work/nan2.gguf"
expect "a folder without config.json" 1 "config.json" gen "$work"
mkdir "$work/hf"; cp "$hf"/* "$work/hf/"; chmod u+w "$work"/hf/*
printf '{"architectures": [' >"$work/hf/config.json"
expect "config.json cut short" 1 "config.json: line 1" "$QDELTA" inspect "$work/hf"
sed 's/LlamaForCausalLM/NoSuchForCausalLM/; s/"llama"/"nosuch"/' "$hf/config.json" >"$work/hf/config.json"
expect "unknown architecture named" 1 "nosuch|NoSuchForCausalLM" "$QDELTA" inspect "$work/hf"
sed -E 's/"num_hidden_layers": *[0-9]+/"num_hidden_layers": 6/' "$hf/config.json" >"$work/hf/config.json"
expect "missing tensor named" 1 "blk.5|layers.5" gen "$work/hf"
sed -E 's/"intermediate_size": *[0-9]+/"intermediate_size": 160/' "$hf/config.json" >"$work/hf/config.json"
expect "wrong shape: found and expected" 1 "(160.*(172|192))|((172|192).*160)" "$QDELTA" logits "$work/hf" --ids "$SHARED_DATA/models/tiny_golden/llama3/ids.i32" -o "$work/o.f32"
check "no half-written logits" test ! -e "$work/o.f32"
tg=$SHARED_DATA/models/tiny_golden/gemma4_dense
expect "a model without tokenizer where text is needed" 1 "tokenizer" gen "$tg"
expect "run with such a model" 1 "tokenizer" "$QDELTA" run -m "$tg" -t mmlu --data "$SHARED_DATA" --db "$work/t.db"
printf 'abc' >"$work/ids.i32"
expect "ids that are not int32" 1 "ids.i32: 3 bytes" "$QDELTA" logits "$tg" --ids "$work/ids.i32" -o "$work/o.f32"
printf '\377\377\377\177' >"$work/ids.i32"
: >"$work/none.i32"
expect "no ids" 1 "none.i32: no ids" "$QDELTA" logits "$tg" --ids "$work/none.i32" -o "$work/o.f32"
expect "an id beyond the vocabulary" 1 "2147483647" "$QDELTA" logits "$tg" --ids "$work/ids.i32" -o "$work/o.f32"

# ---- tasks ----
run() { "$QDELTA" run -m "q=$g" --db "$work/tasks.db" --quiet "$@"; }
expect "unknown task, nearest named" 1 "mmlu" run -t mmul
expect "data not there: where it was looked for" 1 "$work/none" run -t gsm8k --data "$work/none"
mkdir "$work/t"
task() { printf '%s' "$1" >"$work/t/task.json"; }
base='"title": "t", "version": "1", "kind": "choice", "source": "own", "licence": "MIT"'
csv='"data": {"reader": "hendrycks-csv", "test": "./*_test.csv"}, "prompt": "{question}\nA. {a}\nB. {b}\nC. {c}\nD. {d}\nAnswer:", "choices": ["A", "B", "C", "D"], "gold": "{answer}", "gold_as": "letter", "metrics": ["acc"]'
printf 'q1,a,b,c,d,A\nq2,a,b,c,d,B\n' >"$work/t/x_test.csv"
task "{$base, $csv}"
expect "the task as it should be" 0 "acc" run -t "$work/t"
task "{$base"
expect "task.json is not JSON" 1 "task.json: line" run -t "$work/t"
task "{$(printf %s "$base, $csv" | sed 's/"prompt": "[^"]*", //')}"
expect "task.json without prompt" 1 "task.json.*prompt" run -t "$work/t"
task "{$base, $csv, \"promt\": 1}"
expect "unknown key, nearest named" 1 "promt.*prompt" run -t "$work/t"
task "{$(printf %s "$base, $csv" | sed 's/{question}/{qestion}/')}"
expect "unknown field in a template" 1 "qestion" run -t "$work/t"
task "{$base, $csv}"
printf 'q1,a,b,c,d,A\nq2,a,b,c,B\n' >"$work/t/x_test.csv"
expect "a CSV row with five cells" 1 "x_test.csv.*(row|line) 2.*(5|five).*(6|six)" run -t "$work/t"
printf 'q1,a,b,c,d,A\nq\377,a,b,c,d,B\n' >"$work/t/x_test.csv"
expect "invalid UTF-8" 1 "x_test.csv.*UTF-8" run -t "$work/t"
: >"$work/t/x_test.csv"
expect "an empty data set" 1 "x_test.csv|no items|empty" run -t "$work/t"
printf 'q1,a,b,c,d,E\n' >"$work/t/x_test.csv"
expect "a gold letter that is no option" 1 "x_test.csv.*E" run -t "$work/t"
task "{\"title\": \"t\", \"version\": \"1\", \"kind\": \"generate\", \"source\": \"own\", \"licence\": \"MIT\", \"data\": {\"reader\": \"jsonl\", \"test\": \"./t.jsonl\"}, \"prompt\": \"{question}\", \"target\": \"{answer}\", \"stops\": [\"\\n\"], \"max_tokens\": 4, \"extract\": [{\"name\": \"x\", \"regex\": \"([0-9]+\", \"pick\": \"first\"}]}"
printf '{"question": "q", "answer": "1"}\n' >"$work/t/t.jsonl"
expect "a regex that does not compile" 1 "task.json.*\(\[0-9\]\+" run -t "$work/t"

# ---- databases ----
expect "a database that is not SQLite" 1 "LICENSE" "$QDELTA" compare --base x --db LICENSE
expect "a database that is not there" 1 "nothere.db" "$QDELTA" compare --base x --db "$work/nothere.db"
check "compare makes no file" test ! -e "$work/nothere.db"
printf 'text, not a database, but long enough to look like a header of one......................................' >"$work/text.db"
expect "run into a file that is not SQLite" 1 "text.db" "$QDELTA" run -m "q=$g" -t mmlu --data "$SHARED_DATA" --limit 1 --db "$work/text.db"
if [ "$(id -u)" -ne 0 ]; then
    cp "$work/tasks.db" "$work/ro.db"; chmod 444 "$work/ro.db"
    expect "a read-only database" 1 "ro.db" "$QDELTA" run -m "q=$g" -t mmlu --data "$SHARED_DATA" --limit 1 --db "$work/ro.db"
fi
expect "a folder that cannot be written" 1 "/proc" "$QDELTA" run -m "q=$g" -t mmlu --data "$SHARED_DATA" --limit 1 --db /proc/x.db
expect "compare without that label, nearest named" 1 "q" "$QDELTA" compare --base qq --db "$work/tasks.db"

# ---- outputs ----
expect "quantize onto itself" 1 "output is the input" sh -c "cp '$g' '$work/self.gguf'; '$QDELTA' quantize -q rtn:q8_0 --requantize -o '$work/self.gguf' '$work/self.gguf'"
expect "quantize what is quantized" 1 "requantize" "$QDELTA" quantize -q rtn:q4_0 -o "$work/q.gguf" "$g"
expect "unknown method, nearest named" 2 "did you mean rtn" "$QDELTA" quantize -q rtm:q4_0 -o "$work/q.gguf" "$SHARED_DATA/models/stories260K/gguf/stories260K-ffn192-f32.gguf"
expect "no room on the disk" 1 "full|space|write" "$QDELTA" quantize -q rtn:q4_0 -o /dev/full/q.gguf "$SHARED_DATA/models/stories260K/gguf/stories260K-ffn192-f32.gguf"
check "nothing half-written" sh -c "! ls '$work'/*.partial 2>/dev/null"
finish
