/* A run's memory does not follow the number of its items. */
#include "scratch.h"

#include <sys/resource.h>
#include <sys/wait.h>

/* Both runs have more items than are encoded at once (two portions of 512), so that the smaller one has reached what it needs.
 * The records of the data file are kept: some 1.5 KB for each item, a third of what is allowed. */
enum { FEW = 1100, MANY = 4400, ROOM_KB = 10 * 1024 };

static void add_words(struct text *t, uint64_t seed, int n)
{
    static const char *const words[] = { "red", "sun", "cat", "dog", "sea", "hat", "ice", "oak" };
    for (int w = 0; w < n; w++)
        text_printf(t, "%s ", words[random_at(seed, (uint64_t)w) % ARRAY_LEN(words)]);
}

/* Items of one length: text that all share, so that it is computed once but kept by every item, and a few words of their own. */
static void write_task(int items)
{
    struct text task = { 0 }, lines = { 0 };
    struct error err;
    text_puts(&task, "{ \"version\": \"1\", \"kind\": \"choice\", \"data\": { \"reader\": \"jsonl\", \"test\": \"./items.jsonl\" }, \"description\": \"");
    add_words(&task, 1, 200);
    text_puts(&task, "\","
                     "\"prompt\": \"{question}=\", \"choices\": { \"of\": \"options\" }, \"gold\": \"{answer}\", \"gold_as\": \"index\","
                     "\"metrics\": [\"acc\"] }");
    for (int i = 0; i < items; i++) {
        text_puts(&lines, "{\"question\": \"");
        add_words(&lines, (uint64_t)i, 3);
        text_puts(&lines, "\", \"options\": [\"sun\", \"cat\"], \"answer\": 0}\n");
    }
    MUST(file_write(in_dir("task.json"), task.data, task.len, &err));
    MUST(file_write(in_dir("items.jsonl"), lines.data, lines.len, &err));
    text_free(&task);
    text_free(&lines);
}

/* Largest resident memory of this or any earlier call. */
static long run_kb(const char *database)
{
    const char *program = getenv("QDELTA");
    int status;
    struct rusage u;
    pid_t child = fork();
    if (child == 0) {
        /* What is freed shall be given back at once; the sanitizer keeps it to catch its use. */
        setenv("MALLOC_TRIM_THRESHOLD_", "131072", 1);
        setenv("ASAN_OPTIONS", "quarantine_size_mb=1", 1);
        execl(program ? program : "build/qdelta", "qdelta", "run", "-m", "models/demo/bf16", "-t", in_dir(""), "--db", database, "-j", "2",
              "--quiet", (char *)NULL);
        _exit(127);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0, "the run failed");
    CHECK(getrusage(RUSAGE_CHILDREN, &u) == 0, "no resource usage");
    return u.ru_maxrss;
}

static void test_flat(void **state)
{
    (void)state;
    write_task(FEW);
    long few = run_kb(in_dir("few.db"));
    write_task(MANY);
    long many = run_kb(in_dir("many.db"));
    print_message("note: %ld KB with %d items, %ld KB with %d\n", few, FEW, many, MANY);
    CHECK(many - few < ROOM_KB, "%ld KB with %d items, %ld KB with %d", few, FEW, many, MANY);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_flat, make_scratch, remove_scratch) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
