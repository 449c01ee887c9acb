# --chat off, on and auto on a folder and on the GGUF that convert makes of it: a vocabulary of bytes and markers over
# stories260K, and templates of a family that is known and of none.
. tests/lib.sh
need_shared models/stories260K/hf_f32/config.json
hf=$work/hf
mkdir "$hf"; cp "$SHARED_DATA"/models/stories260K/hf_f32/* "$hf/"; chmod u+w "$hf"/*

# 0-2 <unk> <bos> <eos>, 3-258 the bytes, 259 a space, 260-285 letters, 286 "th", 287 " th", 288-289 markers, 290 a newline
awk 'BEGIN {
    sp = "\342\226\201"; letters = "abcdefghijklmnopqrstuvwxyz"
    printf "{\"added_tokens\":["
    split("<unk> <bos> <eos> <start_of_turn> <end_of_turn>", name, " "); split("0 1 2 288 289", id, " ")
    for (i = 1; i <= 5; i++) printf "%s{\"id\":%d,\"content\":\"%s\",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,\"normalized\":false,\"special\":true}", (i == 1 ? "" : ","), id[i], name[i]
    printf "],\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"%s\"},", sp
    printf "\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\",\"invert\":false},"
    printf "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<bos>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<bos>\":{\"id\":\"<bos>\",\"ids\":[1],\"tokens\":[\"<bos>\"]}}},"
    printf "\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"Replace\",\"pattern\":{\"String\":\"%s\"},\"content\":\" \"},{\"type\":\"ByteFallback\"},{\"type\":\"Fuse\"}]},", sp
    printf "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":\"<unk>\",\"fuse_unk\":true,\"byte_fallback\":true,\"ignore_merges\":false,\"vocab\":{\"<unk>\":0,\"<bos>\":1,\"<eos>\":2"
    for (i = 0; i < 256; i++) printf ",\"<0x%02X>\":%d", i, i + 3
    printf ",\"%s\":259", sp
    for (i = 1; i <= 26; i++) printf ",\"%s\":%d", substr(letters, i, 1), i + 259
    printf ",\"th\":286,\"%sth\":287,\"<start_of_turn>\":288,\"<end_of_turn>\":289,\"\\n\":290},\"merges\":[\"t h\",\"%s th\"]}}\n", sp, sp
}' >"$hf/tokenizer.json"
known='{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m["role"] }}{{ m["content"] | trim }}<end_of_turn>{% endfor %}'
printf '%s' "$known" >"$hf/chat_template.jinja"

convert() { "$QDELTA" convert --quiet -o "$1" "$hf"; }
check "folder with vocabulary and template to GGUF" convert "$work/gemma.gguf"
printf '[INST] {{ messages[0]["content"] }} [/INST]' >"$hf/chat_template.jinja"
check "the same with a template of no family" convert "$work/strange.gguf"
rm "$hf/chat_template.jinja"
check "and with none" convert "$work/plain.gguf"

# The vocabulary went along: same ids from the folder and from the GGUF, BOS once.
ids() { "$QDELTA" tokenize "$1" --ids --text "$2"; }
n=0
for text in "the" " this thing" "Th" "a  b" "na
ive" "caf$(printf '\303\251') <start_of_turn>" ""; do
    n=$((n + 1)); check "text $n: the folder's ids" test "$(ids "$hf" "$text")" = "$(ids "$work/gemma.gguf" "$text")"
done
check "BOS once" test "$(ids "$work/gemma.gguf" "the")" = "1 286 264"
check "no BOS when told so" test "$("$QDELTA" tokenize "$work/gemma.gguf" --ids --no-bos --text "the")" = "286 264"

# generate: --chat on is the template's text, tokenized with its markers.
gen() { "$QDELTA" generate "$@" -n 6 --ids --quiet; }
wrapped="<bos><start_of_turn>user
the<end_of_turn>
<start_of_turn>model
"
gen "$work/gemma.gguf" --prompt the --chat on >"$work/on"
gen "$work/gemma.gguf" --prompt the --chat off >"$work/off"
gen "$work/gemma.gguf" --prompt "$wrapped" --chat off --special --no-bos >"$work/by_hand"
gen "$work/plain.gguf" --prompt the --chat auto >"$work/auto"
check "--chat on asks what the template says, BOS once" cmp "$work/on" "$work/by_hand"
check "--chat on differs from off" sh -c "! cmp -s $work/on $work/off"
check "without a template auto is off" cmp "$work/auto" "$work/off"
expect "--system with --chat off" 2 "--system needs a chat template; --chat is off" gen "$work/gemma.gguf" --prompt the --chat off --system be
expect "--think without a template" 2 "--think needs a chat template; the model has none" gen "$work/plain.gguf" --prompt the --think
expect "--system, unknown template" 2 "--system needs .* of no known family" gen "$work/strange.gguf" --prompt the --system be
json=$(printf '%s' "$known" | sed 's/"/\\"/g')
strange='{"name":"tool_use","template":"[INST]"}'
echo "{\"chat_template\":[$strange,{\"name\":\"default\",\"template\":\"$json\"}]}" >"$hf/tokenizer_config.json"
check "the default one of several templates" sh -c "'$QDELTA' generate '$hf' --prompt the --chat on -n 6 --ids --quiet | cmp - '$work/on'"
echo "{\"chat_template\":[$strange]}" >"$hf/tokenizer_config.json"
expect "several, none of them the default" 1 "no chat template" gen "$hf" --prompt the --chat on
echo "{\"chat_template\":\"$json\"}" >"$hf/chat_template.json"
check "a template in chat_template.json" sh -c "'$QDELTA' generate '$hf' --prompt the --chat on -n 6 --ids --quiet | cmp - '$work/on'"
rm "$hf/chat_template.json" "$hf/tokenizer_config.json"
expect "--chat on, unknown template" 1 "strange.gguf.*\[INST\].*gemma3" gen "$work/strange.gguf" --prompt the --chat on
expect "--chat on, no template" 1 "plain.gguf.*no chat template" gen "$work/plain.gguf" --prompt the --chat on

# run: the template's name is part of the run, and prompts are those of the family.
need_shared mmlu/test/abstract_algebra_test.csv
run() { "$QDELTA" run -m "m=$work/$1.gguf" -t mmlu --data "$SHARED_DATA" --limit 2 --shots 0 --quiet --db "$work/$1-$2.db" --chat "$2" >"$work/out" 2>"$work/err"; }
template() { "$QDELTA" export --db "$1" | grep '"type": *"run"' | grep -o '"template[a-z_]*": *"[^"]*"' | tr '\n' ' '; }
hashes() { "$QDELTA" export --db "$1" | grep -o '"prompt_hash": *"[^"]*"' | sort; }
run gemma auto; run gemma on; run gemma off; run strange auto; run strange off
check "auto takes a known template" sh -c "case '$(template "$work/gemma-auto.db")' in *gemma3*) ;; *) exit 1 ;; esac"
check "auto asks what on asks" test "$(hashes "$work/gemma-auto.db")" = "$(hashes "$work/gemma-on.db")"
check "off asks something else" test "$(hashes "$work/gemma-auto.db")" != "$(hashes "$work/gemma-off.db")"
check "off with a template is off without one" test "$(hashes "$work/strange-off.db")" = "$(hashes "$work/gemma-off.db")"
check "auto with an unknown template is off" test "$(hashes "$work/strange-auto.db")" = "$(hashes "$work/strange-off.db")"
expect "auto with an unknown template says so" 0 "m has a chat template of no known family" "$QDELTA" run -m "m=$work/strange.gguf" -t mmlu \
    --data "$SHARED_DATA" --limit 2 --shots 0 --db "$work/said.db"
check "there were hashes" test -n "$(hashes "$work/gemma-auto.db")"
expect "run --chat on, unknown template" 1 "strange.gguf.*\[INST\]" "$QDELTA" run -m "m=$work/strange.gguf" -t mmlu --data "$SHARED_DATA" --limit 2 --quiet --db "$work/n.db" --chat on
finish
