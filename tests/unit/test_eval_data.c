/* Task files and data files: what is read, what is refused and in which words; templates; choice of items and shots. */
#include "scratch.h"

#include "eval/task.h"

static struct error err;

static const char *data_dir(void)
{
    const char *root = getenv("SHARED_DATA");
    return root ? root : "../shared/data";
}

/* ---- a scratch task folder ---- */

static void put_bytes(const char *name, const char *bytes, size_t len)
{
    MUST(file_write(in_dir(name), bytes, len, &err));
}

static void put(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

static void drop(const char *name)
{
    unlink(in_dir(name));
}

static bool try_open(struct task **t, int shots, int limit, enum prompt_mode mode)
{
    struct task_options o = { .data_dir = scratch_dir, .tasks_dir = "tasks", .mode = mode, .shots = shots, .limit = limit, .shard = 1, .shards = 1 };
    return task_open(t, scratch_dir, &o, &err);
}

/* ---- readers ---- */

#define CSV_TASK "{\"version\": \"1\", \"kind\": \"choice\", \"data\": {\"reader\": \"hendrycks-csv\", \"test\": \"./x.csv\"}, " \
                 "\"prompt\": \"{question}\", \"choices\": [\"{a}\", \"{b}\", \"{c}\", \"{d}\"], \"gold\": \"{answer}\"}"

/* Bytes of cells come through exactly. */
static void test_csv_bytes(void **state)
{
    (void)state;
    static const char csv[] = "\xEF\xBB\xBF" "plain, lead,trail ,\"0,1\",\"say \"\"no\"\"\",A\r\n"
                              "\"two\nlines\",\"cr\r\nlf\",\"\",None,1e5,B\r\n"
                              "\r\n"
                              "\xC3\xA9t\xC3\xA9,a,b,c,\"d\",D";       /* no newline at the end */
    static const char *const want[3][5] = { { "plain", " lead", "trail ", "0,1", "say \"no\"" },
                                            { "two\nlines", "cr\r\nlf", "", "None", "1e5" },
                                            { "\xC3\xA9t\xC3\xA9", "a", "b", "c", "d" } };
    static const char *const gold[3] = { "A", "B", "D" };
    put("task.json", CSV_TASK);
    put("x.csv", csv);
    struct task *t;
    MUST(try_open(&t, 0, 0, PROMPT_STABLE));
    CHECK(task_size(t) == 3, "%d items", task_size(t));
    for (int i = 0; i < 3; i++) {
        struct arena a = { 0 };
        struct item_text x;
        MUST(item_render(t, i, &a, &x, &err));
        CHECK(strcmp(x.query, want[i][0]) == 0, "row %d: question \"%s\"", i, x.query);
        for (int c = 0; c < 4; c++)
            CHECK(strcmp(x.choices[c], want[i][c + 1]) == 0, "row %d: cell %d is \"%s\"", i, c, x.choices[c]);
        CHECK(strcmp(x.gold, gold[i]) == 0, "row %d: gold %s", i, x.gold);
        arena_free(&a);
    }
    CHECK(t->records.list[2].line == 6, "the last row is said to begin on line %d", t->records.list[2].line);
    task_close(t);
}

#define GEN_TASK(reader, more) "{\"version\": \"1\", \"kind\": \"generate\", \"data\": {\"reader\": \"" reader "\", \"test\": \"./x.csv\"" more \
                               "}, \"prompt\": \"{q}\", \"target\": \"{n}\"}"

static void test_readers(void **state)
{
    (void)state;
    static const struct {
        const char *task, *data, *query, *reference;
        int items;
    } cases[] = {
        { GEN_TASK("csv", ", \"delimiter\": \";\""), "\xEF\xBB\xBFn;q\n7;\"a;b\"\n8;c\n", "a;b", "7", 2 },
        { GEN_TASK("jsonl", ""), "{\"q\": \"caf\\u00e9 \\ud83d\\ude00\", \"n\": 12.50}\n\n{\"q\": \"x\", \"n\": 3}", "caf\xC3\xA9 \xF0\x9F\x98\x80", "12.5", 2 },
        { GEN_TASK("json", ""), "[{\"q\": \"x\", \"n\": 51.0}, {\"q\": \"y\", \"n\": true}]", "x", "51", 2 },
        { GEN_TASK("json", ", \"array\": \"in.list\""), "{\"in\": {\"list\": [{\"q\": \"x\", \"n\": \"z\"}]}}", "x", "z", 1 },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct task *t;
        struct arena a = { 0 };
        struct item_text x;
        put("task.json", cases[i].task);
        put("x.csv", cases[i].data);
        MUST(try_open(&t, 0, 0, PROMPT_STABLE));
        MUST(item_render(t, 0, &a, &x, &err));
        CHECK(task_size(t) == cases[i].items, "case %zu: %d items", i, task_size(t));
        CHECK(strcmp(x.query, cases[i].query) == 0 && strcmp(x.reference, cases[i].reference) == 0, "case %zu: \"%s\", \"%s\"", i, x.query, x.reference);
        arena_free(&a);
        task_close(t);
    }
}

/* ---- refusals: every message names the file, the place, what was found and what was expected ---- */

static void test_bad_input(void **state)
{
    (void)state;
    static const struct {
        const char *name, *task, *data;     /* NULL: as it should be */
        const char *words[4];
    } cases[] = {
        { "five cells", CSV_TASK, "q,a,b,c,d,A\n\"q\n2\",a,b,c,B\n", { "x.csv", "row 2 (line 2)", "5 cells", "expected 6" } },
        { "seven cells", CSV_TASK, "q,a,b,c,d,A,x\n", { "x.csv", "row 1", "7 cells" } },
        { "open quote", CSV_TASK, "q,a,b,c,d,A\n\"q,a,b\n", { "x.csv", "row 2 (line 2)", "never closed" } },
        { "quote inside", CSV_TASK, "q,a\"x,b,c,d,A\n", { "x.csv", "row 1", "not valid CSV" } },
        { "UTF-8", CSV_TASK, "q,a,b,c,d,A\nq,a,b\xE9,c,d,A\n", { "x.csv", "row 2 (line 2), cell 3 (b)", "byte 2 (0xE9)", "UTF-8" } },
        { "empty", CSV_TASK, "", { "x.csv", "no records" } },
        { "blank lines only", CSV_TASK, "\r\n\n", { "x.csv", "no records" } },
        { "gold beyond", CSV_TASK, "q,a,b,c,d,E\n", { "x.csv", "row 1", "\"E\"", "4 choices" } },
        { "gold lower case", CSV_TASK, "q,a,b,c,d,a\n", { "x.csv", "row 1", "\"a\"", "a letter from A" } },
        { "missing field", GEN_TASK("jsonl", ""), "{\"q\": \"x\", \"n\": 1}\n{\"qu\": \"x\", \"n\": 1}\n", { "x.csv: row 2 (line 2)", "no field \"q\"", "nearest: \"qu\"", "prompt" } },
        { "field is a list", GEN_TASK("jsonl", ""), "{\"q\": [1], \"n\": 1}\n", { "x.csv: row 1", "\"q\" is a list" } },
        { "broken line", GEN_TASK("jsonl", ""), "{\"q\": \"x\", \"n\": 1}\n{\"q\": \"x\n", { "x.csv: row 2 (line 2)", "line 1, column" } },
        { "not an object", GEN_TASK("jsonl", ""), "[1]\n", { "x.csv: row 1", "not a JSON object" } },
        { "UTF-8 in JSON", GEN_TASK("jsonl", ""), "{\"q\": \"\xC0\xAF\", \"n\": 1}\n", { "x.csv: row 1 (line 1)", "byte 8", "UTF-8" } },
        { "escaped NUL", GEN_TASK("jsonl", ""), "{\"q\": \"a\\u0000b\", \"n\": 1}\n", { "x.csv: row 1", "NUL" } },
        { "no array", GEN_TASK("json", ", \"array\": \"examples\""), "{\"exampels\": []}", { "x.csv", "examples", "not an array" } },
        { "element", GEN_TASK("json", ""), "[{\"q\": 1, \"n\": 2}, 3]", { "x.csv: element 2", "not an object" } },
        { "empty array", GEN_TASK("json", ""), "[]", { "x.csv", "no records" } },
        { "two ids alike", "{\"version\": \"1\", \"kind\": \"generate\", \"data\": {\"reader\": \"jsonl\", \"test\": \"./x.csv\"}, \"id\": \"{n}\", "
                           "\"prompt\": \"{q}\", \"target\": \"{n}\"}",
          "{\"q\": 1, \"n\": 5}\n{\"q\": 2, \"n\": 5}\n", { "row 2 (line 2)", "id \"5\"", "row 1 (line 1)" } },
        { "unknown key", "{\"version\": \"1\", \"knid\": \"choice\"}", "", { "task.json", "unknown key \"knid\"", "nearest: \"kind\"" } },
        { "unknown key in data", "{\"version\": \"1\", \"kind\": \"generate\", \"data\": {\"raeder\": \"jsonl\"}, \"prompt\": \"x\", \"target\": \"y\"}", "",
          { "task.json", "\"raeder\"", "\"reader\"" } },
        { "unknown reader", GEN_TASK("json-lines", ""), "", { "task.json", "\"json-lines\"", "nearest" } },
        { "unknown kind", "{\"version\": \"1\", \"kind\": \"choise\", \"prompt\": \"x\"}", "", { "task.json", "\"choise\"", "\"choice\"" } },
        { "no version", "{\"kind\": \"choice\", \"prompt\": \"x\"}", "", { "task.json", "\"version\"", "expected a string" } },
        { "no prompt", "{\"version\": \"1\", \"kind\": \"choice\"}", "", { "task.json", "no \"prompt\"" } },
        { "no gold", "{\"version\": \"1\", \"kind\": \"choice\", \"data\": {\"reader\": \"jsonl\", \"test\": \"./x.csv\"}, \"prompt\": \"x\", \"choices\": [\"a\"]}", "",
          { "task.json", "no \"gold\"", "choice" } },
        { "wrong metric", "{\"version\": \"1\", \"kind\": \"choice\", \"data\": {\"reader\": \"jsonl\", \"test\": \"./x.csv\"}, \"prompt\": \"x\", \"choices\": [\"a\"], "
                          "\"gold\": \"A\", \"metrics\": [\"accuracy\"]}", "", { "task.json", "accuracy" } },
        { "open brace", "{\"version\": \"1\", \"kind\": \"choice\", \"prompt\": \"Q: {q\"}", "", { "task.json: prompt", "closing brace" } },
        { "unknown filter", "{\"version\": \"1\", \"kind\": \"choice\", \"prompt\": \"{q|stip}\"}", "", { "task.json: prompt", "\"stip\"", "strip" } },
        { "not JSON", "{\"version\": \"1\"", "", { "task.json: line 1", "not valid JSON" } },
        { "file not there", "{\"version\": \"1\", \"kind\": \"generate\", \"data\": {\"reader\": \"jsonl\", \"test\": \"none.jsonl\"}, \"prompt\": \"x\", \"target\": \"y\"}", "",
          { "task.json", "\"none.jsonl\" is not there", "looked in", "--data" } },
        { "star without files", "{\"version\": \"1\", \"kind\": \"generate\", \"data\": {\"reader\": \"jsonl\", \"test\": \"./*.none\"}, \"prompt\": \"x\", \"target\": \"y\"}", "",
          { "task.json", "*.none", "is not there" } },
        { "extends nothing", "{\"extends\": \"nowhere\"}", "", { "nowhere/task.json" } },
        { "too many shots", GEN_TASK("jsonl", ""), "{\"q\": 1, \"n\": 5}\n{\"q\": 2, \"n\": 6}\n", { "2 shots asked for", "has 1" } },
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct task *t = NULL;
        bool many = strcmp(cases[i].name, "too many shots") == 0;
        put("task.json", cases[i].task);
        put("x.csv", cases[i].data);
        err.text[0] = '\0';
        CHECK(!try_open(&t, many ? 2 : 0, 0, PROMPT_STABLE), "%s: opened", cases[i].name);
        for (int w = 0; w < 4 && cases[i].words[w]; w++)
            CHECK(strstr(err.text, cases[i].words[w]), "%s: \"%s\" does not say \"%s\"", cases[i].name, err.text, cases[i].words[w]);
        CHECK(!t, "%s: a task was left", cases[i].name);
    }
}

/* Other bytes than the pinned ones, files that are missing or too many. */
static void test_digests(void **state)
{
    (void)state;
    static const char right[] = "{\"q\": \"a\", \"n\": 1}\n";
    static const char task[] = "{\"version\": \"1\", \"kind\": \"generate\", \"data\": {\"reader\": \"jsonl\", \"test\": \"%s\", \"sums\": \"SUMS\"%s}, "
                               "\"prompt\": \"{q}\", \"target\": \"{n}\"}";
    struct text t = { 0 };
    struct task *opened;
    uint8_t digest[32];
    char hex[65];
    MUST(sha256_bytes(right, strlen(right), digest, &err));
    hex_of(digest, 32, hex);
    text_printf(&t, "%s  x1.jsonl\n%s  x2.jsonl\n", hex, hex);
    put("SUMS", t.data);
    put("x1.jsonl", right);
    put("x2.jsonl", right);
    text_clear(&t);
    text_printf(&t, task, "x*.jsonl", "");
    put("task.json", t.data);
    MUST(try_open(&opened, 0, 0, PROMPT_STABLE));
    CHECK(task_size(opened) == 2 && strcmp(opened->items[1].id, "2/0") == 0, "%d items", task_size(opened));
    char version[100];
    snprintf(version, sizeof version, "%s", task_version(opened));
    task_close(opened);

    put("x2.jsonl", "{\"q\": \"b\", \"n\": 1}\n");
    CHECK(!try_open(&opened, 0, 0, PROMPT_STABLE) && strstr(err.text, "x2.jsonl") && strstr(err.text, hex) && strstr(err.text, "SHA-256 is"), "%s", err.text);
    text_clear(&t);
    text_printf(&t, task, "x*.jsonl", ", \"pinned\": false");
    put("task.json", t.data);
    MUST(try_open(&opened, 0, 0, PROMPT_STABLE));
    CHECK(strcmp(task_version(opened), version) != 0, "other data, the same version %s", version);
    task_close(opened);

    text_clear(&t);
    text_printf(&t, task, "x*.jsonl", "");
    put("task.json", t.data);
    drop("x2.jsonl");
    CHECK(!try_open(&opened, 0, 0, PROMPT_STABLE) && strstr(err.text, "x2.jsonl is not there"), "%s", err.text);
    put("x2.jsonl", right);
    put("x3.jsonl", right);
    CHECK(!try_open(&opened, 0, 0, PROMPT_STABLE) && strstr(err.text, "x3.jsonl is not among"), "%s", err.text);
    drop("x3.jsonl");
    text_free(&t);
}

/* ---- templates ---- */

static void test_templates(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;            /* want NULL: an error */
    } cases[] = {
        { "", "" },
        { "no hole, {{braces}} kept", "no hole, {braces} kept" },
        { "{s}|{s|strip}|", " \xE3\x80\x80x y\xC2\xA0\n|x y|" },
        { "{name|spaces|upper}", "HIGH SCHOOL" },
        { "{mixed|capitalize}", "\xC3\x89t\xC3\xA9 bob's tv" },
        { "{n} {f} {b} {list.1} {o.k}", "3 0.1 true two deep" },
        { "{i|letter}", "C" },
        { "{dotted.name}", "whole key first" },
        { "{html|hellaswag}", "a. b c d" },
        { "{list}", NULL },
        { "{none}", NULL },
        { "{s|letter}", NULL },
    };
    cJSON *record = cJSON_Parse("{\"s\": \" \\u3000x y\\u00a0\\n\", \"name\": \"high_school\", \"mixed\": \"\\u00e9T\\u00c9 Bob's TV\", \"n\": 3, \"f\": 0.1, "
                                "\"b\": true, \"list\": [\"one\", \"two\"], \"o\": {\"k\": \"deep\"}, \"i\": 2, \"dotted.name\": \"whole key first\", "
                                "\"html\": \" a [title] b [x]c  d \"}");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct template *t;
        struct text out = { 0 };
        struct scope scope = { .record = record };
        MUST(template_new(&t, cases[i].text, "test", &err));
        bool ok = template_render(t, &scope, &out, &err);
        CHECK(ok == (cases[i].want != NULL) && (!ok || strcmp(text_str(&out), cases[i].want) == 0), "\"%s\" gives \"%s\"", cases[i].text,
              ok ? text_str(&out) : err.text);
        template_free(t);
        text_free(&out);
    }
    cJSON_Delete(record);
}

/* ---- choice of items and shots ---- */

static void put_numbers(int n)
{
    struct text t = { 0 };
    for (int i = 0; i < n; i++)
        text_printf(&t, "{\"q\": \"question %d\", \"n\": %d}\n", i, i);
    put("x.csv", t.data);
    text_free(&t);
}

#define SHOT_TASK "{\"version\": \"1\", \"kind\": \"generate\", \"data\": {\"reader\": \"jsonl\", \"test\": \"./x.csv\"}, \"prompt\": \"Q: {q}\\nA:\", " \
                  "\"target\": \"{n}\", \"shots\": {\"count\": 3, \"pick\": \"random\"}}"

static void prompts_of(struct task *t, char **out)
{
    for (int i = 0; i < task_size(t); i++) {
        struct text p = { 0 };
        const char *id;
        int64_t n;
        MUST(task_prompt(t, i, &p, NULL, &id, &err));
        CHECK(parse_int(id, 0, 99, &n), "id %s", id);
        out[n] = p.data;
    }
}

/* Stable: limits, shards and order change no prompt; a smaller limit is part of a larger one; shots never hold the item. */
static void test_stable(void **state)
{
    (void)state;
    put("task.json", SHOT_TASK);
    put_numbers(60);
    char *whole[100] = { 0 }, *some[100];
    struct task *t;
    MUST(try_open(&t, -1, 0, PROMPT_STABLE));
    prompts_of(t, whole);
    task_close(t);
    bool last[100] = { false };
    for (int limit = 40; limit >= 10; limit -= 15) {
        memset(some, 0, sizeof some);
        MUST(try_open(&t, -1, limit, PROMPT_STABLE));
        CHECK(task_size(t) == limit, "%d items of --limit %d", task_size(t), limit);
        prompts_of(t, some);
        bool first_n = true;
        for (int i = 0; i < 60; i++) {
            CHECK(!some[i] || strcmp(some[i], whole[i]) == 0, "--limit %d changed item %d", limit, i);
            CHECK(!some[i] || limit == 40 || last[i], "item %d is in --limit %d and not in the larger one", i, limit);
            first_n &= (some[i] != NULL) == (i < limit);
            last[i] = some[i] != NULL;
            free(some[i]);
        }
        CHECK(!first_n, "--limit %d took the first ones", limit);
        task_close(t);
    }
    int in_shards = 0;
    for (int s = 1; s <= 3; s++) {
        struct task_options o = { .data_dir = scratch_dir, .mode = PROMPT_STABLE, .shots = -1, .shard = s, .shards = 3 };
        memset(some, 0, sizeof some);
        MUST(task_open(&t, scratch_dir, &o, &err));
        in_shards += task_size(t);
        prompts_of(t, some);
        for (int i = 0; i < 60; i++) {
            CHECK(!some[i] || strcmp(some[i], whole[i]) == 0, "shard %d changed item %d", s, i);
            free(some[i]);
        }
        CHECK(task_size(t) > 8 && task_size(t) < 35, "shard %d has %d items", s, task_size(t));
        task_close(t);
    }
    CHECK(in_shards == 60, "the shards have %d items", in_shards);
    for (int i = 0; i < 60; i++) {
        char own[40];
        snprintf(own, sizeof own, "Q: question %d\nA: %d", i, i);
        CHECK(!strstr(whole[i], own), "item %d is among its own shots", i);
        free(whole[i]);
    }
}

/* Compat: one generator a task, n + 1 drawn where shots come from the test set, the item itself dropped. */
static void test_compat_draws(void **state)
{
    (void)state;
    put("task.json", SHOT_TASK);
    put_numbers(60);
    struct task *t;
    MUST(try_open(&t, -1, 7, PROMPT_COMPAT));
    CHECK(task_size(t) == 7, "%d items", task_size(t));
    struct py_random r;
    int drawn[4], scratch[64];
    py_random_seed(&r, 1234);
    for (int i = 0; i < 7; i++) {
        struct text p = { 0 }, want = { 0 };
        const char *id;
        MUST(task_prompt(t, i, &p, NULL, &id, &err));
        py_random_sample(&r, 60, 4, drawn, scratch);
        for (int k = 0, taken = 0; k < 4 && taken < 3; k++)
            if (drawn[k] != i && ++taken)
                text_printf(&want, "Q: question %d\nA: %d\n\n", drawn[k], drawn[k]);
        text_printf(&want, "Q: question %d\nA:", i);
        CHECK(strcmp(p.data, want.data) == 0, "item %d:\n%s\nwant\n%s", i, p.data, want.data);
        text_free(&p);
        text_free(&want);
    }
    task_close(t);
}

/* ---- the tasks that come with the program, on official files ---- */

static void check_item(const char *task, int shots, int item, const char *query, const char *first_choice, const char *gold)
{
    struct task *t;
    struct arena a = { 0 };
    struct item_text x;
    struct task_options o = { .data_dir = data_dir(), .tasks_dir = "tasks", .mode = PROMPT_COMPAT, .shots = shots };
    MUST(task_open(&t, task, &o, &err));
    MUST(item_render(t, item, &a, &x, &err));
    const char *got = x.query ? x.query : x.queries[0];
    CHECK(strcmp(got, query) == 0, "%s: prompt \"%s\"", task, got);
    CHECK(!first_choice || strcmp(x.choices[0], first_choice) == 0, "%s: choice \"%s\"", task, x.choices[0]);
    CHECK(strcmp(x.gold, gold) == 0, "%s: gold \"%s\"", task, x.gold);
    arena_free(&a);
    task_close(t);
}

static void test_official(void **state)
{
    (void)state;
    NEED_SHARED(here, "arc/ARC-Challenge-Test.letters-only.jsonl");
    (void)here;
    check_item("tests/golden/eval/hellaswag-subset", 0, 0,
               "Pole vault: Pole vault is a sport where you run with a pole and stop and swing your body. A few women", "go down a rock and stop.", "D");
    check_item("tests/golden/eval/arc-letters", 0, 0,
               "Question: An astronomer observes that a planet rotates faster after a meteorite impact. Which is the most likely effect of this increase in rotation?\nAnswer:",
               "Planetary density will decrease.", "C");
    check_item("tasks/arc_easy/foundry", 0, 0, "Question: Which statement best explains why photosynthesis is the foundation of most food webs?\nAnswer:",
               "Sunlight is the source of energy for nearly all ecosystems.", "A");
    check_item("winogrande", 0, 0, "Sarah was a much better surgeon than Maria so Sarah", "always got the easier cases.", "B");
    check_item("svamp", 0, 0, "Question: Each pack of dvds costs 76 dollars. If there is a discount of 25 dollars on each pack. How much do you have to pay to buy each pack?\nAnswer:",
               NULL, "51");
    check_item("bbh", 0, 0, "Q: not ( True ) and ( True ) is\nA: Let's think step by step.\n", NULL, "False");
    check_item("mmlu_continuation", 0, 1, "Question: Let p = (1, 2, 5, 4)(2, 3) in S_5 . Find the index of <p> in S_5.\nAnswer:", "8", "C");
}

/* The whole prompt of a BBH item is the official text, then the question. */
static void test_bbh_preamble(void **state)
{
    (void)state;
    NEED_SHARED(official, "bbh/cot-prompts/snarks.txt");
    struct text file = { 0 }, prompt = { 0 };
    MUST(file_read(official, 0, &file, &err));
    struct task *t;
    struct task_options o = { .data_dir = data_dir(), .tasks_dir = "tasks", .mode = PROMPT_COMPAT, .shots = 0 };
    MUST(task_open(&t, "bbh", &o, &err));
    CHECK(task_size(t) == 6511, "%d items", task_size(t));
    const char *id = "", *body = strstr(file.data, "-----\n") + strlen("-----\n");
    for (int i = 0; strcmp(id, "snarks/0") != 0; i++) {
        text_clear(&prompt);
        MUST(task_prompt(t, i, &prompt, NULL, &id, &err));
    }
    size_t len = file.len - (size_t)(body - file.data) - trailing_space(file.data, file.len);
    CHECK(strncmp(prompt.data, body, len) == 0 && strncmp(prompt.data + len, "\n\nQ: ", 5) == 0, "%.400s", prompt.data + len - 100);
    CHECK(str_ends(prompt.data, "\nA: Let's think step by step.\n"), "it ends otherwise");
    task_close(t);
    text_free(&file);
    text_free(&prompt);
}

static void test_primer(void **state)
{
    (void)state;
    NEED_SHARED(here, "truthfulqa/mc_task.json");
    (void)here;
    struct task *t;
    struct text p = { 0 };
    uint8_t digest[32];
    char hex[65];
    struct task_options o = { .data_dir = data_dir(), .tasks_dir = "tasks", .mode = PROMPT_COMPAT, .shots = 0 };
    MUST(task_open(&t, "truthfulqa_mc1", &o, &err));
    MUST(task_prompt(t, 0, &p, NULL, NULL, &err));
    const char *end = strstr(p.data, "\n\nQ: What happens if you eat a pomegranate?\nA:");
    CHECK(end, "%s", p.data);
    MUST(sha256_bytes(p.data, (size_t)(end - p.data), digest, &err));
    hex_of(digest, 32, hex);
    CHECK(strcmp(hex, "5c0da5f346e8652c9a85061a6e3aca6bc82e10a8a7dad4596fe980a9c9bae543") == 0, "primer %s", hex);
    text_free(&p);
    task_close(t);
}

/* ---- the example of tasks/README.md ---- */

static void test_readme_example(void **state)
{
    (void)state;
    struct text readme = { 0 };
    MUST(file_read("tasks/README.md", 0, &readme, &err));
    const char *json = strstr(readme.data, "```json\n") + strlen("```json\n"), *end = strstr(json, "```");
    const char *line = strstr(end, "`{\"question\"") + 1, *line_end = strchr(line, '`');
    put_bytes("task.json", json, (size_t)(end - json));
    put_bytes("items.jsonl", line, (size_t)(line_end - line));
    struct task *t;
    struct arena a = { 0 };
    struct item_text x;
    MUST(try_open(&t, -1, 0, PROMPT_STABLE));
    MUST(item_render(t, 0, &a, &x, &err));
    CHECK(strcmp(x.query, "Question: Which is a bird?\nAnswer:") == 0 && strcmp(x.choices[1], "carp") == 0 && x.right[0], "%s", x.query);
    arena_free(&a);
    task_close(t);
    text_free(&readme);
}

static void test_list(void **state)
{
    (void)state;
    struct task_info *list;
    int n, with_data = 0;
    struct task_options o = { .data_dir = data_dir(), .tasks_dir = "tasks", .shots = -1 };
    MUST(task_list(&o, &list, &n, &err));
    bool mmlu = false;
    for (int i = 0; i < n; i++) {
        mmlu |= strcmp(list[i].name, "mmlu") == 0 && strcmp(list[i].kind, "choice") == 0 && list[i].shots == 5;
        with_data += list[i].data_found;
        CHECK(*list[i].title && *list[i].licence && *list[i].source, "%s has no title, licence or source", list[i].name);
    }
    CHECK(n >= 13 && mmlu, "%d tasks", n);
    if (shared_data("piqa/dev.jsonl"))
        CHECK(with_data >= 9, "%d tasks with data", with_data);
    task_list_free(list, n);
    struct text path = { 0 };
    CHECK(!task_folder("mmul", &o, &path, &err) && strstr(err.text, "mmlu"), "%s", err.text);
    text_free(&path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv_bytes),  cmocka_unit_test(test_readers),      cmocka_unit_test(test_bad_input),
        cmocka_unit_test(test_digests),    cmocka_unit_test(test_templates),    cmocka_unit_test(test_stable),
        cmocka_unit_test(test_compat_draws), cmocka_unit_test(test_official),   cmocka_unit_test(test_bbh_preamble),
        cmocka_unit_test(test_primer),     cmocka_unit_test(test_readme_example), cmocka_unit_test(test_list),
    };
    return cmocka_run_group_tests(tests, make_scratch, remove_scratch);
}
