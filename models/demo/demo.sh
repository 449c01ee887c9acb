#!/bin/sh
# demo.sh - the whole story on the model shipped here: quantize bf16 with every PTQ method, score all arms and the
# QAT file on both demo tasks and on held-out text, compare, report.  A second run resumes: nothing is done twice.
#
# The model is small, so two processes with half of the cores each are faster than one with all of them; they
# write one database.  Calibration is kept short for the same reason (quantizers/README.md has the long one).
set -eu
cd "$(dirname "$0")/../.."
q=build/qdelta
demo=models/demo
arms=build/demo
db=results/demo.db
calib="--calib tasks/demo-text/calibration.txt --calib-tokens 256"
text=tasks/demo-text/heldout.txt
report=reports/demo
threads=$(( ($(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) + 1) / 2 ))
started=$(date +%s)
mkdir -p "$arms" results

# make LABEL METHOD OUT OPTION..: one PTQ arm, unless it is there.  All GGUF arms keep the embedding in the type
# of the QAT file, so that files differ in the matrices alone.
make_arm() {
    label=$1 method=$2 out=$3; shift 3
    [ -e "$arms/$out" ] && return
    $q quantize -q "$method" "$@" -j "$threads" --quiet -o "$arms/$out" "$demo/bf16"
    echo "  $label: $method"
}
base="bf16=$demo/bf16"
one="qat=$demo/qat-q4_0.gguf rtn=$arms/rtn-q4_0.gguf imatrix=$arms/imatrix-q4_0.gguf awq=$arms/awq-q4_0.gguf"
two="q4_k_m=$arms/q4_k_m.gguf gptq=$arms/gptq-q4_0.gguf nf4=$arms/nf4"
ptq="q4_k_m gptq imatrix awq nf4 rtn"
score() {
    $q run --db "$db" -t demo-facts -j "$threads" --quiet -m "$@" >/dev/null
    $q run --db "$db" -t demo-arith --width 128 -j "$threads" --quiet -m "$@" >/dev/null
}
measure() { $q kld --db "$db" --base "$base" --text "$text" --ctx 256 --limit 32 -j "$threads" --quiet "$@" >/dev/null; }

echo "quantizing bf16:"
{ make_arm imatrix imatrix:q4_0 imatrix-q4_0.gguf $calib --calib-rows 128
  make_arm q4_k_m rtn:q4_k_m q4_k_m.gguf
  make_arm nf4 nf4 nf4; } & first=$!
make_arm rtn rtn:q4_0 rtn-q4_0.gguf
make_arm gptq gptq:q4_0 gptq-q4_0.gguf $calib --calib-rows 128
wait $first

# AWQ searches longest: the other lane scores meanwhile, and has the arms that take longest to score.
echo "scoring bf16, QAT and PTQ on 1500 questions, 700 word problems, and held-out text"
{ make_arm awq awq:q4_0 awq-q4_0.gguf $calib --calib-rows 64
  score $one
  measure $one; } & first=$!
score "$base" $two
measure $two
wait $first

echo
$q kld --db "$db" --base "$base" --text "$text" --ctx 256 --limit 32 --quiet $one $two
echo
$q compare --db "$db" --base bf16 qat $ptq
echo
echo "and against the QAT file:"
$q compare --db "$db" --base qat bf16 $ptq
echo
$q report --db "$db" --base bf16 qat $ptq -o "$report" >/dev/null
echo "done in $(( $(date +%s) - started )) s; the report: $report/index.html"
