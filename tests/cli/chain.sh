# The main job on real files: three files of stories260K on gsm8k and mmlu, into a database, compared and reported.
# A model this small scores at chance, and the words must say that nothing can be told.
. tests/lib.sh
need_shared models/stories260K/gguf/stories260K-ffn192-f32.gguf
need_shared mmlu/test/abstract_algebra_test.csv
g=$SHARED_DATA/models/stories260K/gguf
db=$work/a.db
run() { "$QDELTA" run -m f32=$g/stories260K-ffn192-f32.gguf q8_0=$g/stories260K-ffn192-q8_0.gguf q4_0=$g/stories260K-ffn192-q4_0.gguf \
            -t mmlu,gsm8k --data "$SHARED_DATA" --limit "${LIMIT:-40}" --shots 0 --quiet "$@"; }
expect "three files on two tasks" 0 "q4_0 .*mmlu" run --db "$db"
check "240 item rows are there" sh -c "test \$('$QDELTA' export --db '$db' | grep -c '\"type\": *\"item\"') -eq 240"
expect "said again, nothing is asked twice" 0 "q4_0 .*mmlu" run --db "$db"
expect "compare says that it cannot tell" 0 "cannot tell" "$QDELTA" compare --base f32 --db "$db"
check "no winner at chance" sh -c "! '$QDELTA' compare --base f32 q8_0 q4_0 --db '$db' | grep -Ei '(better|worse) by'"
expect "compare --json" 0 '"verdict"' "$QDELTA" compare --base f32 --db "$db" --json
expect "report" 0 "index.html" "$QDELTA" report --base f32 -o "$work/report" --db "$db"
for f in index.html report.md plots data; do check "report has $f" test -e "$work/report/$f"; done
check "the page loads nothing from outside" sh -c "! grep -Eo '(src|href)=\"https?:' '$work/report/index.html'"
check "every plot has its tsv" sh -c "ls $work/report/plots/*.svg && for p in $work/report/plots/*.svg; do test -s $work/report/data/\$(basename \$p .svg).tsv || exit 1; done"
expect "report twice, same bytes" 0 "index.html" "$QDELTA" report --base f32 -o "$work/again" --db "$db"
check "reports do not differ" diff -r "$work/report" "$work/again"
mkdir "$work/bin"; for t in sh cat; do ln -s "$(command -v $t)" "$work/bin/$t"; done
expect "without gnuplot the rest is written" 0 "gnuplot" env PATH="$work/bin" "$QDELTA" report --base f32 -o "$work/noplots" --db "$db"
check "the rest is there" test -s "$work/noplots/index.html"

# Same rows, bit for bit, whatever the settings (elapsed times aside).
dump() { "$QDELTA" export --db "$1" | sed -E 's/"(elapsed_ns|run|id|started|finished|seconds|threads|command|path|peak_bytes|tokens_per_second|prompt_tokens_computed|new_tokens)": ?[^,}]*,?//g' | grep -v '"type": *"run"' | sort; }
one() { "$QDELTA" run -m q4_0=$g/stories260K-ffn192-q4_0.gguf -t mmlu,gsm8k --data "$SHARED_DATA" --limit 12 --shots 1 --quiet "$@"; }
one --db "$work/ref.db" -j1 >/dev/null 2>&1; dump "$work/ref.db" >"$work/ref.txt"
check "reference rows" test -s "$work/ref.txt"
i=0
for how in "-j2" "-j3 --batch 7" "-j2 --no-share" "-j2 --batch-items 3 --width 2" "-j1 --kernels generic"; do
    i=$((i + 1))
    one --db "$work/v$i.db" $how >/dev/null 2>&1; dump "$work/v$i.db" >"$work/v$i.txt"
    check "same rows with $how" cmp "$work/ref.txt" "$work/v$i.txt"
done
finish
