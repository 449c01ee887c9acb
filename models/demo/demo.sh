#!/bin/sh
# demo.sh - the whole story on the model shipped here: quantize bf16 with every PTQ method, score all arms and the
# QAT file on both demo tasks and on held-out text, compare, report.  A second run resumes: nothing is done twice.
set -eu
cd "$(dirname "$0")/../.."
q=build/qdelta
demo=models/demo
arms=build/demo
db=results/demo.db
calib=tasks/demo-text/calibration.txt
text=tasks/demo-text/heldout.txt
report=reports/demo
mkdir -p "$arms" results

# label, method, output: one row an arm.  All GGUF arms keep the embedding in the same type as the QAT file.
while read -r label method out; do
    [ -n "$label" ] || continue
    [ -e "$arms/$out" ] || {
        printf 'quantizing %s with %s\n' "$label" "$method"
        $q quantize -q "$method" --calib "$calib" -o "$arms/$out" "$demo/bf16"
    }
done <<ARMS
rtn rtn:q4_0 rtn-q4_0.gguf
imatrix imatrix:q4_0 imatrix-q4_0.gguf
gptq gptq:q4_0 gptq-q4_0.gguf
q4_k_m rtn:q4_k_m q4_k_m.gguf
awq awq:q4_0 awq-q4_0.gguf
nf4 nf4 nf4
ARMS

models="bf16=$demo/bf16 qat=$demo/qat-q4_0.gguf rtn=$arms/rtn-q4_0.gguf imatrix=$arms/imatrix-q4_0.gguf
        gptq=$arms/gptq-q4_0.gguf q4_k_m=$arms/q4_k_m.gguf awq=$arms/awq-q4_0.gguf nf4=$arms/nf4"

$q run --db "$db" -t demo-facts demo-arith -m $models >/dev/null
$q kld --db "$db" --base bf16=$demo/bf16 --text "$text" --ctx 256 --limit 64 ${models#* }
printf '\nAgainst bf16:\n'
$q compare --db "$db" --base bf16
printf '\nAgainst the QAT file:\n'
$q compare --db "$db" --base qat
printf '\nreport: '
$q report --db "$db" --base bf16 -o "$report"
