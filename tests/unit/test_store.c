/* test_store.c - rows go in once, whole, and come back; and what is not a database is said to be none. */
#include "scratch.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "store/store.h"

/* ---- a folder of its own for each test ---- */

/* Others may look in: a test reads as another user. */
static int make_open_scratch(void **state)
{
    return make_scratch(state) == 0 ? chmod(scratch_dir, 0755) : -1;
}

/* ---- rows that are a function of (run, i), so any two writers agree ---- */

static struct run_identity some_run(const char *label, const char *task)
{
    return (struct run_identity){
        .model_label = label, .model_path = "m.gguf", .model_sha256 = "aa11", .arch = "llama", .recipe = "q4_0 all",
        .format = "q4_0", .method = "rtn", .bits_per_weight = 4.5, .file_bytes = 123456789012, .tokenizer_hash = "tok",
        .template_name = "", .task = task, .task_version = "1", .metric = "acc", .prompt_mode = "stable", .shots = 5,
        .limit = 0, .seed = UINT64_MAX - 1, .shard = "1/1", .act = "i16", .program_version = "0.1.0", .commit = "c0ffee",
        .kernels = "avx2", .threads = 2, .items_expected = 500, .command = "qdelta run",
    };
}

struct some_item {
    struct item_row row;
    char id[32], hash_text[16], output[64];
    struct item_choice choices[4];
    struct item_extraction extractions[2];
    struct item_score scores[2];
};

static void fill_item(struct some_item *s, int i)
{
    memset(s, 0, sizeof *s);
    snprintf(s->id, sizeof s->id, "subject_%d/%d", i % 3, i);
    snprintf(s->output, sizeof s->output, i % 7 ? "line one\n\"quoted\" \xc3\xa9 %d" : "cut \xe2\x82 %d", i);
    for (int c = 0; c < 4; c++)
        s->choices[c] = (struct item_choice){ c == 3 && i % 5 == 0 ? -INFINITY : -.1 * (i + 1) / (c + 1), 1, 1, 1 + c };
    s->extractions[0] = (struct item_extraction){ "strict-match", i % 2 ? "18" : NULL };
    s->extractions[1] = (struct item_extraction){ "flexible-extract", "18" };
    s->scores[0] = (struct item_score){ "acc", i % 3 == 0 };
    s->scores[1] = (struct item_score){ "acc_norm", i / 7.0 };
    s->row = (struct item_row){
        .id = s->id, .group = i % 3 ? "subject" : "", .prompt_tokens = 100 + i, .gold = "B",
        .answer = i % 4 ? "C" : NULL, .output = i % 2 ? s->output : NULL, .finish = "stop", .output_tokens = i,
        .margin = i % 6 ? i / 3.0 : NAN, .elapsed_ns = 1000 + i, .choices = s->choices, .n_choices = 4,
        .extractions = s->extractions, .n_extractions = 2, .scores = s->scores, .n_scores = 2,
    };
    snprintf(s->row.prompt_hash, sizeof s->row.prompt_hash, "%064d", i);
}

static bool put_items(struct store *s, int64_t run, int from, int to, struct error *err)
{
    struct some_item item;
    for (int i = from; i < to; i++) {
        fill_item(&item, i);
        if (!store_have_item(s, run, item.id) && !store_put_item(s, run, &item.row, err))
            return false;
    }
    return true;
}

static bool put_run(const char *path, const char *label, int from, int to, struct error *err)
{
    struct store *s;
    struct run_identity id = some_run(label, "mmlu");
    int64_t run;
    bool resumed, ok = store_open(&s, path, STORE_WRITE, err) && store_run(s, &id, &run, &resumed, err) &&
                       put_items(s, run, from, to, err) && store_run_totals(s, run, true, 2.5, 10, 20, 4096, err);
    store_close(s);
    return ok;
}

/* Everything in the database as lines; times of day and run totals may differ between two ways to the same rows. */
static char *dump(const char *path, bool totals)
{
    struct store *s;
    struct error err;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    MUST(store_open(&s, path, STORE_READ, &err));
    static const char *const queries[] = {
        "SELECT run, model, sha256, task, seed, tag, kernels, items_expected, items FROM v_runs ORDER BY run",
        "SELECT * FROM v_items ORDER BY run, item",
        "SELECT * FROM v_choices ORDER BY run, item, position",
        "SELECT * FROM v_scores ORDER BY run, item, metric",
        "SELECT items.run, items.item, rule, value FROM extractions JOIN items ON items.id = extractions.item ORDER BY 1, 2, 3",
        "SELECT * FROM measures",
        "SELECT run, finished, seconds, prompt_tokens, new_tokens, peak_bytes, started_at FROM v_runs ORDER BY run",
    };
    for (size_t q = 0; q < ARRAY_LEN(queries) - !totals; q++) {
        sqlite3_stmt *st;
        assert_int_equal(sqlite3_prepare_v2(store_db(s), queries[q], -1, &st, NULL), SQLITE_OK);
        while (sqlite3_step(st) == SQLITE_ROW) {
            for (int i = 0; i < sqlite3_column_count(st); i++) {
                if (sqlite3_column_type(st, i) == SQLITE_FLOAT)
                    fprintf(out, "%.17g|", sqlite3_column_double(st, i));
                else if (sqlite3_column_type(st, i) == SQLITE_NULL)
                    fprintf(out, "NULL|");
                else
                    fprintf(out, "%s|", (const char *)sqlite3_column_text(st, i));
            }
            fputc('\n', out);
        }
        sqlite3_finalize(st);
    }
    store_close(s);
    fclose(out);
    return text;
}

static void check_same_rows(const char *a, const char *b, bool totals, const char *what)
{
    char *x = dump(a, totals), *y = dump(b, totals);
    size_t i = 0;
    while (x[i] && x[i] == y[i])
        i++;
    size_t from = i > 60 ? i - 60 : 0;
    CHECK(x[i] == y[i], "%s: rows differ: \"%.160s\" and \"%.160s\"", what, x + from, y + from);
    CHECK(i > 100, "%s: there are rows at all", what);
    free(x);
    free(y);
}

static int64_t count(struct store *s, const char *sql)
{
    sqlite3_stmt *st;
    CHECK(sqlite3_prepare_v2(store_db(s), sql, -1, &st, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(store_db(s)));
    int64_t n = sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int64(st, 0) : -1;
    sqlite3_finalize(st);
    return n;
}

/* ---- tests ---- */

static void test_rows_come_back(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store *s;
    const char *path = in_dir("a.db");
    MUST(put_run(path, "q4", 0, 30, &err));
    MUST(store_open(&s, path, STORE_READ, &err));
    static const struct { const char *sql; int64_t want; } rows[] = {
        { "SELECT count(*) FROM v_scores WHERE model = 'q4' AND task = 'mmlu' AND metric = 'acc'", 30 },
        { "SELECT sum(score) FROM v_scores WHERE metric = 'acc'", 10 },
        { "SELECT count(*) FROM v_choices", 120 },
        { "SELECT count(*) FROM v_choices WHERE logprob = -9e999", 6 },
        { "SELECT count(*) FROM v_items WHERE answer IS NULL", 8 },
        { "SELECT count(*) FROM v_items WHERE margin IS NULL", 5 },
        { "SELECT count(*) FROM v_runs WHERE seed = '18446744073709551614' AND items = 30 AND finished = 1", 1 },
        { "SELECT file_bytes FROM v_runs", 123456789012 },
        { "SELECT count(*) FROM pragma_foreign_key_check", 0 },
        { "PRAGMA foreign_keys", 1 },
        { "PRAGMA user_version", 1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        int64_t got = count(s, rows[i].sql);
        CHECK(got == rows[i].want, "%s: %lld, expected %lld", rows[i].sql, (long long)got, (long long)rows[i].want);
    }
    CHECK(store_have_item(s, 1, "subject_0/3") && !store_have_item(s, 1, "subject_0/4"), "have_item");
    store_close(s);
}

static void test_journal_is_wal(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store *s;
    MUST(store_open(&s, in_dir("a.db"), STORE_WRITE, &err));
    sqlite3_stmt *st;
    sqlite3_prepare_v2(store_db(s), "PRAGMA journal_mode", -1, &st, NULL);
    sqlite3_step(st);
    CHECK(strcmp((const char *)sqlite3_column_text(st, 0), "wal") == 0, "%s", sqlite3_column_text(st, 0));
    sqlite3_finalize(st);
    store_close(s);
}

/* Each change of identity is another run; each change of a mere fact is the same run. */
static void test_identity(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store *s;
    MUST(store_open(&s, in_dir("a.db"), STORE_WRITE, &err));
    struct run_identity base = some_run("q4", "mmlu"), v[17];
    for (size_t i = 0; i < ARRAY_LEN(v); i++)
        v[i] = base;
    v[1].model_label = "other", v[2].model_sha256 = "bb22", v[3].tokenizer_hash = "x", v[4].template_name = "gemma4";
    v[5].task = "gsm8k", v[6].task_version = "2", v[7].metric = "acc_norm", v[8].prompt_mode = "compat", v[9].shots = 0;
    v[10].limit = 200, v[11].seed = 1, v[12].shard = "1/2", v[13].act = "q8", v[14].tag = "2026-01-01";
    v[15].threads = 1, v[16].commit = "beef";
    int64_t first = 0, run;
    bool resumed;
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        bool same = i >= 15;
        MUST(store_run(s, &v[i], &run, &resumed, &err));
        first = i ? first : run;
        CHECK(resumed == same && (run == first) == (i == 0 || same), "variant %zu: run %lld, resumed %d", i, (long long)run,
              resumed);
    }
    MUST(store_run(s, &v[16], &run, &resumed, &err));
    CHECK(count(s, "SELECT count(*) FROM v_runs WHERE git_commit = 'c0ffee,beef'") == 1, "both builds are named, once");
    store_close(s);
}

static void test_same_item_twice(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store *s;
    struct some_item item;
    MUST(put_run(in_dir("a.db"), "q4", 0, 10, &err));
    MUST(store_open(&s, in_dir("a.db"), STORE_WRITE, &err));
    fill_item(&item, 4);
    item.row.elapsed_ns++;
    MUST(store_put_item(s, 1, &item.row, &err));
    CHECK(count(s, "SELECT count(*) FROM items") == 10, "no duplicate");
    for (int what = 0; what < 5; what++) {
        static const char *const words[] = { "answer", "log-probability of a choice", "score", "prompt tokens", "margin" };
        fill_item(&item, 4);
        if (what == 0)
            item.row.answer = "D";
        item.choices[1].logprob *= 1 + 1e-15 * (what == 1);
        item.scores[0].value += what == 2;
        item.row.prompt_hash[3] += what == 3;
        item.row.margin += what == 4;
        CHECK(!store_put_item(s, 1, &item.row, &err) && strstr(err.text, words[what]) && strstr(err.text, "subject_1/4"),
              "%s changed: %s", words[what], err.text);
    }
    fill_item(&item, 11);
    item.choices[2].logprob = NAN;
    CHECK(!store_put_item(s, 1, &item.row, &err) && strstr(err.text, "choice 2"), "%s", err.text);
    fill_item(&item, 11);
    item.scores[1].value = NAN;
    CHECK(!store_put_item(s, 1, &item.row, &err) && strstr(err.text, "acc_norm"), "%s", err.text);
    CHECK(!store_put_item(s, 99, &item.row, &err), "a run that does not exist");
    CHECK(count(s, "SELECT count(*) FROM items") == 10, "nothing half-written");
    store_close(s);
}

static void expect_open_error(const char *path, enum store_mode mode, const char *words)
{
    struct error err = { 0 };
    struct store *s;
    bool ok = store_open(&s, path, mode, &err);
    CHECK(!ok && s == NULL, "%s was opened", path);
    CHECK(strstr(err.text, words) && strstr(err.text, path), "\"%s\" lacks \"%s\" or the path", err.text, words);
}

static void write_file(const char *path, const char *text)
{
    struct error err = { 0 };
    MUST(file_write(path, text, strlen(text), &err));
}

static void sql(const char *path, const char *text)
{
    sqlite3 *db;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    CHECK(sqlite3_exec(db, text, NULL, NULL, NULL) == SQLITE_OK, "%s: %s", text, sqlite3_errmsg(db));
    sqlite3_close(db);
}

static void test_bad_files(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct text before = { 0 }, after = { 0 };
    static char noise[4000];
    memset(noise, 'x', sizeof noise - 1);
    write_file(in_dir("text.db"), noise);
    expect_open_error(in_dir("text.db"), STORE_READ, "not a SQLite database");
    expect_open_error(in_dir("text.db"), STORE_WRITE, "not a SQLite database");
    expect_open_error(in_dir("none.db"), STORE_READ, "no such database");
    CHECK(!file_exists(in_dir("none.db")), "reading must not make a file");
    expect_open_error(scratch_dir, STORE_WRITE, "cannot be opened");
    MUST(put_run(in_dir("new.db"), "q4", 0, 3, &err));
    sql(in_dir("new.db"), "PRAGMA user_version = 2");
    expect_open_error(in_dir("new.db"), STORE_READ, "newer qdelta: schema version 2, this program knows up to 1");
    expect_open_error(in_dir("new.db"), STORE_WRITE, "newer qdelta");
    MUST(put_run(in_dir("cut.db"), "q4", 0, 3, &err));
    sql(in_dir("cut.db"), "PRAGMA foreign_keys = OFF; DROP VIEW v_scores; DROP TABLE scores;");
    expect_open_error(in_dir("cut.db"), STORE_READ, "scores cannot be read");
    sql(in_dir("other.db"), "CREATE TABLE diary (day TEXT)");
    MUST(file_read(in_dir("other.db"), 0, &before, &err));
    expect_open_error(in_dir("other.db"), STORE_READ, "not one of qdelta's");
    expect_open_error(in_dir("other.db"), STORE_WRITE, "not one of qdelta's");
    MUST(file_read(in_dir("other.db"), 0, &after, &err));
    CHECK(before.len == after.len && memcmp(before.data, after.data, before.len) == 0, "another's database is left alone");
    text_free(&before);
    text_free(&after);
    write_file(in_dir("empty.db"), "");
    expect_open_error(in_dir("empty.db"), STORE_READ, "empty database");
    MUST(put_run(in_dir("torn.db"), "q4", 0, 300, &err));
    assert_int_equal(truncate(in_dir("torn.db"), 20000), 0);
    struct store *s;
    CHECK(!store_open(&s, in_dir("torn.db"), STORE_READ, &err) && strstr(err.text, "damaged"), "%s", err.text);
}

/* Run body in a child (as an ordinary user where we are root, whom no permission stops) and demand exit 0. */
static void in_child(int (*body)(void), const char *what)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (geteuid() == 0 && (setgid(65534) != 0 || setuid(65534) != 0))
            _exit(99);
        _exit(body());
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%s: child ended with status %x", what, (unsigned)status);
}

static int child_fails_to_write(void)
{
    struct error err = { 0 };
    struct store *s = NULL;
    if (store_open(&s, in_dir("a.db"), STORE_WRITE, &err) || !(strstr(err.text, "read-only") || strstr(err.text, "writable")))
        return fprintf(stderr, "wrote to a read-only place: %s\n", err.text), 1;
    return 0;
}

static int child_reads(void)
{
    struct error err = { 0 };
    struct store *s = NULL;
    if (!store_open(&s, in_dir("a.db"), STORE_READ, &err) || !store_have_item(s, 1, "subject_0/3"))
        return fprintf(stderr, "cannot read: %s\n", err.text), 1;
    store_close(s);
    return 0;
}

static void expect_files(size_t want, const char *when)
{
    char **names;
    size_t n;
    struct error err;
    MUST(dir_names(scratch_dir, &names, &n, &err));
    CHECK(n == want, "%s: %zu files, expected %zu; the last is %s", when, n, want, n ? names[n - 1] : "(none)");
    names_free(names, n);
}

static void test_read_only(void **state)
{
    (void)state;
    struct error err = { 0 };
    MUST(put_run(in_dir("a.db"), "q4", 0, 5, &err));
    chmod(in_dir("a.db"), 0444);
    chmod(scratch_dir, 0555);
    in_child(child_fails_to_write, "file and folder read-only");
    in_child(child_reads, "reading from a read-only folder");
    chmod(in_dir("a.db"), 0666);
    in_child(child_fails_to_write, "folder read-only");
    chmod(scratch_dir, 0777);
    in_child(child_reads, "reading what may be written");
    expect_files(1, "after reading what may be written");
    chmod(in_dir("a.db"), 0444);
    in_child(child_reads, "reading a read-only file");
    expect_files(1, "after reading a read-only file");
    chmod(scratch_dir, 0755);
}

static bool does(struct store *s, const char *sql)
{
    return sqlite3_exec(store_db(s), sql, NULL, NULL, NULL) == SQLITE_OK;
}

static int child_dies_writing(void)
{
    struct error err = { 0 };
    put_run(in_dir("b.db"), "q4", 0, 2, &err);
    struct store *s = NULL;
    return !store_open(&s, in_dir("b.db"), STORE_WRITE, &err) || !does(s, "UPDATE runs SET seed = 77");
}

/* Reading makes nothing, takes nothing away and changes nothing: beside a log that a killed run left, and beside a writer. */
static void test_reading_leaves_no_trace(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store *s, *writer;
    struct text before[2] = { { 0 } }, after[2] = { { 0 } };
    MUST(put_run(in_dir("a.db"), "q4", 0, 5, &err));
    MUST(file_read(in_dir("a.db"), 0, &before[0], &err));
    expect_files(1, "before reading");
    MUST(store_open(&s, in_dir("a.db"), STORE_READ, &err));
    CHECK(count(s, "SELECT count(*) FROM items") == 5 && !does(s, "DELETE FROM items"), "a reader can write");
    store_close(s);
    MUST(file_read(in_dir("a.db"), 0, &after[0], &err));
    CHECK(before[0].len == after[0].len && memcmp(before[0].data, after[0].data, before[0].len) == 0, "the file changed");
    expect_files(1, "after reading");

    MUST(store_open(&writer, in_dir("a.db"), STORE_WRITE, &err));
    CHECK(does(writer, "UPDATE runs SET seed = 78"), "%s", sqlite3_errmsg(store_db(writer)));
    MUST(store_open(&s, in_dir("a.db"), STORE_READ, &err));
    CHECK(count(s, "SELECT seed FROM runs") == 78, "a writer's row is not seen");
    store_close(s);
    expect_files(3, "beside a writer");
    CHECK(does(writer, "UPDATE runs SET seed = 79"), "%s", sqlite3_errmsg(store_db(writer)));
    store_close(writer);
    expect_files(1, "after the writer");

    chmod(scratch_dir, 0777);
    in_child(child_dies_writing, "writing and dying");
    expect_files(4, "after a killed run");
    text_clear(&before[0]);
    text_clear(&after[0]);
    MUST(file_read(in_dir("b.db"), 0, &before[0], &err) && file_read(in_dir("b.db-wal"), 0, &before[1], &err));
    MUST(store_open(&s, in_dir("b.db"), STORE_READ, &err));
    CHECK(count(s, "SELECT seed FROM runs") == 77, "a killed run's row is not seen");
    store_close(s);
    MUST(file_read(in_dir("b.db"), 0, &after[0], &err) && file_read(in_dir("b.db-wal"), 0, &after[1], &err));
    for (int i = 0; i < 2; i++) {
        CHECK(before[i].len == after[i].len && memcmp(before[i].data, after[i].data, before[i].len) == 0, "file %d changed", i);
        text_free(&before[i]);
        text_free(&after[i]);
    }
    expect_files(4, "after reading what a killed run left");
}

static void test_disk_full(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store *s;
    struct run_identity id = some_run("q4", "mmlu");
    int64_t run;
    bool resumed;
    MUST(store_open(&s, in_dir("a.db"), STORE_WRITE, &err));
    MUST(store_run(s, &id, &run, &resumed, &err));
    int64_t pages = count(s, "PRAGMA page_count");
    char pragma[64];
    snprintf(pragma, sizeof pragma, "PRAGMA max_page_count = %lld", (long long)pages + 10);
    assert_int_equal(sqlite3_exec(store_db(s), pragma, NULL, NULL, NULL), SQLITE_OK);
    CHECK(!put_items(s, run, 0, 5000, &err) && strstr(err.text, "full"), "%s", err.text);
    int64_t items = count(s, "SELECT count(*) FROM items");
    CHECK(items > 0 && count(s, "SELECT count(*) FROM choices") == 4 * items &&
          count(s, "SELECT count(*) FROM scores") == 2 * items, "%lld whole items", (long long)items);
    assert_int_equal(sqlite3_exec(store_db(s), "PRAGMA max_page_count = 1000000", NULL, NULL, NULL), SQLITE_OK);
    MUST(put_items(s, run, 0, 60, &err));
    store_close(s);
}

static int child_meets_file_limit(void)
{
    struct error err = { 0 };
    struct rlimit limit = { 200000, 200000 };
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    bool ok = put_run(in_dir("b.db"), "q4", 0, 5000, &err);
    return !ok && strstr(err.text, "b.db") && strstr(err.text, "failed") ? 0 : (fprintf(stderr, "%s\n", err.text), 1);
}

static void test_write_error(void **state)
{
    (void)state;
    chmod(scratch_dir, 0777);
    in_child(child_meets_file_limit, "a write fails");
}

/* ---- several processes ---- */

static pid_t start_writer(const char *path, const char *label, int n)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        struct error err = { 0 };
        bool ok = put_run(path, label, 0, n, &err);
        if (!ok)
            fprintf(stderr, "writer of %s: %s\n", label, err.text);
        _exit(!ok);
    }
    return child;
}

static void check_exit(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "writer ended with status %x", (unsigned)status);
}

static void test_two_processes(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store *s;
    for (int round = 0; round < 4; round++) {   /* each starts with a file that is not there yet */
        const char *path = in_dir("two.db"), *one = in_dir("one.db");
        pid_t a = start_writer(path, "q4", 150), b = start_writer(path, "q8", 150), c = start_writer(path, "q4", 150);
        check_exit(a);
        check_exit(b);
        check_exit(c);
        MUST(put_run(one, "q4", 0, 150, &err));
        MUST(store_open(&s, path, STORE_READ, &err));
        CHECK(count(s, "SELECT count(*) FROM runs") == 2, "round %d: two runs", round);
        CHECK(count(s, "SELECT count(*) FROM items") == 300, "round %d: %lld items", round,
              (long long)count(s, "SELECT count(*) FROM items"));
        CHECK(count(s, "SELECT count(*) FROM scores") == 600 && count(s, "SELECT count(*) FROM choices") == 1200, "whole");
        store_close(s);
        unlink(path);
        unlink(one);
    }
}

/* Killed at random moments and said again until done: the rows are those of a run that nobody disturbed. */
static void test_sigkill(void **state)
{
    (void)state;
    enum { ITEMS = 1500 };
    struct error err = { 0 };
    const char *path = in_dir("killed.db"), *calm = in_dir("calm.db");
    int64_t whole_ns = -clock_ns();
    MUST(put_run(calm, "q4", 0, ITEMS, &err));
    whole_ns += clock_ns();
    int kills = 0, landed = 0;
    for (; kills < 14; kills++) {       /* on average 14/32 of the time that the whole run takes: room for a machine that turns faster */
        pid_t child = start_writer(path, "q4", ITEMS);
        struct timespec wait = { 0, (long)((double)(whole_ns % 1000000000) / 16 * random_unit_at(42, (uint64_t)kills)) };
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        landed += WIFSIGNALED(status);
    }
    pid_t last = start_writer(path, "q4", ITEMS);
    check_exit(last);
    CHECK(landed >= 10, "only %d of %d kills met a running child", landed, kills);
    check_same_rows(path, calm, false, "after the kills");
    struct store *s;
    MUST(store_open(&s, path, STORE_READ, &err));
    CHECK(count(s, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'") == 1, "integrity");
    store_close(s);
}

/* ---- merge, export, import ---- */

static void test_merge(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store *s;
    MUST(put_run(in_dir("a.db"), "q4", 0, 40, &err));
    MUST(put_run(in_dir("b.db"), "q4", 20, 60, &err));
    MUST(put_run(in_dir("b.db"), "q8", 0, 10, &err));
    MUST(store_open(&s, in_dir("b.db"), STORE_WRITE, &err));
    MUST(store_put_measure(s, "aa", "bb", "cc", "i16", "kld_mean", .25, &err));
    MUST(store_put_measure(s, "aa", "bb", "cc", "i16", "kld_mean", .5, &err));
    store_close(s);
    MUST(store_open(&s, in_dir("c.db"), STORE_WRITE, &err));
    for (int twice = 0; twice < 2; twice++) {
        MUST(store_merge(s, in_dir("a.db"), &err));
        MUST(store_merge(s, in_dir("b.db"), &err));
        CHECK(count(s, "SELECT count(*) FROM runs") == 2, "runs");
        CHECK(count(s, "SELECT items FROM v_runs WHERE model = 'q4'") == 60, "union of both");
        CHECK(count(s, "SELECT items FROM v_runs WHERE model = 'q8'") == 10, "q8");
        CHECK(count(s, "SELECT 100 * value FROM measures") == 50, "the newer value");
        CHECK(count(s, "SELECT new_tokens FROM v_runs WHERE model = 'q4'") == 20, "totals do not grow by merging again");
    }
    MUST(put_run(in_dir("d.db"), "q4", 0, 60, &err));
    sql(in_dir("d.db"),
        "UPDATE items SET answer = 'Z' WHERE item = 'subject_0/57'; DELETE FROM items WHERE item = 'subject_0/0'");
    CHECK(!store_merge(s, in_dir("d.db"), &err) && strstr(err.text, "subject_0/57") && strstr(err.text, "d.db"), "%s", err.text);
    CHECK(!store_merge(s, in_dir("none.db"), &err) && strstr(err.text, "none.db"), "%s", err.text);
    CHECK(count(s, "SELECT count(*) FROM items") == 70, "a failed merge leaves nothing");
    store_close(s);
}

static char *export_of(const char *path, int64_t run)
{
    struct error err = { 0 };
    struct store *s;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    MUST(store_open(&s, path, STORE_READ, &err));
    MUST(store_export(s, out, run, &err));
    store_close(s);
    fclose(out);
    return text;
}

static bool import_text(const char *path, const char *text, struct error *err)
{
    struct store *s;
    FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
    bool ok = store_open(&s, path, STORE_WRITE, err) && store_import(s, in, "rows.jsonl", err);
    store_close(s);
    fclose(in);
    return ok;
}

static void test_export_and_import(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct store *s;
    const char *path = in_dir("a.db"), *back = in_dir("b.db");
    MUST(put_run(path, "q4", 0, 60, &err));
    MUST(put_run(path, "q8", 0, 60, &err));
    MUST(store_open(&s, path, STORE_WRITE, &err));
    MUST(store_put_measure(s, "aa", "bb", "cc", "i16", "kld_mean", 1.0 / 3, &err));
    store_close(s);
    char *text = export_of(path, 0), *again, *part;
    CHECK(utf8_check(text, strlen(text)) == strlen(text), "the export is UTF-8 whatever a model wrote");
    MUST(import_text(back, text, &err));
    MUST(import_text(back, text, &err));
    check_same_rows(path, back, true, "export and import");
    again = export_of(back, 0);
    CHECK(strcmp(text, again) == 0, "exports are equal to the byte");
    part = export_of(path, 2);
    CHECK(strstr(part, "\"q8\"") && !strstr(part, "\"q4\""), "one run alone");
    MUST(import_text(in_dir("part.db"), part, &err));
    free(text);
    free(again);
    free(part);
}

static void test_bad_import(void **state)
{
    (void)state;
    static const struct { const char *text, *words; } rows[] = {
        { "{\"type\":\"qdelta\",\"version\":1}\nnot json\n", "rows.jsonl:2" },
        { "{\"type\":\"qdelta\",\"version\":9}\n", "newer qdelta: version 9" },
        { "{\"type\":\"diary\"}\n", "\"diary\", expected qdelta, run, item or measure" },
        { "{\"version\":1}\n", "type" },
        { "\n{\"type\":\"item\",\"run\":5}\n", "rows.jsonl:2: an item of run 5" },
        { "{\"type\":\"run\",\"run\":1,\"label\":\"x\"}\n", "sha256" },
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct error err = { 0 };
        CHECK(!import_text(in_dir("a.db"), rows[i].text, &err), "row %zu was taken", i);
        CHECK(strstr(err.text, rows[i].words) && strstr(err.text, "rows.jsonl"), "row %zu: %s", i, err.text);
    }
    struct error err = { 0 };
    MUST(put_run(in_dir("b.db"), "q4", 0, 3, &err));
    char *text = export_of(in_dir("b.db"), 0), *at = strstr(text, "\"logprob\":");
    memcpy(at + 10, "\"ten\"   ", 5);
    CHECK(!import_text(in_dir("c.db"), text, &err) && strstr(err.text, "rows.jsonl:3"), "%s", err.text);
    struct store *s;
    MUST(store_open(&s, in_dir("c.db"), STORE_READ, &err));
    CHECK(count(s, "SELECT count(*) FROM runs") == 0, "a failed import leaves nothing");
    store_close(s);
    free(text);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_open_scratch, remove_scratch)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(test_rows_come_back), IN_FOLDER(test_journal_is_wal), IN_FOLDER(test_identity),
        IN_FOLDER(test_same_item_twice), IN_FOLDER(test_bad_files),     IN_FOLDER(test_read_only), IN_FOLDER(test_reading_leaves_no_trace),
        IN_FOLDER(test_disk_full),       IN_FOLDER(test_write_error),   IN_FOLDER(test_two_processes),
        IN_FOLDER(test_sigkill),         IN_FOLDER(test_merge),         IN_FOLDER(test_export_and_import),
        IN_FOLDER(test_bad_import),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
