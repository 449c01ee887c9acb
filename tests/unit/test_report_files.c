/* test_report_files.c - the report folder: everything there, the same bytes twice, and whole without gnuplot.
 * To look at it: REPORT_DIR=/tmp/report build/tests/test_report_files, then open /tmp/report/index.html. */
#include <sys/stat.h>

#include "report_rows.h"

#include "report/report.h"

/* All models and tasks, a second night of one of them, and an item whose text would break a careless page. */
static int make_nights(void **state)
{
    if (make_database(state) != 0)
        return -1;
    static const char *const nights[] = { "2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04" };
    struct made_model nightly = made_models[3];
    for (size_t i = 0; i < ARRAY_LEN(nights); i++) {
        nightly.shift = -.04 - .1 * (double)i * (double)(i == 3);
        nightly.blur = .2 + .02 * (double)i;
        made_run(store, &made_tasks[1], &nightly, nights[i], made_tasks[1].n);
    }
    return sqlite3_exec(store_db(store),
                        "UPDATE items SET output = '<script>alert(\"x\")</script> ``` | & ' || x'ff' WHERE margin < 2 AND "
                        "output IS NOT NULL",
                        NULL, NULL, NULL) == SQLITE_OK
               ? 0
               : -1;
}

static void write_report(const char *dir, bool *plots_missing)
{
    static const char *const models[] = { "q8_0", "rtn-q4_0", "qat-q4_0" };
    struct error err = { 0 };
    struct report_options o = { .base = "bf16", .models = models, .n_models = 3 };
    MUST(report_write(store, &o, dir, plots_missing, &err));
}

static char *content(const char *dir, const char *name)
{
    struct error err = { 0 };
    struct text path = { 0 }, t = { 0 };
    path_join(&path, dir, name);
    MUST(file_read(text_str(&path), 0, &t, &err));
    text_free(&path);
    return t.data;
}

static const char *const plot_names[] = { "size-gsm8k", "size-mmlu", "forest", "flips", "kld", "subjects-mmlu-q8_0",
                                          "subjects-mmlu-rtn-q4_0", "subjects-mmlu-qat-q4_0", "history-mmlu-qat-q4_0" };

static void test_whole_folder(void **state)
{
    (void)state;
    const char *dir = getenv("REPORT_DIR") ? getenv("REPORT_DIR") : in_dir("report");
    bool missing;
    write_report(dir, &missing);
    CHECK(!missing, "gnuplot draws every plot");
    for (size_t i = 0; i < ARRAY_LEN(plot_names); i++) {
        char name[100];
        snprintf(name, sizeof name, "plots/%s.svg", plot_names[i]);
        char *svg = content(dir, name);
        CHECK(strstr(svg, "<svg") && strstr(svg, "</svg>"), "%s", name);
        free(svg);
        snprintf(name, sizeof name, "data/%s.tsv", plot_names[i]);
        char *tsv = content(dir, name);
        CHECK(strchr(tsv, '\t') && strchr(tsv, '\n')[1], "%s has rows", name);
        free(tsv);
    }
    char *html = content(dir, "index.html"), *md = content(dir, "report.md");
    static const char *const both[] = { "In short",
                                        "Gap closed",
                                        "Flips",
                                        "By subject",
                                        "Token-level distance",
                                        "Conversion: against another reference",
                                        "History",
                                        "Items that flipped",
                                        "Models and runs",
                                        "0f3a9c1d2e4b",
                                        "avx512",
                                        "i16" };
    for (size_t i = 0; i < ARRAY_LEN(both); i++)
        CHECK(strstr(html, both[i]) && strstr(md, both[i]), "\"%s\" is in both", both[i]);
    CHECK(strstr(html, made_models[3].sha256) && strstr(md, made_models[3].sha256), "digests");
    CHECK(!strstr(html, "<script") && strstr(html, "&lt;script&gt;"), "outputs are escaped");
    CHECK(utf8_check(html, strlen(html)) == strlen(html), "the page is UTF-8 though an output is not");
    free(html);
    free(md);
}

/* Nothing is loaded from anywhere: the only addresses are names of XML vocabularies. */
static void check_self_contained(const char *html)
{
    static const char *const forbidden[] = { "<link", "@import", "src=", "url(http", "<iframe" };
    for (size_t i = 0; i < ARRAY_LEN(forbidden); i++)
        CHECK(!strstr(html, forbidden[i]), "%s", forbidden[i]);
    for (const char *p = html; (p = strstr(p, "http")) != NULL; p++)
        CHECK(str_starts(p, "http://www.w3.org/"), "%.60s", p);
}

static void test_same_bytes_twice(void **state)
{
    (void)state;
    bool missing;
    const char *one = in_dir("one"), *two = in_dir("two");
    write_report(one, &missing);
    write_report(two, &missing);
    static const char *const files[] = { "index.html", "report.md", "data/comparisons.tsv", "plots/forest.svg", "plots/kld.svg",
                                         "plots/size-mmlu.svg", "plots/history-mmlu-qat-q4_0.svg" };
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        char *a = content(one, files[i]), *b = content(two, files[i]);
        CHECK(strcmp(a, b) == 0, "%s differs between two reports of one database", files[i]);
        if (i == 0)
            check_self_contained(a);
        free(a);
        free(b);
    }
}

/* PATH without gnuplot, then with one that fails. */
static void test_without_gnuplot(void **state)
{
    (void)state;
    struct error err = { 0 };
    const char *dir = in_dir("report"), *bin = in_dir("bin");
    char *old = str_dup(getenv("PATH"), NULL);
    bool missing;
    MUST(make_dirs(bin, &err));
    MUST(make_dirs(in_dir("report/plots"), &err));
    MUST(file_write(in_dir("report/plots/forest.svg"), "<svg></svg>", 11, &err));      /* of an earlier report */
    setenv("PATH", bin, 1);
    write_report(dir, &missing);
    char *html = content(dir, "index.html"), *md = content(dir, "report.md");
    CHECK(missing && strstr(html, "gnuplot is not installed") && strstr(md, "gnuplot is not installed"), "told in both");
    CHECK(!strstr(html, "<svg") && strstr(html, "In short") && strstr(html, "data/forest.tsv"), "the rest is written");
    CHECK(!file_exists(in_dir("report/plots/forest.svg")), "no stale drawing is left");
    free(html);
    free(md);
    static const char script[] = "#!/bin/sh\necho '\"plots/forest.gp\" line 3: no such thing' >&2\nexit 1\n";
    MUST(file_write(in_dir("bin/gnuplot"), script, strlen(script), &err));
    assert_int_equal(chmod(in_dir("bin/gnuplot"), 0755), 0);
    write_report(dir, &missing);
    md = content(dir, "report.md");
    CHECK(missing && strstr(md, "could not draw") && strstr(md, "no such thing"), "the reason is given");
    free(md);
    setenv("PATH", old, 1);
    free(old);
}

/* Nothing moves, nothing is right, one item, names with spaces: every plot must still come out. */
static void test_dull_data(void **state)
{
    (void)state;
    struct error err = { 0 };
    bool missing;
    const char *models[] = { "same again", "other 'quoted' \"name\"" };
    static const struct made_model arms[] = {
        { "dull base", "d001", "f32", "", .002, 0, 0, "i16" },
        { "same again", "d002", "f32", "", .002, 0, 0, "i16" },
        { "other 'quoted' \"name\"", "d003", "q4_0", "", 0, 0, -INFINITY, "i16" },
    };
    for (size_t m = 0; m < ARRAY_LEN(arms); m++) {
        made_run(store, &made_tasks[0], &arms[m], NULL, 1);
        made_run(store, &made_tasks[1], &arms[m], NULL, 70);
    }
    struct report_options o = { .base = "dull base", .models = models, .n_models = 2 };
    MUST(report_write(store, &o, in_dir("dull"), &missing, &err));
    char *md = content(in_dir("dull"), "report.md");
    CHECK(!missing, "%s", strstr(md, "Plots:") ? strstr(md, "Plots:") : "a plot failed");
    free(md);
}

static void test_folder_that_cannot_be(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct report_options o = { .base = "bf16" };
    bool missing;
    MUST(file_write(in_dir("file"), "x", 1, &err));
    CHECK(!report_write(store, &o, in_dir("file/report"), &missing, &err) && strstr(err.text, "file"), "%s", err.text);
}

#define ON_ROWS(test) cmocka_unit_test_setup_teardown(test, make_nights, remove_database)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ROWS(test_whole_folder),
        ON_ROWS(test_same_bytes_twice),
        ON_ROWS(test_without_gnuplot),
        ON_ROWS(test_dull_data),
        ON_ROWS(test_folder_that_cannot_be),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
