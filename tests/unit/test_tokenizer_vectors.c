/* test_tokenizer_vectors.c - real vocabularies against recorded ids: llama.cpp's vectors, whole-file digests,
 * awkward texts, speed. */
#include <time.h>

#include "model/tokenizer_private.h"
#include "vocab_files.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

enum which { GEMMA_JSON, LLAMA_SPM, PHI_3, GPT_2, LLAMA_3, QWEN_2, N_VOCABS };
static struct tokenizer *vocabs[N_VOCABS];

#define VOCABS "tokenizers/llama_cpp_vocab/ggml-vocab-"
static const struct {
    const char *label, *file, *vectors, *digest;
    size_t tests;
} sources[N_VOCABS] = {
    [GEMMA_JSON] = { "gemma", "tokenizers/gemma3/tokenizer.json.gz", "gemma-4", NULL, 46 },
    [LLAMA_SPM] = { "llama-spm", VOCABS "llama-spm.gguf", "llama-spm", "llama-spm", 47 },
    [PHI_3] = { "phi-3", VOCABS "phi-3.gguf", "phi-3", "phi-3", 47 },
    [GPT_2] = { "gpt-2", VOCABS "gpt-2.gguf", "gpt-2", "gpt-2", 47 },
    [LLAMA_3] = { "llama3", "tokenizers/llama3/tokenizer.model", "llama-bpe", "llama3", 47 },
    [QWEN_2] = { "qwen2", "tokenizers/qwen/qwen.tiktoken", "qwen2", "qwen2", 47 },
};

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static struct tokenizer *load_gemma(const char *gz)
{
    struct error err;
    struct tokenizer *t;
    char path[256];
    unpacked(gz, "tokenizer.json", path);
    double begin = cpu_seconds();
    MUST(tokenizer_from_json(&t, path, &err));
    double spent = cpu_seconds() - begin;
    remove_unpacked(path);
    printf("gemma: tokenizer.json of 33 MB loaded in %.2f s\n", spent);
    return t;
}

static struct tokenizer *load(enum which which, const char *path)
{
    struct error err;
    struct tokenizer *t;
    struct vocab v;
    if (which == GEMMA_JSON)
        return load_gemma(path);
    static const char *const llama3[] = { "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                                          "<|end_header_id|>", "<|eot_id|>" };
    static const char *const qwen[] = { "<|endoftext|>", "<|im_start|>", "<|im_end|>" };
    if (which == LLAMA_3)
        vocab_ranks(&v, path, "llama-bpe", llama3, ARRAY_LEN(llama3));
    else if (which == QWEN_2)
        vocab_ranks(&v, path, "qwen2", qwen, ARRAY_LEN(qwen));
    else
        vocab_gguf(&v, path);
    if (which == LLAMA_3)
        v.spec.bos = 128000, v.spec.add_bos = true;
    MUST(tokenizer_new(&t, &v.spec, &err));
    vocab_free(&v);
    return t;
}

/* NULL when the shared data is absent. */
static const struct tokenizer *vocab_of(enum which which)
{
    const char *path = vocabs[which] ? NULL : shared_data(sources[which].file);
    if (path)
        vocabs[which] = load(which, path);
    return vocabs[which];
}
#define NEED_VOCAB(var, which)                          \
    const struct tokenizer *var = vocab_of(which);      \
    if (!var)                                           \
        skip()

static int drop_vocabs(void **state)
{
    (void)state;
    for (int i = 0; i < N_VOCABS; i++)
        tokenizer_free(vocabs[i]);
    return 0;
}

static struct ids encoded(const struct tokenizer *t, const char *s, size_t len, bool parse_special)
{
    struct error err;
    struct ids ids = { 0 };
    MUST(tokenizer_encode(t, s, len, false, parse_special, &ids, &err));
    return ids;
}

static void print_ids(struct text *out, const struct ids *ids)
{
    for (size_t i = 0; i < ids->n; i++)
        text_printf(out, "%s%d", i ? " " : "", ids->data[i]);
}

static void check_ids(const struct tokenizer *t, const char *label, const char *s, size_t len, const char *want)
{
    struct ids ids = encoded(t, s, len, false);
    struct text got = { 0 };
    print_ids(&got, &ids);
    CHECK(strcmp(text_str(&got), want) == 0, "%s: \"%.*s\" gives %s, expected %s", label, (int)len, s, text_str(&got),
          want);
    text_free(&got);
    ids_free(&ids);
}

static void check_decoded(const struct tokenizer *t, const char *label, const char *s, size_t len, const struct ids *ids)
{
    struct text back = { 0 };
    tokenizer_decode_all(t, ids->data, ids->n, &back);
    CHECK(back.len == len && memcmp(text_str(&back), s, len) == 0, "%s: \"%.*s\" (%zu bytes) comes back as \"%.*s\"",
          label, (int)(len < 300 ? len : 300), s, len, (int)(back.len < 300 ? back.len : 300), text_str(&back));
    text_free(&back);
}

static void check_roundtrip(const struct tokenizer *t, const char *label, const char *s, size_t len)
{
    struct ids ids = encoded(t, s, len, false);
    check_decoded(t, label, s, len, &ids);
    ids_free(&ids);
}

/* ---- recorded vectors ---- */

static size_t run_vectors(const struct tokenizer *t, const char *label, const char *name)
{
    static const char separator[] = "\n__ggml_vocab_test__\n";
    struct error err;
    struct text in = { 0 }, out = { 0 };
    char inp[256];
    snprintf(inp, sizeof inp, VOCABS "%s.gguf.inp", name);
    MUST(file_read(shared_data(inp), 0, &in, &err));
    memcpy(strstr(inp, ".inp"), ".out", 4);
    MUST(file_read(shared_data(inp), 0, &out, &err));
    size_t n = 0;
    /* After a separator at the very end stands one more text, the empty one, which has no line. */
    for (const char *s = in.data, *want = out.data; s; n++) {
        const char *end = strstr(s, separator), *line = strchr(want, '\n');
        char ids[4096];
        while (*want == ' ')
            want++;
        snprintf(ids, sizeof ids, "%.*s", line ? (int)(line - want) : 0, want);
        check_ids(t, label, s, end ? (size_t)(end - s) : strlen(s), ids);
        s = end ? end + strlen(separator) : NULL;
        want = line ? line + 1 : want;
    }
    text_free(&in);
    text_free(&out);
    return n;
}

static void test_vectors(void **state)
{
    (void)state;
    for (int i = 0; i < N_VOCABS; i++) {
        NEED_VOCAB(t, i);
        size_t n = run_vectors(t, sources[i].label, sources[i].vectors);
        CHECK(n == sources[i].tests, "%s: %zu vectors, expected %zu", sources[i].label, n, sources[i].tests);
    }
}

/* llama.cpp recorded qwen35 over Qwen 2's vocabulary, and composes nothing: three of the texts are letters with
 * marks of their own.  The rule that it shares with qwen2 is what is tested, so composing is switched off. */
static void test_qwen35(void **state)
{
    (void)state;
    struct error err;
    struct tokenizer *t;
    struct vocab v;
    NEED_SHARED(path, "tokenizers/qwen/qwen.tiktoken");
    vocab_ranks(&v, path, "qwen35", NULL, 0);
    MUST(tokenizer_build(&t, &v.spec, &(struct tokenizer_extras){ .exact = true }, &err));
    size_t n = run_vectors(t, "qwen35", "qwen35");
    CHECK(n >= 50, "%zu vectors, expected 50", n);
    tokenizer_free(t);
    vocab_free(&v);
}

/* SmolLM's cut over GPT-2's vocabulary; ids recorded with the tokenizers library (tests/golden/tokenizer.md). */
static void test_smollm(void **state)
{
    (void)state;
    static const struct { const char *text, *ids; } rows[] = {
        { "a 12  3\n\nb", "64 220 16 17 220 220 18 198 198 65" },
        { "In 1984,  it's 3.14", "818 220 16 24 23 19 11 220 340 338 220 18 13 16 19" },
        { "x  7 \n 8", "87 220 220 22 220 198 220 23" },
        { "\xEF\xBC\x91\xEF\xBC\x92 \xE2\x85\xA7\xC2\xBD", "171 120 239 171 120 240 220 158 227 100 23141" },
    };
    struct error err;
    struct tokenizer *t;
    struct vocab v;
    NEED_SHARED(path, VOCABS "gpt-2.gguf");
    vocab_gguf(&v, path);
    v.spec.pre = "smollm";
    MUST(tokenizer_new(&t, &v.spec, &err));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_ids(t, "smollm", rows[i].text, strlen(rows[i].text), rows[i].ids);
    tokenizer_free(t);
    vocab_free(&v);
}

/* ---- whole wikitext-2 test set ---- */

static bool golden_row(const char *name, char count[32], char sha[65])
{
    struct error err;
    struct text tsv = { 0 };
    MUST(file_read(shared_data("tokenizers/golden_wikitext2_test.tsv"), 0, &tsv, &err));
    char key[64];
    snprintf(key, sizeof key, "\n%s\tno\t", name);
    const char *row = strstr(tsv.data, key);
    bool ok = row && sscanf(row + strlen(key), "%31[0-9]\t%64[0-9a-f]", count, sha) == 2;
    text_free(&tsv);
    return ok;
}

/* Gemma has no row there: recorded with the tokenizers library, see tests/golden/tokenizer.md. */
static const char gemma_count[] = "295215",
    gemma_sha[] = "e041ba5d96b7bdc2717a03fe6fc8f2ed7397dcf2f5cd6884264bf576d7165779";

static void test_wikitext(void **state)
{
    (void)state;
    struct error err;
    NEED_SHARED(path, "wikitext2/wiki.test.raw");
    struct text wiki = { 0 };
    MUST(file_read(path, 0, &wiki, &err));
    for (int i = 0; i < N_VOCABS; i++) {
        NEED_VOCAB(t, i);
        char count[32], want[65], hex[65], got[32];
        if (sources[i].digest) {
            CHECK(golden_row(sources[i].digest, count, want), "no golden row %s", sources[i].digest);
        } else {
            snprintf(count, sizeof count, "%s", gemma_count);
            snprintf(want, sizeof want, "%s", gemma_sha);
        }
        double begin = cpu_seconds();
        struct ids ids = encoded(t, wiki.data, wiki.len, false);
        double rate = (double)wiki.len / (cpu_seconds() - begin) / 1e6;
        uint8_t digest[32];
        MUST(sha256_bytes(ids.data, ids.n * sizeof *ids.data, digest, &err));
        hex_of(digest, 32, hex);
        snprintf(got, sizeof got, "%zu", ids.n);
        CHECK(strcmp(got, count) == 0 && strcmp(hex, want) == 0, "%s: %s ids with digest %s, expected %s with %s",
              sources[i].label, got, hex, count, want);
        printf("%s: %.1f MB/s\n", sources[i].label, rate);
        /* Qwen composes characters (NFC), so its text may come back composed. */
        if (i != QWEN_2)
            check_decoded(t, sources[i].label, wiki.data, wiki.len, &ids);
        ids_free(&ids);
    }
    text_free(&wiki);
}

static bool has_digest(const char *name)
{
    for (int i = 0; i < N_VOCABS; i++)
        if (sources[i].digest && strcmp(sources[i].digest, name) == 0)
            return true;
    return false;
}

/* Every row of the recorded digests is one of those above, or Falcon's, whose vocabulary is not in the shared data: it was
 * checked once (tests/golden/tokenizer.md), its rule is in test_tokenizer.c's test_pieces. */
static void test_digest_rows(void **state)
{
    (void)state;
    struct error err;
    struct text tsv = { 0 };
    NEED_SHARED(path, "tokenizers/golden_wikitext2_test.tsv");
    MUST(file_read(path, 0, &tsv, &err));
    int rows = 0;
    for (char *line = strchr(tsv.data, '\n'); line && line[1]; line = strchr(line + 1, '\n'), rows++) {
        char name[64] = "";
        sscanf(line + 1, "%63[^\t]", name);
        CHECK(has_digest(name) || strcmp(name, "falcon") == 0, "nothing checks the digest of %s", name);
    }
    CHECK(rows == 6, "%d rows", rows);
    text_free(&tsv);
}

/* Gemma 3 as its GGUF files have it: SPM with falling scores, runs of blanks as user-defined tokens that are cut
 * from the raw text.  The ids must be those of its tokenizer.json, which merges by rank. */
static struct tokenizer *gemma_as_spm(const struct tokenizer *json)
{
    struct error err;
    struct tokenizer *t;
    struct vocab v = { .spec = { .where = "gemma as SPM", .kind = "llama", .bos = 2, .eos = 1, .unk = 3, .pad = 0 } };
    int n = v.spec.n_tokens = tokenizer_size(json);
    v.spec.tokens = v.tokens = calloc((size_t)n, sizeof *v.tokens);
    v.spec.token_lens = v.lens = calloc((size_t)n, sizeof *v.lens);
    v.spec.scores = v.scores = calloc((size_t)n, sizeof *v.scores);
    v.spec.types = v.types = calloc((size_t)n, sizeof *v.types);
    for (int id = 0; id < n; id++) {
        enum token_type type;
        struct text blanks = { 0 };
        size_t len;
        const char *text = tokenizer_token(json, id, &len, &type);
        if (type == TOKEN_USER_DEFINED)
            tokenizer_decode(json, id, false, &blanks);
        else
            text_add(&blanks, text, len);
        v.tokens[id] = arena_str(&v.arena, text_str(&blanks), blanks.len, &err);
        v.lens[id] = (uint32_t)blanks.len;
        v.types[id] = (int32_t)type;
        v.scores[id] = type == TOKEN_USER_DEFINED ? -1000 : (float)-id;
        text_free(&blanks);
    }
    MUST(tokenizer_new(&t, &v.spec, &err));
    vocab_free(&v);
    return t;
}

static void test_gemma_as_spm(void **state)
{
    (void)state;
    struct error err;
    NEED_VOCAB(json, GEMMA_JSON);
    NEED_SHARED(path, "wikitext2/wiki.test.raw");
    struct text wiki = { 0 };
    MUST(file_read(path, 0, &wiki, &err));
    struct tokenizer *t = gemma_as_spm(json);
    struct ids want = encoded(json, wiki.data, wiki.len, false), got = encoded(t, wiki.data, wiki.len, false);
    CHECK(got.n == want.n && memcmp(got.data, want.data, got.n * sizeof *got.data) == 0,
          "%zu ids by scores, %zu by merges", got.n, want.n);
    size_t n = run_vectors(t, "gemma as SPM", "gemma-4");
    CHECK(n == 46, "%zu vectors", n);
    ids_free(&want);
    ids_free(&got);
    text_free(&wiki);
    tokenizer_free(t);
}

/* A small real model's own vocabulary, with BOS. */
static void test_stories(void **state)
{
    (void)state;
    struct error err;
    NEED_SHARED(gguf, "models/stories260K/gguf/stories260K-f32.gguf");
    NEED_SHARED(text_path, "models/stories260K/golden/tinystories_sample.txt");
    NEED_SHARED(ids_path, "models/stories260K/golden/tinystories_sample.tokens.txt");
    struct vocab v;
    struct tokenizer *t;
    struct text sample = { 0 }, want = { 0 };
    struct ids ids = { 0 };
    vocab_gguf(&v, gguf);
    v.spec.add_bos = true;      /* the default for "llama" */
    MUST(tokenizer_new(&t, &v.spec, &err));
    MUST(file_read(text_path, 0, &sample, &err));
    MUST(file_read(ids_path, 0, &want, &err));
    MUST(tokenizer_encode(t, sample.data, sample.len, true, false, &ids, &err));
    const char *p = want.data;
    for (size_t i = 0; i < ids.n; i++) {
        char *end;
        long id = strtol(p, &end, 10);
        CHECK(end != p && id == ids.data[i], "id %zu is %d, expected %.*s", i, ids.data[i], (int)(end - p), p);
        p = end + strspn(end, ", \n[]");
    }
    CHECK(!*p && ids.n == 1883, "%zu ids, expected 1883", ids.n);
    check_roundtrip(t, "stories260K", sample.data, sample.len);
    text_free(&sample);
    text_free(&want);
    ids_free(&ids);
    tokenizer_free(t);
    vocab_free(&v);
}

/* ---- awkward texts ---- */

static char *repeat(const char *s, size_t times)
{
    size_t n = strlen(s);
    char *out = malloc(n * times + 1);
    for (size_t i = 0; i < times; i++)
        memcpy(out + i * n, s, n);
    out[n * times] = '\0';
    return out;
}

/* Long texts without a break, in the shapes that make heaps, regexes and splitters work hardest; the first ones a
 * megabyte long for one vocabulary of each kind: whatever is not linear there does not come back. */
static void test_long_lines(void **state)
{
    (void)state;
    static const char *const units[] = {
        "a", "thequickbrownfox", " ", "\n", "ab", "\t", "1", "\xE4\xB8\xAD", "\xFF", "<", " \n", "'",
        "\xF0\x9F\x98\x80", "e\xCC\x81", "\xE2\x96\x81", "<unused", "a ", "a\xFF",
    };
    for (int i = 0; i < N_VOCABS; i++)
        for (size_t k = 0; k < ARRAY_LEN(units); k++) {
            NEED_VOCAB(t, i);
            bool whole = !SANITIZED && (i == GEMMA_JSON || i == LLAMA_3) && k < 4;
            size_t times = (whole ? 1000000 : 40000) / strlen(units[k]), len = times * strlen(units[k]);
            char *s = repeat(units[k], times);
            struct ids ids = encoded(t, s, len, false);
            bool composes = i == QWEN_2 && units[k][0] == 'e', mark = units[k][0] == '\xE2' && i <= PHI_3;
            if (!composes && !mark)
                check_decoded(t, sources[i].label, s, len, &ids);
            ids_free(&ids);
            free(s);
        }
}

static void test_newlines(void **state)
{
    (void)state;
    for (int i = 0; i < N_VOCABS; i++) {
        NEED_VOCAB(t, i);
        char *s = repeat("\n", 10000);
        check_roundtrip(t, sources[i].label, s, 10000);
        free(s);
    }
}

static void test_runs(void **state)
{
    (void)state;
    static const char *const units[] = { "\n", " ", "\t", "\r\n", "\n\n ", "-", "=" };
    for (int i = 0; i < N_VOCABS; i++)
        for (size_t u = 0; u < ARRAY_LEN(units); u++)
            for (size_t n = 1; n <= 40; n++) {
                NEED_VOCAB(t, i);
                struct text s = { 0 };
                char *run = repeat(units[u], n);
                text_printf(&s, "%sx%sy%s", run, run, run);
                check_roundtrip(t, sources[i].label, run, strlen(run));
                check_roundtrip(t, sources[i].label, s.data, s.len);
                text_free(&s);
                free(run);
            }
}

/* Runs of 1..31 newlines, blanks and tabs are one token each in Gemma: ids in a row. */
static void test_gemma_runs(void **state)
{
    (void)state;
    NEED_VOCAB(t, GEMMA_JSON);
    static const struct { const char *unit; int first, least; } rows[] = {
        { "\n", 107, 1 }, { " ", 138, 2 }, { "\t", 255968, 1 },
    };
    for (size_t r = 0; r < ARRAY_LEN(rows); r++)
        for (int n = rows[r].least; n <= 31; n++) {
            char *run = repeat(rows[r].unit, (size_t)n), want[16];
            snprintf(want, sizeof want, "%d", rows[r].first + n - rows[r].least);
            check_ids(t, "gemma", run, strlen(run), want);
            free(run);
        }
    check_ids(t, "gemma", "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n", 34, "137 109");
}

static void test_gemma_samples(void **state)
{
    (void)state;
    NEED_VOCAB(t, GEMMA_JSON);
    static const struct { const char *text, *ids; } rows[] = {
        { "", "" }, { " ", "236743" }, { "  ", "138" }, { "\t", "255968" }, { "\n", "107" }, { "\t\n", "255968 107" },
        { "Hello world", "9259 1902" }, { " Hello world", "26352 1902" }, { "Hello, world!", "9259 236764 1902 236888" },
        { "    Hello\n    Hello", "140 9259 107 140 9259" }, { "\n =", "107 578" },
        { "3333", "236800 236800 236800 236800" }, { " discards", "2243 2206" },
        { "The capital of France is", "818 5279 529 7001 563" },
        { "\xFF", "493" }, { "a\xC3", "236746 433" }, { "\xED\xA0\x80", "475 398 366" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        check_ids(t, "gemma", rows[i].text, strlen(rows[i].text), rows[i].ids);
    check_ids(t, "gemma", "a\0b", 3, "236746 238 236763");
}

/* Valid UTF-8 of every length, and plain random bytes, come back as they were. */
static void test_random_roundtrip(void **state)
{
    (void)state;
    static const struct { uint32_t lo, hi; } blocks[] = {
        { 0, 0x7F }, { 0x20, 0x7E }, { 0x80, 0x7FF }, { 0x800, 0xD7FF }, { 0xE000, 0xFFFF }, { 0x10000, 0x10FFFF },
        { 0x1F300, 0x1FAFF }, { 0x4E00, 0x9FFF }, { 0x400, 0x4FF },
    };
    for (int i = 0; i < N_VOCABS; i++) {
        NEED_VOCAB(t, i);
        uint64_t seed = 7;
        for (int k = 0; k < 400; k++) {
            struct text s = { 0 };
            for (int n = k % 40; n >= 0; n--) {
                seed = seed * 6364136223846793005u + 1442695040888963407u;
                size_t block = (seed >> 33) % ARRAY_LEN(blocks);
                uint32_t span = blocks[block].hi - blocks[block].lo + 1;
                uint32_t code = blocks[block].lo + (uint32_t)(seed >> 20) % span;
                char utf8[4];
                bool raw = k % 4 == 3;
                if (code != 0x2581 && !raw)
                    text_add(&s, utf8, (size_t)utf8_encode(code, utf8));
                if (raw)
                    text_putc(&s, (char)(seed >> 40));
            }
            if (i != QWEN_2)
                check_roundtrip(t, sources[i].label, text_str(&s), s.len);
            else
                ids_free(&(struct ids){ encoded(t, text_str(&s), s.len, false).data, 0, 0 });
            text_free(&s);
        }
    }
}

/* What the user writes never turns into a control token; the template's own text does. */
static void test_content_is_no_control(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "</s>", "<s>", "<bos>", "<0x41>", "<|turn>", "<start_of_turn>", "<end_of_turn>", "<|endoftext|>",
        "<|im_start|>system", "<|eot_id|>", "<unk>", "<pad>", "a<bos><bos>b", "<|begin_of_text|>",
    };
    for (int i = 0; i < N_VOCABS; i++)
        for (size_t k = 0; k < ARRAY_LEN(texts); k++) {
            NEED_VOCAB(t, i);
            struct ids ids = encoded(t, texts[k], strlen(texts[k]), false);
            for (size_t j = 0; j < ids.n; j++) {
                enum token_type type;
                const char *name = tokenizer_token(t, ids.data[j], NULL, &type);
                CHECK(type != TOKEN_CONTROL && type != TOKEN_UNKNOWN && type != TOKEN_BYTE,
                      "%s: \"%s\" as content gives token %d, \"%s\"", sources[i].label, texts[k], ids.data[j], name);
            }
            ids_free(&ids);
            check_roundtrip(t, sources[i].label, texts[k], strlen(texts[k]));
        }
}

static void test_special_is_parsed(void **state)
{
    (void)state;
    static const struct { enum which which; const char *text, *ids; } rows[] = {
        { GEMMA_JSON, "<bos><start_of_turn>user\n", "2 105 2364 107" },
        { GEMMA_JSON, "<bos><end_of_turn><unk>", "2 106 3" },
        { LLAMA_SPM, "<s>a</s>", "1 263 2" },
        { LLAMA_3, "<|begin_of_text|>a<|eot_id|>", "128000 64 128004" },
        { QWEN_2, "<|im_start|><|im_end|>", "151644 151645" },
        { GPT_2, "a<|endoftext|>b", "64 50256 65" },
        { PHI_3, "<|endoftext|>", "32000" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        NEED_VOCAB(t, rows[i].which);
        struct ids ids = encoded(t, rows[i].text, strlen(rows[i].text), true);
        struct text got = { 0 }, shown = { 0 };
        print_ids(&got, &ids);
        CHECK(strcmp(text_str(&got), rows[i].ids) == 0, "\"%s\" gives %s, expected %s", rows[i].text, text_str(&got),
              rows[i].ids);
        tokenizer_decode(t, ids.data[ids.n - 1], true, &shown);
        CHECK(shown.len, "the last token of \"%s\" has no text", rows[i].text);
        text_free(&got);
        text_free(&shown);
        ids_free(&ids);
    }
}

static void test_bos_once(void **state)
{
    (void)state;
    static const struct { enum which which; int bos; } rows[] = {
        { GEMMA_JSON, 2 }, { LLAMA_SPM, 1 }, { LLAMA_3, 128000 }, { QWEN_2, -1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct error err;
        NEED_VOCAB(t, rows[i].which);
        struct ids ids = { 0 };
        MUST(tokenizer_encode(t, "", 0, true, false, &ids, &err));
        CHECK(tokenizer_bos(t) == rows[i].bos, "BOS is %d, expected %d", tokenizer_bos(t), rows[i].bos);
        CHECK(ids.n == (rows[i].bos >= 0) && (!ids.n || ids.data[0] == rows[i].bos), "%s: BOS is not alone",
              sources[rows[i].which].label);
        ids_free(&ids);
    }
}

/* ---- tokenizer.json as convert writes it ---- */

static struct tokenizer *rewritten(const struct tokenizer *t)
{
    struct error err;
    struct tokenizer *again;
    char folder[] = "/tmp/qdelta-vocab-XXXXXX", path[256];
    CHECK(mkdtemp(folder), "no folder in /tmp");
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    MUST(tokenizer_write_json(t, path, &err));
    MUST(tokenizer_from_json(&again, path, &err));
    remove_unpacked(path);
    return again;
}

static void same_ids(const struct tokenizer *t, const struct tokenizer *again, const char *label, const char *s, size_t len)
{
    for (int parse = 0; parse < 2; parse++) {
        struct error err;
        struct ids want = { 0 }, got = { 0 };
        MUST(tokenizer_encode(t, s, len, true, parse, &want, &err));
        MUST(tokenizer_encode(again, s, len, true, parse, &got, &err));
        CHECK(got.n == want.n && (!got.n || memcmp(got.data, want.data, got.n * sizeof *got.data) == 0),
              "%s: \"%.*s\" gives %zu ids, %zu from the tokenizer.json written from it", label, (int)(len < 300 ? len : 300), s,
              want.n, got.n);
        ids_free(&want);
        ids_free(&got);
    }
}

/* Every file of vectors through every vocabulary, odd texts, a whole test set. */
static void check_written(const struct tokenizer *t, const char *label)
{
    static const char *const odd[] = {
        "", " ", "  a", "<s> a </s>b", "<bos><start_of_turn>user\n hi<end_of_turn>", "<|im_start|>x<|im_end|>\n", "a\xFF\xC3z",
        "<|eot_id|> <|endoftext|>", "e\xCC\x81 \xE2\x96\x81x", "\n\n\n \n\t\t", "<0x0A><unk>", "<|channel>thought\n<channel|>",
    };
    struct error err;
    struct tokenizer *again = rewritten(t);
    CHECK(tokenizer_size(again) == tokenizer_size(t) && tokenizer_bos(again) == tokenizer_bos(t), "%s: %d tokens, BOS %d", label,
          tokenizer_size(again), tokenizer_bos(again));
    for (size_t i = 0; i < ARRAY_LEN(odd); i++)
        same_ids(t, again, label, odd[i], strlen(odd[i]));
    for (int v = 0; v <= N_VOCABS; v++) {
        struct text in = { 0 };
        char path[256];
        snprintf(path, sizeof path, VOCABS "%s.gguf.inp", v < N_VOCABS ? sources[v].vectors : "");
        MUST(file_read(shared_data(v < N_VOCABS ? path : "wikitext2/wiki.test.raw"), 0, &in, &err));
        same_ids(t, again, label, in.data, in.len);
        text_free(&in);
    }
    if (!again->nfc)
        check_roundtrip(again, label, "  So  it\ngoes: \xF0\x9F\x98\x80 ", 19);
    tokenizer_free(again);
}

static void test_written(void **state)
{
    (void)state;
    for (int i = 0; i < N_VOCABS; i++) {
        NEED_VOCAB(t, i);
        check_written(t, sources[i].label);
    }
    struct tokenizer *spm = gemma_as_spm(vocabs[GEMMA_JSON]);
    check_written(spm, "gemma as SPM");
    tokenizer_free(spm);
}

/* As gemma4 and the pre-tokenizers that no vocabulary above has. */
static void test_written_kinds(void **state)
{
    (void)state;
    static const char *const pres[] = { "smollm", "qwen35", "llama-bpe", "smaug-bpe", "qwen2", "tekken", "gpt-4o", "falcon", "deepseek-coder", "deepseek-v3" };
    struct error err;
    struct vocab v;
    NEED_SHARED(path, VOCABS "gpt-2.gguf");
    vocab_gguf(&v, path);
    for (size_t i = 0; i < ARRAY_LEN(pres); i++) {
        struct tokenizer *t;
        v.spec.pre = pres[i];
        MUST(tokenizer_new(&t, &v.spec, &err));
        check_written(t, pres[i]);
        tokenizer_free(t);
    }
    vocab_free(&v);
}

/* What JSON cannot hold is refused by its number. */
static void test_unwritable(void **state)
{
    (void)state;
    struct error err;
    struct tokenizer *t;
    struct vocab v;
    NEED_SHARED(path, VOCABS "gpt-2.gguf");
    vocab_gguf(&v, path);
    v.tokens[50256] = "\xFF<end>";
    v.lens[50256] = 6;
    MUST(tokenizer_new(&t, &v.spec, &err));
    CHECK(!tokenizer_write_json(t, "/nowhere/tokenizer.json", &err) && err.status == STATUS_UNSUPPORTED &&
          strstr(err.text, "token 50256 is not valid UTF-8"), "%s", err.text);
    tokenizer_free(t);
    vocab_free(&v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),           cmocka_unit_test(test_qwen35),
        cmocka_unit_test(test_smollm),            cmocka_unit_test(test_gemma_as_spm),
        cmocka_unit_test(test_stories),           cmocka_unit_test(test_wikitext),
        cmocka_unit_test(test_digest_rows),
        cmocka_unit_test(test_long_lines),        cmocka_unit_test(test_newlines),
        cmocka_unit_test(test_runs),
        cmocka_unit_test(test_gemma_runs),        cmocka_unit_test(test_gemma_samples),
        cmocka_unit_test(test_random_roundtrip),  cmocka_unit_test(test_content_is_no_control),
        cmocka_unit_test(test_special_is_parsed), cmocka_unit_test(test_bos_once),
        cmocka_unit_test(test_written),           cmocka_unit_test(test_written_kinds),
        cmocka_unit_test(test_unwritable),
    };
    return cmocka_run_group_tests_name("tokenizer vectors", tests, NULL, drop_vocabs);
}
