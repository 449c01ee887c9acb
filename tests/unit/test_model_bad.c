/* Broken files: truncated, mutated, lying about counts, offsets and names.  Each must end in a message, and under
 * `make asan` in nothing else. */
#define _GNU_SOURCE     /* memmem */
#include "tiny_folder.h"

enum { GGUF_TENSORS = 11, FUZZ_ROUNDS = 400 };

static const struct { const char *name; int64_t cols, rows; enum format_id format; } gguf_tensors[GGUF_TENSORS] = {
    { "token_embd.weight", 64, 40, FORMAT_Q8_0 },      { "output_norm.weight", 64, 0, FORMAT_F32 },      { "blk.0.attn_norm.weight", 64, 0, FORMAT_F32 },
    { "blk.0.attn_q.weight", 64, 64, FORMAT_Q4_0 },    { "blk.0.attn_k.weight", 64, 32, FORMAT_Q4_0 },   { "blk.0.attn_v.weight", 64, 32, FORMAT_F16 },
    { "blk.0.attn_output.weight", 64, 64, FORMAT_BF16 }, { "blk.0.ffn_norm.weight", 64, 0, FORMAT_F32 }, { "blk.0.ffn_gate.weight", 64, 64, FORMAT_Q4_1 },
    { "blk.0.ffn_up.weight", 64, 64, FORMAT_Q4_0 },    { "blk.0.ffn_down.weight", 64, 64, FORMAT_Q4_0 },
};

/* Tensors [first, last) of a one-layer model into path; split >= 0: part number of two. */
static void write_gguf(const char *path, int first, int last, int split)
{
    static const char *const words[] = { "<unk>", "<s>", "</s>", "a", "b" };
    struct gguf_string tokens[ARRAY_LEN(words)];
    float scores[ARRAY_LEN(words)] = { 0 };
    struct error err;
    struct gguf_writer *w;
    struct writer_tensor t[GGUF_TENSORS];
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        tokens[i] = (struct gguf_string){ words[i], strlen(words[i]) };
    struct gguf_kv kv[] = {
        { .key = "general.architecture", .type = GGUF_STRING, .value.s = { "llama", 5 } }, { .key = "llama.block_count", .type = GGUF_U32, .value.u = 1 },
        { .key = "llama.context_length", .type = GGUF_U64, .value.u = 64 },                { .key = "llama.embedding_length", .type = GGUF_U32, .value.u = 64 },
        { .key = "llama.feed_forward_length", .type = GGUF_I32, .value.i = 64 },           { .key = "llama.attention.head_count", .type = GGUF_U16, .value.u = 2 },
        { .key = "llama.attention.head_count_kv", .type = GGUF_U8, .value.u = 1 },
        { .key = "llama.attention.layer_norm_rms_epsilon", .type = GGUF_F32, .value.f = 1e-5 },
        { .key = "tokenizer.ggml.model", .type = GGUF_STRING, .value.s = { "llama", 5 } },
        { .key = "tokenizer.ggml.tokens", .type = GGUF_ARRAY, .element = GGUF_STRING, .count = ARRAY_LEN(words), .value.array = tokens },
        { .key = "tokenizer.ggml.scores", .type = GGUF_ARRAY, .element = GGUF_F32, .count = ARRAY_LEN(words), .value.array = scores },
        { .key = "split.no", .type = GGUF_U16, .value.u = (uint64_t)split }, { .key = "split.count", .type = GGUF_U16, .value.u = 2 },
        { .key = "split.tensors.count", .type = GGUF_I32, .value.i = GGUF_TENSORS },
    };
    for (int i = first; i < last; i++)
        t[i - first] = (struct writer_tensor){ gguf_tensors[i].name, gguf_tensors[i].format, gguf_tensors[i].rows ? 2 : 1,
                                               { gguf_tensors[i].cols, gguf_tensors[i].rows } };
    MUST(gguf_writer_open(&w, path, kv, (int)ARRAY_LEN(kv) - (split < 0 ? 3 : 0), t, last - first, &err));
    for (int i = first; i < last; i++) {
        static uint8_t bytes[64 * 64 * 4];
        int64_t rows = gguf_tensors[i].rows ? gguf_tensors[i].rows : 1;
        memset(bytes, 0x33, sizeof bytes);
        MUST(gguf_writer_data(w, bytes, (uint64_t)(rows * format_row_bytes(gguf_tensors[i].format, gguf_tensors[i].cols)), &err));
    }
    MUST(gguf_writer_commit(w, &err));
}

struct bytes {
    struct text text;
    struct tiny dir;            /* only its folder is used */
    char path[128];
};

static void start(struct bytes *b)
{
    struct error err;
    *b = (struct bytes){ .dir = { .dir = "/tmp/qdelta-bad-XXXXXX" } };
    CHECK(mkdtemp(b->dir.dir), "no temporary folder");
    tiny_path(&b->dir, "m.gguf", b->path);
    write_gguf(b->path, 0, GGUF_TENSORS, -1);
    MUST(file_read(b->path, 0, &b->text, &err));
}

static void finish(struct bytes *b)
{
    text_free(&b->text);
    tiny_remove(&b->dir);
}

static void put_file(const struct bytes *b, const char *data, size_t len)
{
    struct error err;
    MUST(file_write(b->path, data, len, &err));
}

/* Open, and if that goes well read every weight, as an engine would. */
static bool open_and_read(const char *path, struct error *err)
{
    struct model m;
    if (!model_open(&m, path, true, err))
        return false;
    float *row = malloc(((size_t)1 << 20) * sizeof *row);
    for (int i = 0; i < m.n_tensors; i++)
        for (int64_t r = 0; r < m.tensors[i].rows * m.tensors[i].mats && m.tensors[i].cols <= 1 << 20; r++) {
            tensor_row(&m.tensors[i], 0, r, row);
            tensor_check_scales(&m.tensors[i], r, 1, err);
        }
    free(row);
    model_close(&m);
    return true;
}

static void test_whole_file_opens(void **state)
{
    (void)state;
    struct bytes b;
    struct error err;
    start(&b);
    MUST(open_and_read(b.path, &err));
    finish(&b);
}

static void test_truncated_gguf(void **state)
{
    (void)state;
    struct bytes b;
    start(&b);
    size_t last = b.text.len - 31;      /* the last tensor may end in padding */
    for (size_t len = 1; len < last; len += len < 1500 ? 13 : 997) {
        struct error err = { 0 };
        put_file(&b, b.text.data, len);
        CHECK(!open_and_read(b.path, &err), "%zu of %zu bytes were opened", len, b.text.len);
        CHECK(strstr(err.text, b.path) && strlen(err.text) > strlen(b.path) + 10, "%zu bytes: \"%s\"", len, err.text);
    }
    finish(&b);
}

static size_t find(const struct text *t, const char *what)
{
    for (size_t i = 0; i + strlen(what) <= t->len; i++)
        if (!memcmp(t->data + i, what, strlen(what)))
            return i;
    TEST_FAIL();
    return 0;
}

static void put_number(char *at, uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        at[i] = (char)(v >> 8 * i);
}

/* at: bytes after the place found. */
static void test_lying_gguf(void **state)
{
    (void)state;
    static const struct { const char *place; int at, bytes; uint64_t value; const char *words, *what; } cases[] = {
        { "GGUF", 0, 1, 'X', "not a GGUF", "magic" },
        { "GGUF", 4, 4, 1, "version 1", "version 1" },
        { "GGUF", 4, 4, 0x03000000, "big-endian", "byte-swapped" },
        { "GGUF", 8, 8, UINT64_C(0x7fffffffffffffff), "more than its", "2^63 tensors" },
        { "GGUF", 8, 8, 12, "", "one tensor too many" },
        { "GGUF", 8, 8, 10, "no tensor", "one tensor too few" },
        { "GGUF", 16, 8, UINT64_MAX, "more than its", "2^64 keys" },
        { "llama.block_count", -8, 8, UINT64_C(1) << 62, "ends within", "key length" },
        { "llama.block_count", 17, 4, 77, "value type 77", "value type" },
        { "llama.block_count", 21, 4, 0, "block_count is 0", "no layers" },
        { "llama.block_count", 21, 4, 2, "blk.1.", "one layer too many" },
        { "llama.block_count", 21, 4, UINT32_MAX, "block_count", "2^32 layers" },
        { "llama.block_count", 0, 1, 'L', "block_count", "key gone" },
        { "llama.embedding_length", 26, 4, 65, "expected", "odd width" },
        { "llama.attention.layer_norm_rms_epsilon", 42, 4, 0x7fc00000, "not finite", "epsilon NaN" },
        { "tokenizer.ggml.tokens", 29, 8, UINT64_C(1) << 60, "ends within", "array of 2^60 strings" },
        { "tokenizer.ggml.tokens", 25, 4, 9, "arrays", "array of arrays" },
        { "tokenizer.ggml.scores", 29, 8, UINT64_C(1) << 62, "ends within", "array of 2^62 floats" },
        { "blk.0.attn_q.weight", 19, 4, 5, "5 dimensions", "five dimensions" },
        { "blk.0.attn_q.weight", 19, 4, 0, "0 dimensions", "no dimensions" },
        { "blk.0.attn_q.weight", 23, 8, 0, "dimension 0", "zero dimension" },
        { "blk.0.attn_q.weight", 23, 8, UINT64_C(1) << 61, "makes no sense", "huge dimension" },
        { "blk.0.attn_q.weight", 23, 8, UINT64_MAX - 31, "makes no sense", "negative dimension" },
        { "blk.0.attn_q.weight", 23, 8, 48, "block of 32", "row that is no multiple of the block" },
        { "blk.0.attn_q.weight", 31, 8, 32, "expected [1 x 64 x 64]", "wrong shape" },
        { "blk.0.attn_q.weight", 39, 4, 31, "q4_0_4_4", "retired type" },
        { "blk.0.attn_q.weight", 39, 4, 4000000000u, "unknown", "unknown type" },
        { "blk.0.attn_q.weight", 43, 8, 4, "not a multiple", "unaligned" },
        { "blk.0.attn_q.weight", 43, 8, UINT64_MAX - 31, "past the end", "offset near 2^64" },
        { "blk.0.attn_q.weight", 43, 8, 0, "overlap", "overlap" },
        { "blk.0.attn_v.weight", 11, 1, 'k', "twice", "same name twice" },
        { "blk.0.attn_v.weight", 11, 1, 0, "NUL", "NUL in a name" },
        { "blk.0.attn_v.weight", 11, 1, 'w', "attn_v", "tensor missing" },
        { "general.architecture", 32, 1, 'm', "mlama", "unknown architecture" },
        { "llama.context_length", 6, 1, 'd', "llama.dontext_length", "unknown key" },
    };
    struct bytes b;
    start(&b);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct error err = { 0 };
        char *copy = malloc(b.text.len);
        memcpy(copy, b.text.data, b.text.len);
        put_number(copy + (int64_t)find(&b.text, cases[i].place) + cases[i].at, cases[i].value, cases[i].bytes);
        put_file(&b, copy, b.text.len);
        CHECK(!open_and_read(b.path, &err), "%s: opened", cases[i].what);
        CHECK(strstr(err.text, cases[i].words), "%s: \"%s\" should hold \"%s\"", cases[i].what, err.text, cases[i].words);
        free(copy);
    }
    finish(&b);
}

/* Random damage to the header: whatever happens, no crash and no read outside (the sanitizers see to that). */
static void test_mutated_gguf(void **state)
{
    (void)state;
    struct bytes b;
    start(&b);
    size_t header = find(&b.text, "blk.0.ffn_down.weight") + 60;
    const char *rounds = getenv("QDELTA_FUZZ_ROUNDS");
    int opened = 0, most = rounds ? atoi(rounds) : FUZZ_ROUNDS;
    for (int i = 0; i < most; i++) {
        struct error err = { 0 };
        char *copy = malloc(b.text.len);
        memcpy(copy, b.text.data, b.text.len);
        for (int j = 0; j <= i % 4; j++) {
            uint64_t r = random_at((uint64_t)i, (uint64_t)j);
            copy[r % header] = (char)(r >> 32 & 1 ? r >> 40 : (uint64_t)copy[r % header] ^ 1u << (r >> 40 & 7));
        }
        put_file(&b, copy, b.text.len);
        opened += open_and_read(b.path, &err);
        free(copy);
    }
    printf("note: %d of %d mutants still opened\n", opened, most);
    finish(&b);
}

static void test_nan_scale(void **state)
{
    (void)state;
    struct bytes b;
    struct error err;
    struct model m;
    start(&b);
    MUST(model_open(&m, b.path, false, &err));
    const struct tensor *t = model_find(&m, "blk.0.attn_k.weight");
    size_t at = (size_t)((const uint8_t *)t->data - (const uint8_t *)model_find(&m, "token_embd.weight")->data);
    MUST(tensor_check_scales(t, 0, t->rows, &err));
    model_close(&m);
    struct mapping map = { 0 };
    MUST(mapping_open(&map, b.path, &err));
    char *copy = malloc(map.size);
    memcpy(copy, map.data, map.size);
    /* token_embd is the first tensor: 40 rows of 68 bytes; the data ends with the file. */
    size_t total = 0;
    for (int i = 0; i < GGUF_TENSORS; i++) {
        int64_t rows = gguf_tensors[i].rows ? gguf_tensors[i].rows : 1;
        total += ((size_t)(rows * format_row_bytes(gguf_tensors[i].format, gguf_tensors[i].cols)) + 31) / 32 * 32;
    }
    size_t data = map.size / 32 * 32 >= total ? (map.size + 31) / 32 * 32 - total : 0;
    put_number(copy + data + at + 5 * 36 + 18, 0x7e01, 2);
    put_file(&b, copy, map.size);
    mapping_close(&map);
    free(copy);
    MUST(model_open(&m, b.path, false, &err));
    t = model_find(&m, "blk.0.attn_k.weight");
    MUST(tensor_check_scales(t, 0, 5, &err));
    CHECK(!tensor_check_scales(t, 5, 1, &err), "a NaN scale went unseen");
    CHECK(strstr(err.text, "blk.0.attn_k.weight") && strstr(err.text, "row 5") && strstr(err.text, "columns from 32"), "%s", err.text);
    model_close(&m);
    finish(&b);
}

static void test_splits(void **state)
{
    (void)state;
    struct bytes b;
    struct error err;
    struct model m;
    char one[128], two[128];
    start(&b);
    tiny_path(&b.dir, "s-00001-of-00002.gguf", one);
    tiny_path(&b.dir, "s-00002-of-00002.gguf", two);
    write_gguf(one, 0, 6, 0);
    tiny_refused(one, "s-00002-of-00002.gguf", "a missing part");
    for (int first = 6; first >= 0; first -= 6) {       /* the first part may hold metadata alone */
        write_gguf(one, 0, first, 0);
        write_gguf(two, first, GGUF_TENSORS, 1);
        MUST(model_open(&m, one, false, &err));
        CHECK(m.n_tensors == GGUF_TENSORS && model_find(&m, "blk.0.ffn_down.weight"), "%d tensors", m.n_tensors);
        model_close(&m);
    }
    tiny_refused(two, "open the first", "the second part alone");
    write_gguf(one, 0, 6, 0);
    tiny_refused(one, "twice", "tensors in both parts");
    write_gguf(two, 6, GGUF_TENSORS - 1, 1);
    tiny_refused(one, "split.tensors.count", "a part with a tensor less");
    write_gguf(two, 6, GGUF_TENSORS, 0);
    tiny_refused(one, "says it is part 1 of 2, by its name it is part 2 of 2", "the first part under the second's name");
    write_gguf(two, 6, GGUF_TENSORS, 3);
    tiny_refused(one, "says it is part 4 of 2", "a part of another number");
    finish(&b);
}

/* ---- safetensors ---- */

static void put_safetensors(const struct tiny *t, const char *header, uint64_t claimed, size_t data)
{
    struct text f = { 0 };
    struct error err;
    char path[128];
    for (int i = 0; i < 8; i++)
        text_putc(&f, (char)(claimed >> 8 * i));
    text_puts(&f, header);
    for (size_t i = 0; i < data; i++)
        text_putc(&f, 0);
    tiny_path(t, "model.safetensors", path);
    MUST(file_write(path, text_str(&f), f.len, &err));
    text_free(&f);
}

static void test_lying_safetensors(void **state)
{
    (void)state;
#define EMBED "\"model.embed_tokens.weight\":"
    static const struct { const char *header, *words; } cases[] = {
        { "", "not valid JSON" },
        { "[1,2]", "no JSON object" },
        { "{\"a\":3}", "object" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[0,80]}}", "need 64" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[64,0]}}", "no range" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[960,1024]}}", "no range" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[-64,0]}}", "no range" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[0]}}", "no range" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[0.5,64.5]}}", "no range" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,64]}}", "usable" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[0,4],\"data_offsets\":[0,0]}}", "usable" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1],\"data_offsets\":[0,4]}}", "dimensions" },
        { "{" EMBED "{\"dtype\":\"Q7\",\"shape\":[4,4],\"data_offsets\":[0,64]}}", "Q7" },
        { "{" EMBED "{\"shape\":[4,4],\"data_offsets\":[0,64]}}", "dtype" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[0,64]},\"b\":{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[32,96]}}", "overlap" },
        { "{" EMBED "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[0,16]}," EMBED "{\"dtype\":\"F32\",\"shape\":[4],\"data_offsets\":[16,32]}}", "twice" },
        { "{\"x\":{\"dtype\":\"F32\",\"shape\":[4,4],\"data_offsets\":[0,64]}}", "embed_tokens" },
    };
    struct tiny t;
    tiny_start(&t, "");
    tiny_write(&t, "", NULL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        put_safetensors(&t, cases[i].header, i ? strlen(cases[i].header) : 100, 100);
        tiny_refused(t.dir, cases[i].words, cases[i].header);
    }
    put_safetensors(&t, "{}", UINT64_MAX - 3, 10);
    tiny_refused(t.dir, "header's length", "a header longer than the file");
    tiny_remove(&t);
}

/* The header's JSON may be as deep or as long as it likes: one message, no stack used up. */
static void test_deep_headers(void **state)
{
    (void)state;
    enum { DEPTH = 200000 };
    struct tiny t;
    struct text deep = { 0 };
    tiny_start(&t, "");
    tiny_write(&t, "", NULL);
    text_puts(&deep, "{\"a\":");
    for (int i = 0; i < DEPTH; i++)
        text_puts(&deep, i % 2 ? "{\"a\":" : "[");
    put_safetensors(&t, text_str(&deep), deep.len, 64);
    tiny_refused(t.dir, "model.safetensors: line 1", "a deep header");
    tiny_put(&t, "model.safetensors.index.json", text_str(&deep));
    tiny_refused(t.dir, "index.json: line 1", "a deep index");
    text_free(&deep);
    tiny_remove(&t);
}

/* The same tensor in two shards, a shard that the index does not name it in, a shard's name that leads elsewhere. */
static void test_bad_shards(void **state)
{
    (void)state;
    struct tiny t;
    struct error err;
    struct text whole = { 0 };
    char path[128];
    tiny_start(&t, "");
    tiny_write(&t, "", NULL);
    tiny_path(&t, "model.safetensors", path);
    MUST(file_read(path, 0, &whole, &err));
    tiny_path(&t, "other.safetensors", path);
    MUST(file_write(path, whole.data, whole.len, &err));
    text_free(&whole);
    static const struct { const char *index, *words; } cases[] = {
        { "{\"weight_map\":{\"model.norm.weight\":\"model.safetensors\",\"model.embed_tokens.weight\":\"other.safetensors\"}}", "twice" },
        { "{\"weight_map\":{\"model.norm.weight\":\"other.safetensors\",\"model.x.weight\":\"other.safetensors\"}}", "missing" },
        { "{\"weight_map\":{\"model.norm.weight\":\"..\"}}", "not the name" },
        { "{\"weight_map\":{\"model.norm.weight\":\"./other.safetensors\"}}", "not the name" },
        { "{\"weight_map\":{}}", "embed_tokens" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tiny_put(&t, "model.safetensors.index.json", cases[i].index);
        tiny_refused(t.dir, cases[i].words, cases[i].index);
    }
    tiny_remove(&t);
}

static void test_mutated_safetensors(void **state)
{
    (void)state;
    struct tiny t;
    struct error err;
    struct text whole = { 0 };
    char path[128];
    const char *rounds = getenv("QDELTA_FUZZ_ROUNDS");
    int most = rounds ? atoi(rounds) : FUZZ_ROUNDS;
    tiny_start(&t, "");
    tiny_write(&t, "", NULL);
    tiny_path(&t, "model.safetensors", path);
    MUST(file_read(path, 0, &whole, &err));
    size_t header = 8 + (uint8_t)whole.data[0] + 256u * (uint8_t)whole.data[1];
    for (int i = 0; i < most; i++) {
        char *copy = malloc(whole.len);
        memcpy(copy, whole.data, whole.len);
        for (int j = 0; j <= i % 3; j++) {
            uint64_t r = random_at(1000 + (uint64_t)i, (uint64_t)j);
            copy[r % header] = (char)(r >> 32 & 1 ? '0' + (char)(r >> 40 & 15) : (int)((uint64_t)copy[r % header] ^ 1u << (r >> 40 & 7)));
        }
        MUST(file_write(path, copy, i % 5 ? whole.len : whole.len - whole.len / 3, &err));
        open_and_read(t.dir, &err);
        free(copy);
    }
    text_free(&whole);
    tiny_remove(&t);
}

static void test_bad_folders(void **state)
{
    (void)state;
    struct tiny t;
    char path[128];
    struct text deep = { 0 };
    tiny_start(&t, "");
    tiny_refused(t.dir, "config.json", "an empty folder");
    tiny_write(&t, "", NULL);
    static const struct { const char *index, *words; } cases[] = {
        { "{}", "weight_map" },
        { "{\"weight_map\":{\"model.norm.weight\":\"model-00001-of-00002.safetensors\"}}", "model-00001-of-00002" },
        { "{\"weight_map\":{\"model.norm.weight\":\"model.safetensors.index.json\"}}", "not the name" },
        { "{\"weight_map\":{\"model.norm.weight\":\"../model.safetensors\"}}", "not the name" },
        { "{\"weight_map\":{\"model.norm.weight\":7}}", "no file name" },
        { "{\"weight_map\":{\"model.norm.weight\":\"model.safetensors\",\"model.other.weight\":\"model.safetensors\"}}", "missing" },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        tiny_put(&t, "model.safetensors.index.json", cases[i].index);
        tiny_refused(t.dir, cases[i].words, cases[i].index);
    }
    tiny_path(&t, "model.safetensors.index.json", path);
    unlink(path);
    for (int i = 0; i < 200000; i++)
        text_putc(&deep, '[');
    tiny_put(&t, "config.json", text_str(&deep));
    tiny_refused(t.dir, "config.json", "200000 brackets");
    tiny_put(&t, "config.json", "{\"model_type\":\"llama\",");
    tiny_refused(t.dir, "config.json", "half a config");
    tiny_path(&t, "config.json", path);
    unlink(path);
    tiny_refused(t.dir, "no config.json", "a folder without config");
    tiny_refused("/nonexistent/model.gguf", "no such file", "no file");
    tiny_put(&t, "notes.txt", "not a model");
    tiny_path(&t, "notes.txt", path);
    tiny_refused(path, "neither", "a text file");
    text_free(&deep);
    tiny_remove(&t);
}

/* Folders and files of other kinds: the message says what they are and what to do. */
static void test_foreign_folders(void **state)
{
    (void)state;
    static const struct { const char *file, *words; bool config; } cases[] = {
        { "adapter_config.json", "LoRA", false },
        { "adapter_config.json", "LoRA", true },
        { "consolidated.safetensors", "Mistral's own layout", false },
        { "consolidated.safetensors", "Mistral's own layout", true },
        { "consolidated.00.pth", "Meta's own layout", false },
        { "pytorch_model.bin", "pytorch_model.bin is pickled: only safetensors are read", true },
        { "pytorch_model-00001-of-00002.bin", "pickled", true },
        { "pytorch_model.bin.index.json", "pickled", true },
        { "qmodel.pt", "HQQ", true },
        { "model.onnx", "ONNX", true },
        { "tf_model.h5", "TensorFlow", true },
        { "flax_model.msgpack", "Flax", true },
        { "gptq_model-4bit-128g.safetensors", "gptq_model-4bit-128g.safetensors has a name of its own: give its path", true },
        { "model-00001-of-00003.safetensors", "shards need model.safetensors.index.json", true },
        { "q4_k_m.gguf", "q4_k_m.gguf is a GGUF file: give its path", false },
        { "model.safetensors", "no config.json", false },
        { "README.md", "no model.safetensors or model.safetensors.index.json", true },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct tiny t = { .dir = "/tmp/qdelta-tiny-XXXXXX" };
        CHECK(mkdtemp(t.dir), "no temporary folder");
        tiny_put(&t, cases[i].file, "x");
        if (cases[i].config)
            tiny_put(&t, "config.json", "{" TINY_CONFIG "}");
        tiny_refused(t.dir, cases[i].words, cases[i].file);
        remove_tree(t.dir);
    }
}

static void test_foreign_files(void **state)
{
    (void)state;
    static const struct { const char *file, *bytes, *words; } cases[] = {
        { "a.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull" },
        { "model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull" },
        { "a.bin", "PK\003\004....", "zip archive" },
        { "a.pt", "\200\002}q", "pickle" },
        { "a.h5", "\211HDF\r\n", "HDF5" },
        { "ggml-model.bin", "tjgg....", "ggjt of 2023" },
        { "b.gguf", "<!DOCTYPE html><html>", "web page" },
        { "c.gguf", "GGUF\1", "the file ends within the header" },
        { "notes.txt", "hello", "neither a GGUF file" },
    };
    struct tiny t = { .dir = "/tmp/qdelta-tiny-XXXXXX" };
    CHECK(mkdtemp(t.dir), "no temporary folder");
    tiny_put(&t, "config.json", "{" TINY_CONFIG "}");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char path[128];
        tiny_path(&t, cases[i].file, path);
        tiny_put(&t, cases[i].file, cases[i].bytes);
        tiny_refused(path, cases[i].words, cases[i].file);
    }
    remove_tree(t.dir);
}

/* GGUF files that are no language model, of other versions, or with types that ggml does not have. */
static void test_foreign_gguf(void **state)
{
    (void)state;
    static const struct { const char *key, *value, *words; } cases[] = {
        { "general.type", "adapter", "LoRA" },           { "general.type", "imatrix", "importance matrix" }, { "general.type", "mmproj", "mmproj" },
        { "general.architecture", "clip", "mmproj" },    { "general.architecture", "gemma4-assistant", "drafter" },
        { "general.architecture", "llama", "no weights" }, { "general.architecture", "falcon", "not one this program runs" },
    };
    struct bytes b;
    start(&b);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct gguf_writer *w;
        struct error err;
        struct gguf_kv kv = { .key = cases[i].key, .type = GGUF_STRING, .value.s = { cases[i].value, strlen(cases[i].value) } };
        struct writer_tensor t = { "v.patch_embd.weight", FORMAT_F32, 1, { 32 } };
        MUST(gguf_writer_open(&w, b.path, &kv, 1, &t, i != 5, &err));
        if (i != 5)
            MUST(gguf_writer_data(w, (float[32]){ 0 }, 128, &err));
        MUST(gguf_writer_commit(w, &err));
        tiny_refused(b.path, cases[i].words, cases[i].value);
    }
    static const struct { int version, type; const char *words; } numbers[] = {
        { 1, 0, "GGUF version 1, read are 2 and 3" }, { 3 << 24, 0, "big-endian" }, { 3, 139, "ik_llama.cpp's own" }, { 3, 202, "ik_llama.cpp's own" },
        { 3, 43, "type 43, which is unknown" },      { 3, 31, "retired" },
    };
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++) {
        struct error err;
        struct text f = { 0 };
        uint32_t version = (uint32_t)numbers[i].version, type = (uint32_t)numbers[i].type;
        write_gguf(b.path, 0, 1, -1);
        MUST(file_read(b.path, 0, &f, &err));
        char *info = memmem(f.data, f.len, gguf_tensors[0].name, strlen(gguf_tensors[0].name));
        CHECK(info, "no tensor description");
        memcpy(f.data + 4, &version, 4);
        memcpy(info + strlen(gguf_tensors[0].name) + 4 + 2 * 8, &type, 4);
        MUST(file_write(b.path, f.data, f.len, &err));
        tiny_refused(b.path, numbers[i].words, numbers[i].words);
        text_free(&f);
    }
    finish(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_file_opens), cmocka_unit_test(test_truncated_gguf),    cmocka_unit_test(test_lying_gguf),
        cmocka_unit_test(test_foreign_folders),  cmocka_unit_test(test_foreign_files),     cmocka_unit_test(test_foreign_gguf),
        cmocka_unit_test(test_mutated_gguf),     cmocka_unit_test(test_nan_scale),         cmocka_unit_test(test_splits),
        cmocka_unit_test(test_lying_safetensors), cmocka_unit_test(test_mutated_safetensors), cmocka_unit_test(test_bad_folders),
        cmocka_unit_test(test_deep_headers),     cmocka_unit_test(test_bad_shards),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
