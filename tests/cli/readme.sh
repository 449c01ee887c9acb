# The README's own-task example, as it stands there, and the installed program run from elsewhere.
. tests/lib.sh
sed -n '/<!-- own-task -->/,/<!-- \/own-task -->/p' README.md | sed -n '/^```sh$/,/^```$/p' | sed '1d;$d' >"$work/example.sh"
check "the README has the example, of ten lines at most" sh -c "test -s '$work/example.sh' && test \$(wc -l <'$work/example.sh') -le 10"
root=$PWD
mkdir "$work/here"; ln -s "$root/build" "$work/here/build"; ln -s "$root/models" "$work/here/models"
if [ -e models/demo/bf16/model.safetensors ]; then
    expect "it runs" 0 "my-task .*acc" sh -c "cd '$work/here' && sed 's#build/qdelta#$QDELTA#' '$work/example.sh' | sh -e"
else
    skip "it runs" "models/demo/bf16 is not here"
fi
check "make install" make -s install PREFIX="$work/usr" BUILD="${BUILD:-build}"
expect "the installed program finds its tasks" 0 "mmlu" sh -c "cd '$work' && '$work/usr/bin/qdelta' list tasks"
finish
