/* GGUF and safetensors out: read back by readers written here from the formats' descriptions, not by model/. */
#define _DEFAULT_SOURCE
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "scratch.h"

#include "model/writer.h"

struct reader {
    const uint8_t *p, *end, *start;
};
static uint64_t number(struct reader *r, int bytes)
{
    uint64_t v = 0;
    CHECK(r->end - r->p >= bytes, "file ends at byte %zu", (size_t)(r->p - r->start));
    for (int i = 0; i < bytes; i++)
        v |= (uint64_t)*r->p++ << 8 * i;
    return v;
}
static void must_string(struct reader *r, const char *want)
{
    uint64_t n = number(r, 8);
    CHECK(n == strlen(want) && n <= (uint64_t)(r->end - r->p) && memcmp(r->p, want, n) == 0,
          "string at byte %zu is %.*s, expected %s", (size_t)(r->p - r->start), (int)n, (const char *)r->p, want);
    r->p += n;
}

static const uint32_t u32s[] = { 7, 8, 0xffffffff };
static const struct gguf_string strings[] = { { "a", 1 }, { "", 0 }, { "b\0c", 3 } };

static const struct gguf_kv kv[] = {
    { .key = "general.architecture", .type = GGUF_STRING, .value.s = { "llama", 5 } },
    { .key = "general.alignment", .type = GGUF_U32, .value.u = 64 },
    { .key = "a.u8", .type = GGUF_U8, .value.u = 250 },
    { .key = "a.i32", .type = GGUF_I32, .value.i = -5 },
    { .key = "a.f32", .type = GGUF_F32, .value.f = 0.1 },
    { .key = "a.f64", .type = GGUF_F64, .value.f = 0.1 },
    { .key = "a.bool", .type = GGUF_BOOL, .value.u = 1 },
    { .key = "a.u64", .type = GGUF_U64, .value.u = UINT64_MAX - 1 },
    { .key = "a.list", .type = GGUF_ARRAY, .element = GGUF_U32, .count = 3, .value.array = u32s },
    { .key = "a.words", .type = GGUF_ARRAY, .element = GGUF_STRING, .count = 3, .value.array = strings },
};
static const struct writer_tensor tensors[] = {
    { "x", FORMAT_F32, 1, { 5 } },
    { "blk.0.w", FORMAT_Q4_0, 2, { 64, 3 } },
    { "e", FORMAT_F16, 3, { 2, 3, 4 } },
};
static const uint64_t sizes[] = { 20, 108, 48 };

/* first: the metadata known when the file is opened; all of it is known at the end. */
static void write_gguf(const char *path, const struct gguf_kv *first, int n_first)
{
    struct error err;
    struct gguf_writer *w;
    MUST(gguf_writer_open(&w, path, first, n_first, tensors, ARRAY_LEN(tensors), &err));
    CHECK(!file_exists(path), "%s is there before it is whole", path);
    for (size_t t = 0; t < ARRAY_LEN(tensors); t++)
        for (uint64_t i = 0; i < sizes[t]; i++) {       /* a byte at a time: pieces of any size */
            uint8_t byte = (uint8_t)(100 * t + i);
            MUST(gguf_writer_data(w, &byte, 1, &err));
        }
    MUST(first == kv && n_first == ARRAY_LEN(kv) ? true : gguf_writer_metadata(w, kv, ARRAY_LEN(kv), &err));
    MUST(gguf_writer_commit(w, &err));
}

static void must_equal(const char *a, const char *b, const char *what)
{
    struct error err;
    struct text x = { 0 }, y = { 0 };
    MUST(file_read(a, 0, &x, &err));
    MUST(file_read(b, 0, &y, &err));
    CHECK(x.len == y.len && !memcmp(x.data, y.data, x.len), "%s: %zu and %zu bytes differ", what, x.len, y.len);
    text_free(&x);
    text_free(&y);
    unlink(b);
}

/* Metadata may be replaced at the end by longer, shorter or other of the same length: the file is the one that had it
 * from the beginning. */
static void test_late_metadata(void **state)
{
    (void)state;
    struct error err;
    static const char note[] = "a text longer than the test's own list, so that the data moves to the front when it goes, by more than one "
                               "unit of alignment. And so on, and so on, and so on, and so on, and so on, and so on, and so on, and so on, "
                               "and so on, and so on, and so on, and so on, and so on, until the header is longer than its successor.";
    const struct gguf_kv longer[] = { kv[0], kv[1], kv[8], kv[9], { .key = "note", .type = GGUF_STRING, .value.s = { note, sizeof note - 1 } } };
    write_gguf(in_dir("c.gguf"), kv, ARRAY_LEN(kv));
    write_gguf(in_dir("d.gguf"), kv, 3);
    must_equal(in_dir("c.gguf"), in_dir("d.gguf"), "longer");
    write_gguf(in_dir("d.gguf"), longer, ARRAY_LEN(longer));
    must_equal(in_dir("c.gguf"), in_dir("d.gguf"), "shorter");
    unlink(in_dir("c.gguf"));
    static const struct safetensors_entry e[] = { { "x", "U8", 1, { 3000000 } } };
    static const char *const words[][3] = { { "note", "two\\nlines", NULL }, { NULL }, { "a", "something much longer than the other one is", NULL } };
    uint8_t *bytes = mem_new(3000000, 1, &err);
    for (int i = 0; i < 3000000; i++)
        bytes[i] = (uint8_t)(i * 7 ^ i >> 9);
    for (int k = 0; k < 3; k++) {
        struct safetensors_writer *w;
        MUST(safetensors_writer_open(&w, in_dir(k ? "b.st" : "a.st"), e, 1, words[k], &err));
        MUST(safetensors_writer_data(w, bytes, 3000000, &err));
        MUST(k ? safetensors_writer_metadata(w, words[0], &err) : true);
        MUST(safetensors_writer_commit(w, &err));
        if (k)
            must_equal(in_dir("a.st"), in_dir("b.st"), "safetensors");
    }
    unlink(in_dir("a.st"));
    free(bytes);
}

static void test_gguf(void **state)
{
    (void)state;
    struct error err;
    write_gguf(in_dir("a.gguf"), kv, ARRAY_LEN(kv));
    CHECK(!file_exists(in_dir("a.gguf.partial")), "partial left behind");
    struct mapping m = { 0 };
    MUST(mapping_open(&m, in_dir("a.gguf"), &err));
    struct reader r = { m.data, m.data + m.size, m.data };
    assert_memory_equal(r.p, "GGUF", 4);
    r.p += 4;
    assert_int_equal(number(&r, 4), 3);
    assert_int_equal(number(&r, 8), 3);
    assert_int_equal(number(&r, 8), ARRAY_LEN(kv));
    for (size_t i = 0; i < ARRAY_LEN(kv); i++) {
        must_string(&r, kv[i].key);
        static const uint32_t on_disk[] = { 8, 4, 0, 5, 6, 12, 7, 10, 9, 9 };
        CHECK(number(&r, 4) == on_disk[i], "type of %s", kv[i].key);
        switch (i) {
        case 0: must_string(&r, "llama"); break;
        case 1: assert_int_equal(number(&r, 4), 64); break;
        case 2: assert_int_equal(number(&r, 1), 250); break;
        case 3: assert_int_equal((int32_t)number(&r, 4), -5); break;
        case 4: assert_int_equal(number(&r, 4), 0x3dcccccd); break;
        case 5: assert_true(number(&r, 8) == 0x3fb999999999999a); break;
        case 6: assert_int_equal(number(&r, 1), 1); break;
        case 7: assert_true(number(&r, 8) == UINT64_MAX - 1); break;
        case 8:
            assert_int_equal(number(&r, 4), 4);
            assert_int_equal(number(&r, 8), 3);
            for (int k = 0; k < 3; k++)
                assert_int_equal(number(&r, 4), u32s[k]);
            break;
        case 9:
            assert_int_equal(number(&r, 4), 8);
            assert_int_equal(number(&r, 8), 3);
            must_string(&r, "a");
            must_string(&r, "");
            assert_int_equal(number(&r, 8), 3);
            assert_memory_equal(r.p, "b\0c", 3);
            r.p += 3;
        }
    }
    static const uint64_t offsets[] = { 0, 64, 192 };
    static const uint32_t types[] = { 0, 2, 1 };
    for (int t = 0; t < 3; t++) {
        must_string(&r, tensors[t].name);
        assert_int_equal(number(&r, 4), tensors[t].n_dims);
        for (int d = 0; d < tensors[t].n_dims; d++)
            assert_int_equal(number(&r, 8), tensors[t].dims[d]);
        assert_int_equal(number(&r, 4), types[t]);
        CHECK(number(&r, 8) == offsets[t], "offset of %s", tensors[t].name);
    }
    size_t data = ((size_t)(r.p - r.start) + 63) / 64 * 64;
    CHECK(m.size == data + 256, "file of %zu bytes, data at %zu", m.size, data);
    for (int t = 0; t < 3; t++)
        for (uint64_t i = 0; i < sizes[t]; i++)
            CHECK(m.data[data + offsets[t] + i] == (uint8_t)(100 * (unsigned)t + i), "%s byte %d", tensors[t].name, (int)i);
    mapping_close(&m);
}

static void test_safetensors(void **state)
{
    (void)state;
    static const struct safetensors_entry e[] = {
        { "model.a.weight", "BF16", 2, { 2, 3 } }, { "model.\"b\"", "F32", 1, { 2 } }, { "c", "U8", 0, { 0 } },
    };
    static const char *const metadata[] = { "format", "pt", "note", "a \"b\" \\", NULL };
    struct error err;
    struct safetensors_writer *w;
    const char *path = in_dir("a.safetensors");
    MUST(safetensors_writer_open(&w, path, e, 3, metadata, &err));
    uint8_t bytes[21];
    for (int i = 0; i < 21; i++)
        bytes[i] = (uint8_t)(i * 11);
    MUST(safetensors_writer_data(w, bytes, 12, &err));
    MUST(safetensors_writer_data(w, bytes + 12, 8, &err));
    MUST(safetensors_writer_data(w, bytes + 20, 1, &err));
    MUST(safetensors_writer_commit(w, &err));
    struct mapping m = { 0 };
    MUST(mapping_open(&m, path, &err));
    struct reader r = { m.data, m.data + m.size, m.data };
    uint64_t len = number(&r, 8);
    CHECK(len % 8 == 0 && len + 8 + 21 == m.size, "header %d of %zu bytes", (int)len, m.size);
    cJSON *j = json_parse((const char *)r.p, len, path, &err);
    CHECK(j, "%s", err.text);
    static const int begin[] = { 0, 12, 20 }, end[] = { 12, 20, 21 };
    for (int t = 0; t < 3; t++) {
        const cJSON *o = cJSON_GetObjectItemCaseSensitive(j, e[t].name);
        CHECK(o, "%s is missing", e[t].name);
        assert_string_equal(cJSON_GetObjectItem(o, "dtype")->valuestring, e[t].dtype);
        assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(o, "shape")), e[t].n_dims);
        assert_int_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(o, "data_offsets"), 0)->valueint, begin[t]);
        assert_int_equal(cJSON_GetArrayItem(cJSON_GetObjectItem(o, "data_offsets"), 1)->valueint, end[t]);
    }
    assert_string_equal(cJSON_GetObjectItem(cJSON_GetObjectItem(j, "__metadata__"), "note")->valuestring, "a \"b\" \\");
    assert_memory_equal(r.p + len, bytes, 21);
    cJSON_Delete(j);
    mapping_close(&m);
}

/* Each mistake is an error that names the tensor, and leaves no file. */
static void test_refusals(void **state)
{
    (void)state;
    static const struct {
        struct writer_tensor t[2];
        int n;
        const char *says;
    } bad[] = {
        { { { "w", FORMAT_Q4_0, 2, { 48, 2 } } }, 1, "48" },
        { { { "w", FORMAT_F32, 5, { 1 } } }, 1, "5 dimensions" },
        { { { "w", FORMAT_NF4, 1, { 32 } } }, 1, "no type for nf4" },
        { { { "w", FORMAT_F32, 2, { 4, -1 } } }, 1, "dimension 1 is -1" },
        { { { "w", FORMAT_F32, 3, { 1 << 20, 1LL << 40, 1 << 10 } } }, 1, "dimension" },
        { { { "w", FORMAT_F32, 1, { 4 } }, { "w", FORMAT_F32, 1, { 4 } } }, 2, "two tensors are called w" },
    };
    const char *path = in_dir("bad.gguf");
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct error err = { 0 };
        struct gguf_writer *w;
        CHECK(!gguf_writer_open(&w, path, NULL, 0, bad[i].t, bad[i].n, &err), "case %zu was accepted", i);
        CHECK(strstr(err.text, bad[i].says), "case %zu says: %s", i, err.text);
        CHECK(!w && !file_exists(in_dir("bad.gguf.partial")), "case %zu left something", i);
    }
    static const struct { int first, second; const char *says; } amounts[] = {
        { 16, 15, "15 of its 16" }, { 16, 17, "got more" }, { 17, 0, "got more" }, { 0, 0, "0 of its 16" },
    };
    static const struct writer_tensor two[] = { { "a", FORMAT_F32, 1, { 4 } }, { "b", FORMAT_F32, 1, { 4 } } };
    for (size_t i = 0; i < ARRAY_LEN(amounts); i++) {
        struct error err = { 0 };
        struct gguf_writer *w;
        uint8_t zeros[32] = { 0 };
        MUST(gguf_writer_open(&w, path, NULL, 0, two, 2, &err));
        bool ok = gguf_writer_data(w, zeros, (uint64_t)amounts[i].first, &err) &&
                  gguf_writer_data(w, zeros, (uint64_t)amounts[i].second, &err);
        if (ok)
            ok = gguf_writer_commit(w, &err);
        else
            gguf_writer_discard(w);
        CHECK(!ok && strstr(err.text, amounts[i].says), "amounts %zu: %s", i, err.text);
        CHECK(!file_exists(path) && !file_exists(in_dir("bad.gguf.partial")), "amounts %zu left a file", i);
    }
}

/* A disk that takes no more: an error, and nothing left.  A file size limit stands in for the full disk. */
static void test_no_room(void **state)
{
    (void)state;
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 1 << 16;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    static const struct writer_tensor big[] = { { "big.weight", FORMAT_F32, 1, { 1 << 16 } } };
    static uint8_t data[1 << 18];
    struct error err = { 0 };
    struct gguf_writer *w;
    bool ok = gguf_writer_open(&w, in_dir("full.gguf"), NULL, 0, big, 1, &err);
    bool wrote = ok && gguf_writer_data(w, data, sizeof data, &err);
    if (wrote)
        wrote = gguf_writer_commit(w, &err);
    else
        gguf_writer_discard(w);
    setrlimit(RLIMIT_FSIZE, &old);
    CHECK(ok && !wrote, "a full disk went unnoticed");
    CHECK(strstr(err.text, "full.gguf"), "%s", err.text);
    CHECK(!file_exists(in_dir("full.gguf")) && !file_exists(in_dir("full.gguf.partial")), "something was left");
}

static int remove_files(void **state)
{
    unlink(in_dir("a.gguf"));
    unlink(in_dir("a.safetensors"));
    return remove_empty_scratch(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gguf),
        cmocka_unit_test(test_late_metadata), cmocka_unit_test(test_safetensors),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_no_room),
    };
    return cmocka_run_group_tests_name("writer", tests, make_scratch, remove_files);
}
