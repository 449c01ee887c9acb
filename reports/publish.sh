#!/bin/sh
# publish.sh - makes the demo anew, puts its report into reports/published and its table into the first screen of README.md.
set -eu
cd "$(dirname "$0")/.."
new=reports/demo old=reports/published
rm -rf build/demo results/demo.db results/demo.db-* "$new"
models/demo/demo.sh
rm -rf "$old/data" "$old/plots"
mkdir -p "$old/plots"
cp -r "$new/data" "$new/report.md" "$old/"
cp "$new"/plots/*.svg "$old/plots/"

# The table's rows: label in the database and name in the README.
{
    cat <<'END'
qat **QAT Q4_0**
q4_k_m Q4_K_M
gptq GPTQ Q4_0
imatrix imatrix Q4_0
awq AWQ Q4_0
nf4 NF4
rtn RTN Q4_0
END
} | awk -F '\t' '
    function points(x) { return sprintf("%.1f", 100 * x) }
    function cells(task, label) {
        return points(of[task, label, 6]) " | " points(of[task, label, 10]) " (" points(of[task, label, 11]) " to " \
               (of[task, label, 12] > 0 ? "+" : "") points(of[task, label, 12]) ")"
    }
    FILENAME ~ /comparisons/ && $3 == 1 { n[$1] = $5; base[$1] = $9; for (i = 6; i <= 12; i++) of[$1, $4, i] = $i }
    FILENAME ~ /kld/ { split($2, pair, " "); kl[pair[1]] = $NF }
    FILENAME ~ /report.md/ && /^\| [^|]* \| [0-9.]+ MB \| [0-9.]+ \|/ {
        split($0, cell, / *\| */)
        sub(/ .*/, "", cell[2])
        gsub(/\\/, "", cell[2])
        if (!(cell[2] in bits))
            bits[cell[2]] = cell[4]
    }
    FILENAME == "-" {
        if (!said++) {
            printf "| | bits/weight | word problems (%d) | delta to bf16 | facts (%d) | delta to bf16 | KL to bf16 |\n",
                   n["demo-arith"], n["demo-facts"]
            print "| --- | --- | --- | --- | --- | --- | --- |"
            printf "| bf16 | %s | %s | | %s | | |\n", bits["bf16"], points(base["demo-arith"]), points(base["demo-facts"])
        }
        label = title = $0
        sub(/ .*/, "", label)
        sub(/^[^ ]* /, "", title)
        bold = title ~ /\*/ ? "**" : ""
        printf "| %s | %s | %s | %s | %s%.4f%s |\n", title, bits[label], cells("demo-arith", label), cells("demo-facts", label), bold, kl[label], bold
    }' "$new/data/comparisons.tsv" "$new/data/kld.tsv" "$new/report.md" - > build/demo/table.md
awk '/<!-- demo-table -->/ { print; while ((getline line < "build/demo/table.md") > 0) print line; skip = 1 }
     /<!-- \/demo-table -->/ { skip = 0 }
     !skip' README.md > build/demo/README.md
cat build/demo/README.md > README.md
echo "published: $old, README.md"
