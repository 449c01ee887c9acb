/* base/: errors, memory, text, files, JSON, threads, CPython's random numbers, digests. */
#include "check.h"

#include <unistd.h>

#include "base/base.h"

static void test_errors_carry_context(void **state)
{
    (void)state;
    struct error err = { 0 };
    assert_false(fail(&err, STATUS_FORMAT, "tensor %s is [%d]", "x", 3));
    assert_false(fail_in(&err, "engine for %s", "a.gguf"));
    assert_string_equal(err.text, "engine for a.gguf: tensor x is [3]");
    assert_int_equal(err.status, STATUS_FORMAT);
    char longest[3000];
    memset(longest, 'y', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    fail_in(&err, "%s", longest);
    CHECK(strlen(err.text) < sizeof err.text, "text of %zu bytes", strlen(err.text));
}

static void test_allocation_checks_arithmetic(void **state)
{
    (void)state;
    struct error err = { 0 };
    assert_null(mem_new(SIZE_MAX / 2, 4, &err));
    assert_int_equal(err.status, STATUS_MEMORY);
    assert_null(mem_new_aligned(SIZE_MAX, 8, &err));
    unsigned char *p = mem_new_aligned(3, 5, &err);
    assert_non_null(p);
    assert_int_equal((uintptr_t)p % 64, 0);
    free(p);
    int *a = NULL;
    size_t cap = 0;
    for (size_t i = 0; i < 1000; i++) {
        MUST(mem_grow(&a, &cap, i + 1, sizeof *a, &err));
        assert_int_equal(a[i], 0);
        a[i] = 1;
    }
    assert_false(mem_grow(&a, &cap, SIZE_MAX / 2, sizeof *a, &err));
    free(a);
}

static void test_map_keeps_what_was_put(void **state)
{
    (void)state;
    enum { N = 5000 };
    static char keys[N][16];
    struct map m = { 0 };
    struct error err = { 0 };
    int64_t v;
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "key%hd", (short)i);
        MUST(map_put(&m, keys[i], strlen(keys[i]), i, &err));
    }
    MUST(map_put(&m, "key7", 4, -7, &err));
    assert_int_equal(m.count, N);
    for (int i = 0; i < N; i++)
        CHECK(map_get(&m, keys[i], strlen(keys[i]), &v) && v == (i == 7 ? -7 : i), "%s", keys[i]);
    assert_false(map_get(&m, "nokey", 5, &v));
    map_free(&m);
    assert_false(map_get(&m, "key1", 4, &v));
}

static void test_utf8(void **state)
{
    (void)state;
    static const struct {
        const char *s;
        int bytes;
        uint32_t code;
    } rows[] = {
        { "A", 1, 'A' }, { "\xC3\xA9", 2, 0xE9 }, { "\xE2\x96\x81", 3, 0x2581 }, { "\xF0\x9F\x98\x80", 4, 0x1F600 },
        { "\xC0\x80", 0, 0 }, { "\xED\xA0\x80", 0, 0 }, { "\xF4\x90\x80\x80", 0, 0 }, { "\xE2\x96", 0, 0 }, { "\x80", 0, 0 },
        { "\xFF", 0, 0 }, { "\xE0\x80\x80", 0, 0 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        uint32_t code = 0;
        int n = utf8_decode(rows[i].s, strlen(rows[i].s), &code);
        CHECK(n == rows[i].bytes && (!n || code == rows[i].code), "row %zu: %d bytes, U+%04X", i, n, code);
    }
    for (uint32_t c = 0; c <= 0x110000; c++) {
        char buffer[4];
        uint32_t back;
        int n = utf8_encode(c, buffer);
        bool legal = c <= 0x10FFFF && !(c >= 0xD800 && c < 0xE000);
        CHECK((n > 0) == legal && (!n || (utf8_decode(buffer, (size_t)n, &back) == n && back == c)), "U+%04X", c);
    }
    assert_int_equal(utf8_check("ab\xFF", 3), 2);
    assert_int_equal(utf8_count("a\xC3\xA9\xFF", 4), 3);
}

static void test_numbers_and_words(void **state)
{
    (void)state;
    int64_t i;
    double d;
    assert_true(parse_int("-12", -20, 20, &i) && i == -12);
    assert_false(parse_int("12x", 0, 20, &i) || parse_int("", 0, 20, &i) || parse_int("21", 0, 20, &i) ||
                 parse_int("99999999999999999999", 0, INT64_MAX, &i));
    assert_true(parse_double("1.5", 0, 2, &d) && d == 1.5);
    assert_false(parse_double("nan", 0, 2, &d) || parse_double("3", 0, 2, &d) || parse_double("1 ", 0, 2, &d));
    static const char *const words[] = { "run", "compare", "report", "quantize" };
    assert_string_equal(nearest_word("comapre", words, 4), "compare");
    assert_string_equal(nearest_word("quantise", words, 4), "quantize");
    assert_null(nearest_word("xyzzyplugh", words, 4));
}

static void test_text_grows(void **state)
{
    (void)state;
    struct text t = { 0 };
    assert_string_equal(text_str(&t), "");
    for (int i = 0; i < 1000; i++)
        text_printf(&t, "%d,", i);
    assert_int_equal(t.len, 3890);
    assert_false(t.failed);
    text_free(&t);
}

/* Vectors of CPython 3 (random.Random). */
static void test_cpython_random(void **state)
{
    (void)state;
    static const uint32_t bits[] = { 4150886329u, 3342196574u, 1892932127u, 501869158u, 32175636u, 389311301u };
    struct py_random r;
    py_random_seed(&r, 1234);
    for (size_t i = 0; i < ARRAY_LEN(bits); i++)
        assert_int_equal(py_random_bits(&r, 32), bits[i]);
    py_random_seed(&r, 1234);
    CHECK_NEAR(py_random_unit(&r), 0.9664535356921388, 0, "first");
    CHECK_NEAR(py_random_unit(&r), 0.4407325991753527, 0, "second");
    int out[25], scratch[7473], order[10];
    py_random_seed(&r, 1234);
    py_random_sample(&r, 10, 3, out, scratch);
    assert_true(out[0] == 7 && out[1] == 1 && out[2] == 0);
    py_random_sample(&r, 10, 3, out, scratch);
    assert_true(out[0] == 1 && out[1] == 0 && out[2] == 9);
    static const int gsm8k[4][5] = { { 6374, 3610, 957, 61, 742 }, { 7462, 6610, 4769, 286, 5501 },
                                     { 5677, 687, 806, 6279, 2905 }, { 1939, 142, 252, 6461, 129 } };
    py_random_seed(&r, 1234);
    for (int d = 0; d < 4; d++) {
        py_random_sample(&r, 7473, 5, out, scratch);
        for (int i = 0; i < 5; i++)
            CHECK(out[i] == gsm8k[d][i], "document %d, shot %d: %d", d, i, out[i]);
    }
    static const int shuffled[] = { 7, 3, 2, 8, 5, 6, 9, 4, 0, 1 };
    py_random_seed(&r, 42);
    for (int i = 0; i < 10; i++)
        order[i] = i;
    py_random_shuffle(&r, order, 10);
    for (int i = 0; i < 10; i++)
        assert_int_equal(order[i], shuffled[i]);
}

static void test_sha256(void **state)
{
    (void)state;
    struct error err = { 0 };
    uint8_t digest[32];
    char hex[65];
    MUST(sha256_bytes("abc", 3, digest, &err));
    hex_of(digest, 32, hex);
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_false(sha256_file("/nonexistent/file", digest, &err));
    CHECK(strstr(err.text, "/nonexistent/file"), "%s", err.text);
}

static void test_json_errors_name_the_place(void **state)
{
    (void)state;
    struct error err = { 0 };
    const char *s;
    int64_t n;
    assert_null(json_parse("{\n \"a\": 1,,\n}", 13, "x.json", &err));
    CHECK(strstr(err.text, "x.json: line 2"), "%s", err.text);
    assert_null(json_parse("{} x", 4, "x.json", &err));
    cJSON *o = json_parse("{\"a\": 1, \"b\": null, \"c\": 1.5}", 29, "x.json", &err);
    assert_non_null(o);
    assert_false(json_str(o, "a", &s, "x.json", &err));
    assert_string_equal(err.text, "x.json: \"a\" is a number, expected a string");
    assert_false(json_int(o, "b", &n, "x.json", &err));
    assert_string_equal(err.text, "x.json: \"b\" is nothing, expected a whole number");
    assert_false(json_int(o, "c", &n, "x.json", &err));
    assert_true(json_int(o, "a", &n, "x.json", &err) && n == 1);
    cJSON_Delete(o);
    struct text deep = { 0 };
    for (int i = 0; i < 100000; i++)
        text_putc(&deep, '[');
    assert_null(json_parse(text_str(&deep), deep.len, "deep.json", &err));
    text_free(&deep);
}

static void test_files_appear_whole(void **state)
{
    (void)state;
    char dir[] = "/tmp/qdelta-base-XXXXXX", path[64], partial[80];
    struct error err = { 0 };
    struct file_writer w;
    struct text t = { 0 };
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/out", dir);
    snprintf(partial, sizeof partial, "%s.partial", path);
    MUST(file_writer_open(&w, path, &err));
    MUST(file_writer_add(&w, "half", 4, &err));
    assert_true(file_exists(partial) && !file_exists(path));
    file_writer_discard(&w);
    assert_false(file_exists(partial) || file_exists(path));
    MUST(file_write(path, "whole", 5, &err));
    MUST(file_read(path, 0, &t, &err));
    assert_string_equal(text_str(&t), "whole");
    assert_false(file_read(path, 3, &t, &err));
    text_free(&t);
    struct mapping m;
    MUST(mapping_open(&m, path, &err));
    assert_memory_equal(m.data, "whole", 5);
    mapping_close(&m);
    assert_false(mapping_open(&m, dir, &err));
    unlink(path);
    char nested[80];
    snprintf(nested, sizeof nested, "%s/a/b/c", dir);
    MUST(make_dirs(nested, &err));
    assert_true(dir_exists(nested));
    for (int i = 0; i < 3; i++) {
        rmdir(nested);
        nested[strlen(nested) - 2] = '\0';
    }
    rmdir(dir);
}

static void count_job(void *ctx, int i, int thread)
{
    int *hits = ctx;
    (void)thread;
    hits[i]++;
}

static void test_pool_runs_every_job_once(void **state)
{
    (void)state;
    enum { JOBS = 1000 };
    static int hits[JOBS];
    for (int threads = 1; threads <= 5; threads++) {
        struct pool *p;
        struct error err = { 0 };
        MUST(pool_open(&p, threads, &err));
        assert_int_equal(pool_threads(p), threads);
        for (int round = 0; round < 200; round++) {
            int jobs = round % 7 ? round * 5 : 1;
            memset(hits, 0, sizeof hits);
            pool_run(p, jobs, count_job, hits);
            for (int i = 0; i < JOBS; i++)
                CHECK(hits[i] == (i < jobs), "%d threads, round %d, job %d ran %d times", threads, round, i, hits[i]);
        }
        pool_close(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_errors_carry_context), cmocka_unit_test(test_allocation_checks_arithmetic),
        cmocka_unit_test(test_map_keeps_what_was_put), cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_numbers_and_words), cmocka_unit_test(test_text_grows),
        cmocka_unit_test(test_cpython_random), cmocka_unit_test(test_sha256),
        cmocka_unit_test(test_json_errors_name_the_place), cmocka_unit_test(test_files_appear_whole),
        cmocka_unit_test(test_pool_runs_every_job_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
