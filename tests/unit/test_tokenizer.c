/* test_tokenizer.c - small vocabularies made here: the rules one by one, bad specs, bad tokenizer.json files. */
#include "vocab_files.h"

#include "model/tokenizer_private.h"

/* ---- toys: a vocabulary that grows by calls ---- */

enum { TOY_MAX = 512 };
struct toy {
    struct tokenizer_spec spec;
    const char *tokens[TOY_MAX], *merges[32];
    uint32_t lens[TOY_MAX];
    float scores[TOY_MAX];
    int32_t types[TOY_MAX];
    char bytes[256][8];
};

static int toy_add(struct toy *y, const char *text, int type, float score)
{
    int id = y->spec.n_tokens++;
    y->tokens[id] = text;
    y->lens[id] = (uint32_t)strlen(text);
    y->types[id] = type;
    y->scores[id] = score;
    return id;
}

static void toy_merge(struct toy *y, const char *merge)
{
    y->merges[y->spec.n_merges++] = merge;
}

/* SPM and raw BPE: <unk> 0, <s> 1, </s> 2, bytes 3..258; byte-level: bytes 0..255 by their stand-ins. */
static struct toy *toy_new(const char *kind, const char *pre)
{
    struct toy *y = calloc(1, sizeof *y);
    y->spec = (struct tokenizer_spec){ .where = "toy", .kind = kind, .pre = pre, .tokens = y->tokens,
                                       .token_lens = y->lens, .types = y->types, .merges = y->merges,
                                       .bos = -1, .eos = -1, .unk = -1, .pad = -1 };
    bool byte_level = strcmp(kind, "gpt2") == 0;
    if (!byte_level) {
        toy_add(y, "<unk>", TOKEN_UNKNOWN, 0);
        toy_add(y, strcmp(kind, "llama") == 0 ? "<s>" : "<bos>", TOKEN_CONTROL, 0);
        toy_add(y, "</s>", TOKEN_CONTROL, 0);
        y->spec.bos = 1;
    }
    for (int b = 0; b < 256; b++) {
        struct text name = { 0 };
        char byte = (char)b;
        if (byte_level)
            add_stand_ins(&name, &byte, 1);
        else
            text_printf(&name, "<0x%02X>", b);
        snprintf(y->bytes[b], sizeof y->bytes[b], "%s", name.data);
        text_free(&name);
        toy_add(y, y->bytes[b], byte_level ? TOKEN_NORMAL : TOKEN_BYTE, 0);
    }
    y->spec.scores = strcmp(kind, "llama") == 0 ? y->scores : NULL;
    return y;
}

static struct tokenizer *toy_build(struct toy *y)
{
    struct error err;
    struct tokenizer *t;
    MUST(tokenizer_new(&t, &y->spec, &err));
    free(y);
    return t;
}

/* "a|b|<s>": the texts of the ids, so a row reads without a table of numbers. */
static void check_cut(const struct tokenizer *t, const char *text, bool parse_special, const char *want)
{
    struct error err;
    struct ids ids = { 0 };
    struct text got = { 0 };
    MUST(tokenizer_encode(t, text, strlen(text), false, parse_special, &ids, &err));
    for (size_t i = 0; i < ids.n; i++) {
        size_t len;
        const char *name = tokenizer_token(t, ids.data[i], &len, NULL);
        text_printf(&got, "%s%s", i ? "|" : "", name);
    }
    CHECK(strcmp(text_str(&got), want) == 0, "\"%s\" is cut %s, expected %s", text, text_str(&got), want);
    text_free(&got);
    ids_free(&ids);
}

/* ---- rules ---- */

#define M "\xE2\x96\x81"        /* the mark that stands for a blank */

static void test_spm_order(void **state)
{
    (void)state;
    struct toy *y = toy_new("llama", NULL);
    static const struct { const char *text; float score; } tokens[] = {
        { "a", -9 }, { "b", -9 }, { "c", -9 }, { M, -9 }, { "ab", -2 }, { "bc", -1 }, { "aa", -3 }, { "abc", -4 },
        { M "a", -5 },
        /* "xy" can be reached although neither "x" nor "y" is a token; "z" stays bytes */
        { "xy", -6 }, { "xyz", -7 },
    };
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++)
        toy_add(y, tokens[i].text, TOKEN_NORMAL, tokens[i].score);
    struct tokenizer *t = toy_build(y);
    check_cut(t, "ab", false, "ab");
    check_cut(t, "abc", false, "abc");          /* bc first, then a + bc */
    check_cut(t, "aaa", false, "aa|a");         /* equal scores: the left-most pair */
    check_cut(t, "aaaa", false, "aa|aa");
    check_cut(t, "a ab", false, "a|" M "|ab");
    check_cut(t, " a", false, M "a");
    check_cut(t, "xy", false, "xy");
    check_cut(t, "xyz", false, "xyz");
    check_cut(t, "yx", false, "<0x79>|<0x78>");
    check_cut(t, "\xC3\xA9", false, "<0xC3>|<0xA9>");
    check_cut(t, "a\xFFz", false, "a|<0xFF>|<0x7A>");
    check_cut(t, "", false, "");
    tokenizer_free(t);
}

/* "<s>" has the best score of all and its letters are tokens: plain text must still not become it. */
static void test_spm_control_is_not_merged(void **state)
{
    (void)state;
    struct toy *y = toy_new("llama", NULL);
    static const char *const tokens[] = { "<", "s", ">", "<s", "s>", "/", "</", "0", "x", "4", "1", "<0", "<0x", "<0x4", "1>" };
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++)
        toy_add(y, tokens[i], TOKEN_NORMAL, -1);
    struct tokenizer *t = toy_build(y);
    check_cut(t, "<s>", false, "<s|>");
    check_cut(t, "</s>", false, "</|s>");
    check_cut(t, "<0x41>", false, "<0x4|1>");
    check_cut(t, "<s></s>s", true, "<s>|</s>|s");
    tokenizer_free(t);
}

static void test_space_prefix(void **state)
{
    (void)state;
    struct toy *y = toy_new("llama", NULL);
    toy_add(y, M, TOKEN_NORMAL, -1);
    toy_add(y, "a", TOKEN_NORMAL, -1);
    toy_add(y, M "a", TOKEN_NORMAL, -1);
    y->spec.add_space_prefix = true;
    y->spec.add_bos = true;
    struct tokenizer *t = toy_build(y);
    check_cut(t, "a", false, M "a");
    check_cut(t, " a", false, M "|" M "a");
    check_cut(t, "a<s>a</s>", true, M "a|<s>|" M "a|</s>");
    check_cut(t, "", false, "");
    struct text out = { 0 };
    const int32_t ids[] = { 1, tokenizer_find(t, M "a"), tokenizer_find(t, M "a"), 2 };
    tokenizer_decode_all(t, ids, ARRAY_LEN(ids), &out);
    CHECK(strcmp(text_str(&out), "a a") == 0, "decoded to \"%s\", expected \"a a\"", text_str(&out));
    text_free(&out);
    tokenizer_free(t);
}

static struct tokenizer *raw_bpe(void)
{
    struct toy *y = toy_new("gemma4", NULL);
    static const char *const tokens[] = { "a", "b", "c", M, "\n", "ab", "bc", "abc", M "a", "\n\n", "\n\n\n\n\n", "<|turn>" };
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++)
        toy_add(y, tokens[i], TOKEN_NORMAL, 0);
    toy_add(y, "<html>", TOKEN_USER_DEFINED, 0);
    toy_add(y, "<html><body>", TOKEN_USER_DEFINED, 0);
    toy_add(y, "<|channel>", TOKEN_CONTROL, 0);
    toy_merge(y, "b c");
    toy_merge(y, "a b");
    toy_merge(y, "a bc");
    toy_merge(y, M " a");
    toy_merge(y, "\n \n");
    y->spec.bos = -1;           /* found by its text */
    return toy_build(y);
}

static void test_raw_bpe(void **state)
{
    (void)state;
    struct tokenizer *t = raw_bpe();
    check_cut(t, "abc", false, "abc");
    check_cut(t, "ab ab a", false, "ab|" M "|ab|" M "a");
    check_cut(t, "\n\n\n", false, "\n\n|\n");
    check_cut(t, "\n\n\n\n\n", false, "\n\n\n\n\n");        /* no merge makes five: the whole run is looked up */
    check_cut(t, "a\n\n\n\n\nb", false, "a|\n\n\n\n\n|b");
    check_cut(t, "\n\n\n\n\n\n", false, "\n\n|\n\n|\n\n");
    check_cut(t, "a<html>b", false, "a|<html>|b");
    check_cut(t, "<html><body>a<html>", false, "<html><body>|a|<html>");
    /* A turn marker is a control token although this file calls it normal; an answer marker always counts. */
    check_cut(t, "<|turn>a", true, "<|turn>|a");
    check_cut(t, "<|", false, "<0x3C>|<0x7C>");
    check_cut(t, "<|channel>a", false, "<|channel>|a");
    CHECK(tokenizer_bos(t) == tokenizer_find(t, "<bos>"), "Gemma 4 has BOS %d", tokenizer_bos(t));
    tokenizer_free(t);
}

static void test_byte_level(void **state)
{
    (void)state;
    struct toy *y = toy_new("gpt2", "llama-bpe");
    static const char *const tokens[] = { "ab", "\xC4\xA0\x61", "\xC3\x83\xC2\xA9", "abab" };
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++)
        toy_add(y, tokens[i], TOKEN_NORMAL, 0);
    toy_add(y, "<|end|>", TOKEN_CONTROL, 0);
    toy_merge(y, "a b");
    toy_merge(y, "\xC4\xA0 a");
    toy_merge(y, "\xC3\x83 \xC2\xA9");
    struct tokenizer *t = toy_build(y);
    check_cut(t, "ab ab a", false, "ab|\xC4\xA0|ab|\xC4\xA0" "a");
    check_cut(t, "abab", false, "abab");        /* no merge makes it: llama-bpe takes whole words first */
    check_cut(t, "\xC3\xA9", false, "\xC3\x83\xC2\xA9");
    check_cut(t, "\xC3", false, "\xC3\x83");    /* half a character */
    check_cut(t, "<|end|>", true, "<|end|>");
    check_cut(t, "1234", false, "1|2|3|4");
    struct text out = { 0 };
    tokenizer_decode(t, tokenizer_find(t, "<|end|>"), false, &out);
    CHECK(!out.len, "a control token prints \"%s\"", text_str(&out));
    tokenizer_decode(t, tokenizer_find(t, "<|end|>"), true, &out);
    tokenizer_decode(t, tokenizer_find(t, "\xC4\xA0" "a"), false, &out);
    tokenizer_decode(t, -1, true, &out);
    tokenizer_decode(t, 1 << 30, true, &out);
    CHECK(strcmp(text_str(&out), "<|end|> a") == 0, "decoded to \"%s\"", text_str(&out));
    text_free(&out);
    tokenizer_free(t);
}

/* SmolLM's vocabulary lacks bytes its training text never had: such a byte is dropped, as elsewhere. */
static void test_byte_level_without_a_byte(void **state)
{
    (void)state;
    struct toy *y = toy_new("gpt2", "gpt-2");
    y->tokens[0xF1] = "[F1]", y->lens[0xF1] = 4;
    toy_add(y, "ab", TOKEN_NORMAL, 0);
    toy_merge(y, "a b");
    struct tokenizer *t = toy_build(y);
    check_cut(t, "a\xF1" "b", false, "a|b");
    check_cut(t, "\xF1", false, "");
    tokenizer_free(t);
}

static void test_hash(void **state)
{
    (void)state;
    char first[65], second[65];
    struct error err;
    for (int i = 0; i < 3; i++) {
        struct toy *y = toy_new("gpt2", i == 2 ? "qwen2" : "gpt-2");
        toy_add(y, "ab", TOKEN_NORMAL, 0);
        toy_merge(y, "a b");
        struct tokenizer *t = toy_build(y);
        MUST(tokenizer_hash(t, i ? second : first, &err));
        CHECK(i != 1 || strcmp(first, second) == 0, "one vocabulary, digests %s and %s", first, second);
        CHECK(i != 2 || strcmp(first, second) != 0, "two pre-tokenizers, one digest %s", first);
        tokenizer_free(t);
    }
}

/* ---- bad specs ---- */

typedef void damage(struct toy *y);

static void no_tokens(struct toy *y) { y->spec.n_tokens = 0; }
static void negative_tokens(struct toy *y) { y->spec.n_tokens = -5; }
static void huge_count(struct toy *y) { y->spec.n_tokens = INT32_MAX; }
static void huge_length(struct toy *y) { y->lens[7] = UINT32_MAX; }
static void unknown_kind(struct toy *y) { y->spec.kind = "t5"; }
static void null_kind(struct toy *y) { y->spec.kind = NULL; }
static void bad_type(struct toy *y) { y->types[9] = 99; }
static void missing_byte(struct toy *y) { y->tokens[13] = "?", y->lens[13] = 1; }
static void twice(struct toy *y) { toy_add(y, "ab", TOKEN_NORMAL, 0); }
static void bos_outside(struct toy *y) { y->spec.bos = 100000; }
static void unk_outside(struct toy *y) { y->spec.unk = -7; }
static void no_scores(struct toy *y) { y->spec.scores = NULL; }
static void nan_score(struct toy *y) { y->scores[y->spec.n_tokens - 1] = NAN; }
static void no_merges(struct toy *y) { y->spec.n_merges = 0; }
static void many_merges(struct toy *y) { y->spec.n_merges = INT64_MAX; }
static void negative_merges(struct toy *y) { y->spec.n_merges = -1; }
static void unknown_left(struct toy *y) { toy_merge(y, "q\xC3\xA9 b"); }
static void unknown_sum(struct toy *y) { toy_merge(y, "b a"); }
static void no_blank(struct toy *y) { toy_merge(y, "ab"); }
static void empty_merge(struct toy *y) { toy_merge(y, ""); }
static void only_blank(struct toy *y) { toy_merge(y, " "); }
static void unknown_pre(struct toy *y) { y->spec.pre = "deepseek-llm"; }
static void null_pre(struct toy *y) { y->spec.pre = NULL; }
static void no_letter(struct toy *y) { y->tokens['q'] = "[q]", y->lens['q'] = 3; }
static void no_bos(struct toy *y) { y->spec.bos = -1, y->tokens[1] = "?!", y->lens[1] = 2, y->spec.add_bos = true; }

static void test_bad_specs(void **state)
{
    (void)state;
    static const struct { const char *kind; damage *damage; const char *says; } rows[] = {
        { "llama", no_tokens, "vocabulary of 0 tokens" },
        { "llama", negative_tokens, "vocabulary of -5 tokens" },
        { "gpt2", huge_count, "vocabulary of 2147483647 tokens" },
        { "llama", huge_length, "token 7 is 4294967295 bytes" },
        { "llama", unknown_kind, "\"t5\" is not one of llama, gemma4, gpt2" },
        { "llama", null_kind, "not one of llama" },
        { "gemma4", bad_type, "token 9 has type 99" },
        { "llama", missing_byte, "no byte token <0x0A>" },
        { "gemma4", missing_byte, "no byte token <0x0A>" },
        { "gpt2", twice, "are both \"ab\"" },
        { "llama", twice, "are both \"ab\"" },
        { "llama", bos_outside, "bos token id is 100000" },
        { "gpt2", unk_outside, "unk token id is -7" },
        { "llama", no_scores, "no scores" },
        { "llama", nan_score, "not a number" },
        { "gpt2", no_merges, "no merges" },
        { "gemma4", no_merges, "no merges" },
        { "gpt2", many_merges, "9223372036854775807 merges" },
        { "gpt2", negative_merges, "-1 merges" },
        { "gpt2", unknown_left, "unknown token" },
        { "gemma4", unknown_left, "unknown token" },
        { "gpt2", unknown_sum, "gives \"ba\", which is no token" },
        { "gemma4", unknown_sum, "gives \"ba\", which is no token" },
        { "gpt2", no_blank, "expected two tokens" },
        { "gpt2", empty_merge, "expected two tokens" },
        { "gemma4", only_blank, "expected two tokens" },
        { "gpt2", unknown_pre, "pre-tokenizer \"deepseek-llm\" is not one of llama-bpe, llama3" },
        { "gpt2", null_pre, "pre-tokenizer \"(none)\"" },
        { "gpt2", no_letter, "no token for byte 0x71" },
        { "llama", no_bos, "no <s>" },
        { "gemma4", no_bos, "no <bos>" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct error err = { 0 };
        struct tokenizer *t;
        struct toy *y = toy_new(rows[i].kind, strcmp(rows[i].kind, "gpt2") == 0 ? "gpt-2" : NULL);
        bool letters = y->spec.bos >= 0;
        if (letters)
            toy_add(y, "a", TOKEN_NORMAL, -1), toy_add(y, "b", TOKEN_NORMAL, -1);
        toy_add(y, "ab", TOKEN_NORMAL, -1);
        toy_merge(y, "a b");
        rows[i].damage(y);
        CHECK(!tokenizer_new(&t, &y->spec, &err), "row %zu (%s, %s) is accepted", i, rows[i].kind, rows[i].says);
        CHECK(!t && str_starts(err.text, "toy: ") && strstr(err.text, rows[i].says),
              "row %zu says \"%s\", expected \"toy: ... %s\"", i, err.text, rows[i].says);
        free(y);
    }
}

/* ---- pre-tokenizers against the library that reads tokenizer.json (tests/golden/record_pretokenizers.py) ---- */

struct pieces {
    const char *text;
    const cJSON *want;          /* the next one */
    const char *what;
    bool ok;
};

static bool check_piece(void *ctx, size_t offset, size_t len, struct error *err)
{
    struct pieces *p = ctx;
    const char *want = cJSON_GetStringValue(p->want);
    (void)err;
    p->ok &= want && strlen(want) == len && memcmp(p->text + offset, want, len) == 0;
    if (!p->ok)
        print_error("%s, \"%s\": piece \"%.*s\", expected \"%s\"\n", p->what, p->text, (int)len, p->text + offset, want ? want : "none");
    p->want = p->want ? p->want->next : NULL;
    return p->ok;
}

static void check_pieces(const cJSON *row)
{
    struct error err = { 0 };
    const char *pre, *text;
    const cJSON *pieces;
    MUST(json_str(row, "pre", &pre, "row", &err));
    MUST(json_str(row, "text", &text, "row", &err));
    MUST(json_array(row, "pieces", &pieces, "row", &err));
    struct toy *y = toy_new("gpt2", pre);
    toy_add(y, "ab", TOKEN_NORMAL, 0);
    toy_merge(y, "a b");
    struct tokenizer *t = toy_build(y);
    struct pieces p = { text, pieces->child, pre, true };
    pretokenizer_split(t, text, 0, strlen(text), check_piece, &p, &err);
    CHECK(p.ok && !p.want, "%s, \"%s\": other pieces%s", pre, text, p.want ? ", some are missing" : "");
    tokenizer_free(t);
}

static void test_pieces(void **state)
{
    (void)state;
    struct error err;
    struct text file = { 0 };
    int rows = 0;
    MUST(file_read("tests/golden/pretokenizers.jsonl", 1 << 20, &file, &err));
    for (char *line = file.data, *end; (end = strchr(line, '\n')); line = end + 1, rows++) {
        cJSON *row = json_parse(line, (size_t)(end - line), "pretokenizers.jsonl", &err);
        CHECK(row, "%s", err.text);
        check_pieces(row);
        cJSON_Delete(row);
    }
    CHECK(rows >= 150, "%d rows", rows);
    text_free(&file);
}

/* Names in GGUF files for one rule; the first is what is written. */
static void test_pre_names(void **state)
{
    (void)state;
    static const struct { const char *name, *rule; bool bos; } rows[] = {
        { "llama3", "llama-bpe", true }, { "falcon3", "llama-bpe", true }, { "dbrx", "smaug-bpe", false }, { "deepseek-r1-qwen", "qwen2", false },
        { "starcoder", "smollm", false }, { "refact", "smollm", false }, { "command-r", "smollm", false }, { "mpt", "gpt-2", false },
        { "phi-2", "gpt-2", false }, { "llama4", "gpt-4o", false }, { "tekken", "tekken", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct pretokenizer *p = pretokenizer_find(rows[i].name);
        CHECK(p && strcmp(pretokenizer_name(p), rows[i].rule) == 0, "%s is %s, expected %s", rows[i].name, p ? pretokenizer_name(p) : "unknown", rows[i].rule);
        CHECK(pretokenizer_adds_bos(rows[i].name) == rows[i].bos, "%s: BOS", rows[i].name);
    }
}

/* ---- tokenizer.json ---- */

static bool load_json(struct tokenizer **t, const char *json, size_t len, struct error *err)
{
    char folder[] = "/tmp/qdelta-json-XXXXXX", path[64];
    CHECK(mkdtemp(folder), "no folder in /tmp");
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    FILE *f = fopen(path, "wb");
    CHECK(f && fwrite(json, 1, len, f) == len && fclose(f) == 0, "%s cannot be written", path);
    bool ok = tokenizer_from_json(t, path, err);
    remove(path);
    remove(folder);
    return ok;
}

static struct tokenizer *must_load(const char *json)
{
    struct error err;
    struct tokenizer *t;
    MUST(load_json(&t, json, strlen(json), &err));
    return t;
}

/* A file in the manner of Gemma: <bos> 0, bytes 1..256, then the given members of vocab from id 257 on. */
static char *marked_json(const char *added, const char *normalizer, const char *pre, const char *vocab, const char *merges,
                         const char *model_extra)
{
    struct text j = { 0 };
    text_printf(&j, "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":0,\"content\":\"<bos>\",\"special\":true}%s],"
                    "\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":null,\"decoder\":null,"
                    "\"model\":{\"type\":\"BPE\",\"byte_fallback\":true%s,\"vocab\":{\"<bos>\":0",
                added, normalizer, pre, model_extra);
    for (int b = 0; b < 256; b++)
        text_printf(&j, ",\"<0x%02X>\":%d", b, b + 1);
    text_printf(&j, "%s},\"merges\":%s}}", vocab, merges);
    return j.data;
}

#define REPLACE "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\\u2581\"}"
#define VOCAB ",\"a\":257,\"b\":258,\"\\u2581\":259,\"ab\":260,\"\\u2581a\":261"
#define MERGES "[[\"a\",\"b\"],\"\\u2581 a\"]"

static void test_json_marked(void **state)
{
    (void)state;
    static const struct { const char *added, *normalizer, *pre, *text, *want; } rows[] = {
        { "", REPLACE, "null", "ab ab", "ab|" M "|ab" },
        { "", REPLACE, "{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\",\"invert\":false}",
          " a", M "a" },
        { "", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"\\u2581\"}," REPLACE "]}", "null",
          " a<bos>a", M "|" M "a|<bos>|" M "a" },
        { "", "null", "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"always\",\"split\":false}",
          " a<bos>a", M "a|<bos>|" M "a" },
        { "", "null", "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"first\",\"split\":false}",
          "a<bos>a", M "a|<bos>|a" },
        { "", "null", "{\"type\":\"Metaspace\",\"replacement\":\"\\u2581\",\"prepend_scheme\":\"never\",\"split\":true}",
          "a a", "a|" M "a" },
        { ",{\"id\":262,\"content\":\"[x]\",\"special\":false}", REPLACE, "null", "a [x] b", "a|" M "|[x]|" M "|b" },
        { ",{\"id\":262,\"content\":\"[x]\",\"special\":false,\"lstrip\":true,\"rstrip\":true}", REPLACE, "null",
          "a [x] b", "a|[x]|b" },
        { ",{\"id\":262,\"content\":\"xy\",\"special\":false,\"single_word\":true}", REPLACE, "null",
          "axy xy xya", "a|<0x78>|<0x79>|" M "|xy|" M "|<0x78>|<0x79>|a" },
        { ",{\"id\":262,\"content\":\"[x\",\"special\":false},{\"id\":263,\"content\":\"[xx\",\"special\":false},"
          "{\"id\":264,\"content\":\"xx]\",\"special\":false}", REPLACE, "null", "[xx][x", "[xx|<0x5D>|[x" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *json = marked_json(rows[i].added, rows[i].normalizer, rows[i].pre, VOCAB, MERGES, "");
        struct tokenizer *t = must_load(json);
        check_cut(t, rows[i].text, true, rows[i].want);
        tokenizer_free(t);
        free(json);
    }
}

static void test_json_escapes(void **state)
{
    (void)state;
    char *json = marked_json("", REPLACE, "null", ",\"\\\"\":257,\"\\\\\":258,\"\\ud83d\\ude00\":259,\"\\t\\u0000\":260,"
                             "\"\\\"\\\\\":261", "[\"\\\" \\\\\"]", ",\"unk_token\":null");
    struct tokenizer *t = must_load(json);
    check_cut(t, "\"\\", false, "\"\\");
    check_cut(t, "\xF0\x9F\x98\x80", false, "\xF0\x9F\x98\x80");
    size_t len;
    const char *token = tokenizer_token(t, 260, &len, NULL);
    CHECK(len == 2 && memcmp(token, "\t\0", 2) == 0, "a token with a NUL has %zu bytes", len);
    CHECK(!tokenizer_token(t, 262, &len, NULL), "there is a token 262");
    tokenizer_free(t);
    free(json);
}

/* Byte-level files need all printable bytes: 0..255 by their stand-ins, then "ab". */
static char *byte_json(const char *pre, const char *normalizer, const char *post)
{
    struct text j = { 0 };
    text_printf(&j, "{\"added_tokens\":[{\"id\":257,\"content\":\"<|b|>\",\"special\":true}],\"normalizer\":%s,"
                    "\"pre_tokenizer\":%s,\"post_processor\":%s,\"model\":{\"vocab\":{", normalizer, pre, post);
    for (int b = 0; b < 256; b++) {
        char byte = (char)b;
        struct text name = { 0 };
        add_stand_ins(&name, &byte, 1);
        text_printf(&j, "\"%s%s\":%d,", b == '"' || b == '\\' ? "\\" : "", name.data, b);
        text_free(&name);
    }
    text_puts(&j, "\"ab\":256},\"merges\":[\"a b\"]}}");
    return j.data;
}

#define LLAMA3_PATTERN \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?\\\\p{L}+|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n]*|\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+"
#define SPLIT(pattern) \
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" pattern "\"},\"behavior\":\"Isolated\",\"invert\":false}," \
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}]}"
#define BYTE_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":true}"
#define BOS_POST "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<|b|>\"}},{\"Sequence\":{\"id\":\"A\"}}]}"

static void test_json_byte_level(void **state)
{
    (void)state;
    static const struct { const char *pre, *normalizer, *post; int bos; } rows[] = {
        { BYTE_LEVEL, "null", "null", -1 },
        { SPLIT(LLAMA3_PATTERN), "null", "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\"}," BOS_POST "]}", 257 },
        { SPLIT(LLAMA3_PATTERN), "{\"type\":\"NFC\"}", BOS_POST, 257 },
        { "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true}," BYTE_LEVEL "]}", "null",
          "{\"type\":\"ByteLevel\"}", -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *json = byte_json(rows[i].pre, rows[i].normalizer, rows[i].post);
        struct tokenizer *t = must_load(json);
        check_cut(t, "ab ab", false, "ab|\xC4\xA0|ab");
        CHECK(tokenizer_bos(t) == rows[i].bos, "row %zu has BOS %d, expected %d", i, tokenizer_bos(t), rows[i].bos);
        CHECK(strcmp(tokenizer_kind(t), "gpt2") == 0, "row %zu is a %s", i, tokenizer_kind(t));
        check_cut(t, "e\xCC\x81", false, i == 2 ? "\xC3\x83|\xC2\xA9" : "e|\xC3\x8C|\xC4\xA3");
        tokenizer_free(t);
        free(json);
    }
}

static void test_bad_json(void **state)
{
    (void)state;
    static const char *const good = "null";
    const struct { char *json; const char *says; } rows[] = {
        { strdup("{"), "expected '\"'" },
        { strdup("[]"), "expected '{'" },
        { strdup("{}"), "no \"model\"" },
        { strdup("{\"model\":{}} x"), "something follows" },
        { strdup("{\"model\":{}}"), "no \"vocab\"" },
        { strdup("{\"model\":{\"vocab\":{}}}"), "vocabulary is empty" },
        { strdup("{\"model\":{\"vocab\":{\"a\":1}}}"), "ids are missing" },
        { strdup("{\"model\":{\"vocab\":{\"a\":0,\"b\":0}}}"), "both have id 0" },
        { strdup("{\"model\":{\"vocab\":{\"a\":0,\"a\":1}}}"), "stands twice" },
        { strdup("{\"model\":{\"vocab\":{\"a\":99999999999999999999}}}"), "not a whole number" },
        { strdup("{\"model\":{\"vocab\":{\"a\":-1}}}"), "not a whole number" },
        { strdup("{\"model\":{\"vocab\":{\"a\":1e3}}}"), "not a whole number" },
        { strdup("{\"model\":{\"vocab\":{\"\\ud800\":0}}}"), "bad escape" },
        { strdup("{\"model\":{\"vocab\":{\"\\q\":0}}}"), "bad escape" },
        { strdup("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a b\"]}}"), "unknown token \"b\"" },
        { strdup("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"a\"]}}"), "two tokens" },
        { strdup("{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}"), "expected ','" },
        { strdup("{\"model\":{\"vocab\":{\"a"), "does not end" },
        { strdup("{\"added_tokens\":[{\"id\":5}],\"model\":{\"vocab\":{\"a\":0}}}"), "\"content\" is nothing" },
        { strdup("{\"added_tokens\":[{\"id\":5,\"content\":\"a\"}],\"model\":{\"vocab\":{\"a\":0}}}"),
          "has id 5, the vocabulary says 0" },
        { strdup("{\"model\":{\"type\":\"Unigram\",\"vocab\":{\"a\":0}}}"), "model type \"Unigram\"" },
        { strdup("{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}"), "no ByteLevel, byte_fallback false" },
        { marked_json("", "{\"type\":\"Lowercase\"}", good, VOCAB, MERGES, ""), "normalizer {\"type\":\"Lowercase\"}" },
        { marked_json("", REPLACE, "{\"type\":\"Whitespace\"}", VOCAB, MERGES, ""), "pre_tokenizer {\"type\":\"Whitespace\"}" },
        { marked_json("", REPLACE, good, VOCAB, "[[\"b\",\"a\"]]", ""), "gives \"ba\"" },
        { marked_json("", REPLACE, good, VOCAB, "[]", ""), "no merges" },
        { marked_json("", REPLACE, good, VOCAB, MERGES, ",\"end_of_word_suffix\":\"</w>\""), "end_of_word_suffix" },
        { marked_json("", REPLACE, good, VOCAB, MERGES, ",\"dropout\":0.1"), "dropout" },
        { byte_json(SPLIT("\\\\w+"), good, good), "pre_tokenizer" },
        { byte_json("{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":true}", good, good), "pre_tokenizer" },
        { byte_json(BYTE_LEVEL, "{\"type\":\"NFKC\"}", good), "NFKC" },
        { byte_json(BYTE_LEVEL, good, "{\"type\":\"BertProcessing\"}"), "BertProcessing" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct error err = { 0 };
        struct tokenizer *t;
        CHECK(!load_json(&t, rows[i].json, strlen(rows[i].json), &err), "row %zu is accepted", i);
        CHECK(strstr(err.text, rows[i].says) && strstr(err.text, "tokenizer.json"), "row %zu says \"%s\", expected \"%s\"",
              i, err.text, rows[i].says);
        free(rows[i].json);
    }
    struct text deep = { 0 };
    struct error err;
    struct tokenizer *t;
    text_puts(&deep, "{\"x\":");
    for (int i = 0; i < 100000; i++)
        text_putc(&deep, '[');
    CHECK(!load_json(&t, deep.data, deep.len, &err) && strstr(err.text, "nested deeper"), "deep JSON: %s", err.text);
    text_free(&deep);
}

/* Every prefix of a good file, and the file with one byte changed: an error or a tokenizer, never a crash. */
static void test_damaged_json(void **state)
{
    (void)state;
    char *json = marked_json(",{\"id\":262,\"content\":\"[x]\",\"special\":false}", REPLACE, "null", VOCAB, MERGES, "");
    size_t len = strlen(json);
    struct error err;
    struct tokenizer *t;
    uint64_t seed = 3;
    for (int i = 0; i < 600; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        size_t at = (size_t)(seed >> 33) % len;
        char saved = json[at];
        if (i % 2)
            json[at] = (char)(seed >> 20);
        if (load_json(&t, json, i % 2 ? len : at + 1, &err)) {
            CHECK(i % 2, "the first %zu of %zu bytes are accepted", at + 1, len);
            tokenizer_free(t);
        }
        json[at] = saved;
    }
    free(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spm_order),     cmocka_unit_test(test_spm_control_is_not_merged),
        cmocka_unit_test(test_space_prefix),  cmocka_unit_test(test_raw_bpe),
        cmocka_unit_test(test_byte_level),    cmocka_unit_test(test_byte_level_without_a_byte),
        cmocka_unit_test(test_hash),          cmocka_unit_test(test_bad_specs),
        cmocka_unit_test(test_json_marked),   cmocka_unit_test(test_json_escapes),
        cmocka_unit_test(test_json_byte_level), cmocka_unit_test(test_bad_json),
        cmocka_unit_test(test_damaged_json),  cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_pre_names),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
