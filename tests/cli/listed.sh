# The table in tests/README.md names tests that exist and are run; `list models` names the models that are run.
. tests/lib.sh
grep -o 'test_[a-z0-9_]*\.c: test_[a-z0-9_, ]*' tests/README.md | while IFS= read -r line; do
    file=tests/unit/${line%%:*}
    for t in $(printf '%s' "${line#*: }" | tr ',' ' '); do
        case $t in test_*) grep -q "cmocka_unit_test($t)" "$file" || echo "$file has no $t" ;; esac
    done
done >"$work/missing"
check "every test named in tests/README.md is run" sh -c "cat '$work/missing'; test ! -s '$work/missing'"
for f in $(grep -o 'cli/[a-z_]*\.sh' tests/README.md | sort -u); do check "$f is here" test -e "tests/$f"; done
"$QDELTA" list models >"$work/models"
for m in "Gemma 4" "Gemma 3" "Gemma 2" "Llama 2 and 3.x" Qwen2.5 Qwen3 Qwen3-MoE SmolLM2 SmolLM3 Mistral; do
    check "list models names $m" grep -q "^architecture.*$m" "$work/models"
done
finish
