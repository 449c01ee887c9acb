# What a user sees who asks for help or types something wrong.
. tests/lib.sh
expect "no command prints the commands" 2 "usage: qdelta <command>" "$QDELTA"
expect "help" 0 "quantize .*post-training" "$QDELTA" help
expect "version names version and commit" 0 "^qdelta [0-9]+\.[0-9]+\.[0-9]+ \([0-9a-f]+\+?\)$|unknown" "$QDELTA" --version
for c in run compare report gate quantize convert audit kld bench inspect tokenize generate logits list merge export import fetch selftest; do
    expect "help $c" 0 "^usage: qdelta $c " "$QDELTA" help $c
    expect "$c --help" 0 "^usage: qdelta $c " "$QDELTA" $c --help
done
expect "unknown command, nearest named" 2 "did you mean compare" "$QDELTA" comapre
expect "unknown command, none near" 2 "lists the commands" "$QDELTA" xyzzyplugh
expect "unknown option, nearest named" 2 "did you mean --limit" "$QDELTA" run -m x -t y --limti 3
expect "unknown letter" 2 "unknown option -Z" "$QDELTA" run -Z
expect "wrong choice, nearest named" 2 "expected stable\|compat; did you mean compat" "$QDELTA" run -m x -t y --mode compta
expect "number out of range" 2 "whole number from" "$QDELTA" run -m x -t y --limit -3
expect "not a number" 2 "expected a number" "$QDELTA" compare --base x --margin one
expect "option without value" 2 "needs FILE" "$QDELTA" run -m x -t y --db
expect "flag with value" 2 "takes no value" "$QDELTA" run --json=1 -m x -t y
expect "required option missing" 2 "task TASK.. is missing" "$QDELTA" run -m x
expect "model missing" 2 "no model" "$QDELTA" run -t mmlu
expect "argument missing" 2 "argument is missing" "$QDELTA" tokenize
expect "argument too many" 2 "one argument too many" "$QDELTA" tokenize a b
expect "unknown list" 2 "did you mean formats" "$QDELTA" list formast
expect "unknown kernel set" 2 "no such set" "$QDELTA" generate x --prompt y --kernels avx3
expect "unknown setting of a method" 2 "gptq has no setting foo=1; it has: algorithm" "$QDELTA" quantize -q gptq:q4_0 --set foo=1 -o "$work/x.gguf" models/demo/bf16
expect "setting out of range" 2 "shrink=3: expected a number from 0 to 1" "$QDELTA" quantize -q gptq:q4_0 --set shrink=3 -o "$work/x.gguf" models/demo/bf16
expect "setting that is no word of its row" 2 "order=left: expected one of act.natural" "$QDELTA" quantize -q gptq:q4_0 --set order=left -o "$work/x.gguf" models/demo/bf16
expect "settings of a method without any of its own" 2 "rtn has no setting damp=1; it has: shard" "$QDELTA" quantize -q rtn:q4_0 --set damp=1 -o "$work/x.gguf" models/demo/bf16
expect "required option by the command's own spelling" 2 "kld: --text FILE is missing" "$QDELTA" kld --base x y
expect "wrong shard" 2 "expected I/N" "$QDELTA" run -m x -t mmlu --shard 3/2 --db "$work/x.db"
expect "a later model that is not there stops the run before it begins" 1 "nothere.gguf: no such file" \
    "$QDELTA" run -m models/demo/bf16 "$work/nothere.gguf" -t demo-arith --limit 1 --db "$work/later.db"
expect "a later task likewise" 1 "no task .demo-fatcs.*nearest: demo-facts" "$QDELTA" run -m models/demo/bf16 -t demo-arith demo-fatcs --limit 1 --db "$work/later.db"
check "and nothing was stored" test ! -e "$work/later.db"
expect "merge of what is not there" 1 "no such database" "$QDELTA" merge "$work/none.db" -o "$work/new.db"
check "leaves no output" test ! -e "$work/new.db"
expect "scores of a run as JSON" 0 '"score_hi"' "$QDELTA" run -m models/demo/bf16 -t demo-facts --limit 2 --quiet --json --db "$work/j.db"
expect "model not there" 1 "nothere.gguf: no such file" "$QDELTA" generate "$work/nothere.gguf" --prompt x
expect "full device" 1 "cannot write to standard output" sh -c "$QDELTA list formats > /dev/full"
for l in formats methods settings models kernels tasks; do
    expect "list $l" 0 "." "$QDELTA" list $l
    expect "list $l --json" 0 "^\[" "$QDELTA" list $l --json
done
finish
