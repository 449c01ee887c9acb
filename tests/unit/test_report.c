/* test_report.c - pairs, refusals, verdicts and tables out of made-up runs whose truth is known. */
#include "report_rows.h"

#include "report/report.h"

static void sql(const char *text)
{
    CHECK(sqlite3_exec(store_db(store), text, NULL, NULL, NULL) == SQLITE_OK, "%s", sqlite3_errmsg(store_db(store)));
}

static const struct comparison *find(const struct comparison *c, int n, const char *task, const char *model, bool exploratory)
{
    for (int i = 0; i < n; i++)
        if (strcmp(c[i].task, task) == 0 && strcmp(c[i].model, model) == 0 && c[i].exploratory == exploratory)
            return &c[i];
    CHECK(false, "no row for %s %s", task, model);
    return NULL;
}

static bool compare(const char *base, const char *model, const char *task, struct comparison **c, int *n, struct error *err)
{
    const char *models[] = { model };
    struct report_options o = { .base = base, .models = models, .n_models = model ? 1 : 0, .task = task };
    return report_compare(store, &o, c, n, err);
}

static struct comparison *compared(const char *base, const char *model, const char *task, int *n)
{
    struct error err = { 0 };
    struct comparison *c;
    MUST(compare(base, model, task, &c, n, &err));
    return c;
}

/* The counts against a second way of counting, straight from the generator. */
static void test_counts(void **state)
{
    (void)state;
    int n;
    struct comparison *c = compared("bf16", NULL, NULL, &n);
    CHECK(n == 12, "%d rows, expected 3 models x 2 tasks x 2 metrics", n);
    for (size_t t = 0; t < ARRAY_LEN(made_tasks); t++)
        for (size_t m = 1; m < ARRAY_LEN(made_models); m++) {
            const struct comparison *x = find(c, n, made_tasks[t].name, made_models[m].label, false);
            int cell[2][2] = { { 0 } }, tie = 0, sure = 0, other = 0;
            for (int i = 0; i < made_tasks[t].n; i++) {
                double b = made_margin(&made_tasks[t], &made_models[0], i), q = made_margin(&made_tasks[t], &made_models[m], i);
                struct made_item bi, qi;
                made_fill(&bi, &made_tasks[t], &made_models[0], i);
                made_fill(&qi, &made_tasks[t], &made_models[m], i);
                cell[b > 0][q > 0]++;
                tie += (b > 0) != (q > 0) && fabs(b) < .1;
                sure += (b > 0) != (q > 0) && fabs(b) > 1;
                other +=
                    b <= 0 && q <= 0 && (!bi.row.answer != !qi.row.answer || (bi.row.answer && strcmp(bi.answer, qi.answer) != 0));
            }
            CHECK(x->n == made_tasks[t].n && x->both == cell[1][1] && x->lost == cell[1][0] && x->won == cell[0][1] &&
                  x->neither == cell[0][0], "%s %s: %d %d %d %d", x->task, x->model, x->both, x->lost, x->won, x->neither);
            CHECK(x->lost_tie + x->won_tie == tie && x->lost_sure + x->won_sure == sure, "%s %s: flips by margin", x->task,
                  x->model);
            CHECK(x->other == other, "%s %s: %d changed answers, expected %d", x->task, x->model, x->other, other);
            CHECK_NEAR(x->delta, x->score - x->base_score, 1e-15, "%s %s", x->task, x->model);
            CHECK_NEAR(x->p, mcnemar_midp(x->lost, x->won), 0, "%s %s", x->task, x->model);
            CHECK_NEAR(x->delta_lo, tango(x->won, x->lost, x->n, .95).lo, 0, "%s %s", x->task, x->model);
            CHECK(x->p_holm >= x->p, "%s %s", x->task, x->model);
        }
    report_compare_free(c, n);
}

static void test_verdicts(void **state)
{
    (void)state;
    struct comparison *c;
    int n;
    static const struct { const char *task, *model; enum verdict verdict; const char *words; } rows[] = {
        { "gsm8k", "q8_0", VERDICT_EQUIVALENT, "equivalent within 1 point" },
        { "mmlu", "q8_0", VERDICT_EQUIVALENT, "equivalent within 1 point" },
        { "gsm8k", "rtn-q4_0", VERDICT_WORSE, "worse by " },
        { "mmlu", "rtn-q4_0", VERDICT_WORSE, "Holm p " },
        { "gsm8k", "qat-q4_0", VERDICT_CANNOT_TELL, "smallest difference that could have been seen: " },
    };
    c = compared("bf16", NULL, NULL, &n);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct comparison *x = find(c, n, rows[i].task, rows[i].model, false);
        CHECK(x->verdict == rows[i].verdict && strstr(x->words, rows[i].words), "%s %s: %s", x->task, x->model, x->words);
    }
    report_compare_free(c, n);
    c = compared("rtn-q4_0", "bf16", "mmlu", &n);
    CHECK(c->verdict == VERDICT_BETTER && strstr(c->words, "better by "), "the other way round: %s", c->words);
    report_compare_free(c, n);
}

/* Guessers: scores differ, verdicts must not. */
static void test_chance_has_no_winner(void **state)
{
    (void)state;
    static const struct made_model guess_a = { "tiny-f32", "cc01", "f32", "", 32, 0, -INFINITY, "i16" },
                                   guess_b = { "tiny-q4", "cc02", "q4_0", "rtn", 4.5, 0, -INFINITY, "i16" };
    struct comparison *c;
    int n;
    for (size_t t = 0; t < ARRAY_LEN(made_tasks); t++) {
        made_run(store, &made_tasks[t], &guess_a, NULL, 200);
        made_run(store, &made_tasks[t], &guess_b, NULL, 200);
    }
    c = compared("tiny-f32", "tiny-q4", NULL, &n);
    for (int i = 0; i < n; i++) {
        if (c[i].exploratory)
            continue;
        CHECK(c[i].verdict == VERDICT_CANNOT_TELL && c[i].at_chance && c[i].base_at_chance, "%s: %s", c[i].task, c[i].words);
        CHECK(strstr(c[i].words, "cannot tell") && strstr(c[i].words, "says nothing about these two") &&
              strstr(c[i].words, "smallest difference that could have been seen"), "%s: %s", c[i].task, c[i].words);
    }
    CHECK(strstr(find(c, n, "mmlu", "tiny-q4", false)->words, "chance level (25.0 %)"), "%s", c->words);
    report_compare_free(c, n);
}

static void expect_refusal(const char *base, const char *model, const char *task, const char *words)
{
    struct error err = { 0 };
    struct comparison *c = NULL;
    int n = 0;
    CHECK(!compare(base, model, task, &c, &n, &err), "%s and %s on %s were compared", base, model, task ? task : "all");
    CHECK(strstr(err.text, words), "\"%s\" lacks \"%s\"", err.text, words);
    CHECK(c == NULL && n == 0, "nothing is handed out");
}

/* The same two models, one thing changed: refused by the name of that thing. */
static void test_refusals(void **state)
{
    (void)state;
    const struct made_task *t = &made_tasks[1];
    static const struct { const char *label, *what, *words; } rows[] = {
        { "m-version", "task_version", "task mmlu: the task version differs: m-version has 2" },
        { "m-act", "act", "the activation mode (--act) differs: m-act has q8" },
        { "m-mode", "prompt_mode", "the prompt mode (--mode) differs: m-mode has compat" },
        { "m-template", "template_name", "the chat template differs: m-template has gemma4" },
        { "m-tokenizer", "tokenizer_hash", "the tokenizer differs" },
        { "m-shots", "shots", "the number of shots differs: m-shots has 0 " },
        { "m-metric", "metric", "the primary metric differs" },
    };
    struct made_model base = made_models[0];
    base.label = "base", base.sha256 = "ba5e01";
    made_run(store, t, &base, NULL, 50);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct made_model m = made_models[2];
        m.label = rows[i].label;
        struct run_identity id = made_identity(t, &m, 50);
        if (i == 0) id.task_version = "2";
        if (i == 1) id.act = "q8";
        if (i == 2) id.prompt_mode = "compat";
        if (i == 3) id.template_name = "gemma4";
        if (i == 4) id.tokenizer_hash = "other";
        if (i == 5) id.shots = 0;
        if (i == 6) id.metric = "acc_norm";
        made_items(store, &id, t, &m, 0, 1, 50);
        expect_refusal("base", rows[i].label, NULL, rows[i].words);
    }
    int n;              /* asked for nobody by name, the rows say why each was left out */
    struct comparison *c = compared("base", NULL, NULL, &n);
    CHECK(n == (int)ARRAY_LEN(rows), "%d rows", n);
    for (int i = 0; i < n; i++)
        CHECK(c[i].refused && c[i].n == 0 && strstr(c[i].words, "not compared: task mmlu:"), "row %d: %s", i, c[i].words);
    report_compare_free(c, n);
}

static void test_prompt_hashes(void **state)
{
    (void)state;
    made_run(store, &made_tasks[1], &made_models[0], NULL, 60);
    made_run(store, &made_tasks[1], &made_models[2], NULL, 60);
    sql("UPDATE items SET prompt_hash = 'x' WHERE run = 2 AND item LIKE 'a%'");
    expect_refusal("bf16", "rtn-q4_0", NULL, "6 of 60 common items were asked with other prompt tokens by rtn-q4_0 (run 2)");
}

static void test_unfinished(void **state)
{
    (void)state;
    struct error err = { 0 };
    struct comparison *c;
    int n;
    const struct made_task *t = &made_tasks[1];
    made_run(store, t, &made_models[0], NULL, 60);
    made_run(store, t, &made_models[2], NULL, 60);
    made_run(store, t, &made_models[1], NULL, 40);
    sql("DELETE FROM items WHERE run = 2 AND item LIKE 'a%'; UPDATE runs SET finished = 0 WHERE id = 2");
    expect_refusal("bf16", "rtn-q4_0", NULL, "the run of rtn-q4_0 (run 2) is unfinished: 54 of 60 items");
    expect_refusal("rtn-q4_0", "bf16", NULL, "the run of rtn-q4_0 (run 2) is unfinished: 54 of 60 items");
    expect_refusal("bf16", "q8_0", NULL, "q8_0 (run 3) has 40 items, the base bf16 (run 1) has 60, 40 in common");
    made_run(store, t, &made_models[3], NULL, 60);
    sql("DELETE FROM scores WHERE metric = 'acc' AND item IN (SELECT id FROM items WHERE run = 4 LIMIT 3)");
    expect_refusal("bf16", "qat-q4_0", NULL, "only 57 of 60 items have a score for \"acc\"");
    const char *models[] = { "rtn-q4_0" };
    struct report_options o = { .base = "bf16", .models = models, .n_models = 1, .common_items = true };
    MUST(report_compare(store, &o, &c, &n, &err));
    CHECK(c->n == 54, "%d common items", c->n);
    report_compare_free(c, n);
}

static void test_names(void **state)
{
    (void)state;
    struct comparison *c;
    int n;
    const struct made_task *t = &made_tasks[1];
    struct made_model again = made_models[2], stranger = made_models[1];
    again.sha256 = "4c4c4d";
    stranger.label = "stranger", stranger.sha256 = "dd";
    expect_refusal("bf16", NULL, NULL, "it has: none");
    made_run(store, t, &made_models[0], NULL, 30);
    expect_refusal("bf16", NULL, NULL, "no model besides the base bf16");
    made_run(store, t, &made_models[2], NULL, 30);
    made_run(store, &made_tasks[0], &stranger, NULL, 30);
    expect_refusal("bf16", "rtn-q4_1", NULL, "no model or run \"rtn-q4_1\" in the database; the nearest is \"rtn-q4_0\"");
    expect_refusal("bf61", "rtn-q4_0", NULL, "the nearest is \"bf16\"");
    expect_refusal("bf16", "something-else-entirely", NULL, "it has: bf16, rtn-q4_0, stranger");
    expect_refusal("bf16", "rtn-q4_0", "mmlv", "bf16 has no run of task \"mmlv\"; the nearest is \"mmlu\"");
    expect_refusal("bf16", "stranger", NULL, "stranger and the base bf16 have no run of any task in common");
    expect_refusal("bf16", "bf16", NULL, "cannot be compared with itself");
    static const char *const names[] = { "rtn-q4_0", "2", "4c4c4c00" };
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        c = compared("bf16", names[i], NULL, &n);
        CHECK(n == 2 && strcmp(c->facts.label, "rtn-q4_0") == 0 && strcmp(c->facts.runs, "2") == 0, "%s", names[i]);
        report_compare_free(c, n);
    }
    made_run(store, t, &again, NULL, 30);
    expect_refusal("bf16", "rtn-q4_0", NULL,
                   "\"rtn-q4_0\" names several files of weights: 4c4c4c000000 (run 2, mmlu); 4c4c4d (run 4");
    c = compared("bf16", "4c4c4d", NULL, &n);
    CHECK(strcmp(c->facts.runs, "4") == 0, "by digest: run %s", c->facts.runs);
    report_compare_free(c, n);
}

/* Two shards of one run stand for the whole. */
static void test_shards(void **state)
{
    (void)state;
    struct comparison *c;
    int n;
    const struct made_task *t = &made_tasks[1];
    made_run(store, t, &made_models[0], NULL, 60);
    for (int shard = 0; shard < 2; shard++) {
        struct run_identity id = made_identity(t, &made_models[2], 30);
        id.shard = shard ? "2/2" : "1/2";
        made_items(store, &id, t, &made_models[2], shard, 2, 60);
        if (shard == 0)
            expect_refusal("bf16", "rtn-q4_0", NULL, "has 30 items, the base bf16 (run 1) has 60");
    }
    c = compared("bf16", "rtn-q4_0", NULL, &n);
    CHECK(c->n == 60 && strcmp(c->facts.runs, "2,3") == 0, "n %d, runs %s", c->n, c->facts.runs);
    report_compare_free(c, n);
}

static void test_fractions(void **state)
{
    (void)state;
    struct comparison *c;
    int n;
    made_run(store, &made_tasks[1], &made_models[0], NULL, 400);
    made_run(store, &made_tasks[1], &made_models[2], NULL, 400);
    sql("UPDATE scores SET score = .25 + score / 2 + (item % 7) / 100.0 WHERE metric = 'acc'");
    c = compared("bf16", "rtn-q4_0", "mmlu", &n);
    CHECK(!c->binary && c->p > 0 && c->p < 1 && c->delta_lo < c->delta && c->delta < c->delta_hi, "%s", c->words);
    CHECK(c->lost + c->won + c->both == 400, "every item went down, up or stayed");
    report_compare_free(c, n);
}

static char *printed(const struct comparison *c, int n, bool json)
{
    struct error err = { 0 };
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    MUST(report_print(out, c, n, json, &err));
    fclose(out);
    return text;
}

static void test_print(void **state)
{
    (void)state;
    struct error err = { 0 };
    int n;
    struct comparison *c = compared("bf16", NULL, NULL, &n);
    char *table = printed(c, n, false), *json = printed(c, n, true);
    static const char *const parts[] = { "gsm8k  exact_match,flexible-extract: base bf16 ", "n = 1319", "(exploratory)",
                                         "rtn-q4_0", "verdict", "worse by " };
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        CHECK(strstr(table, parts[i]), "the table lacks \"%s\":\n%s", parts[i], table);
    cJSON *list = json_parse(json, strlen(json), "json", &err);
    CHECK(cJSON_GetArraySize(list) == n, "%d objects", cJSON_GetArraySize(list));
    const char *verdict;
    double delta;
    MUST(json_str(cJSON_GetArrayItem(list, 1), "verdict", &verdict, "json", &err));
    MUST(json_num(cJSON_GetArrayItem(list, 1), "delta", &delta, "json", &err));
    CHECK(strcmp(verdict, verdict_names[c[1].verdict]) == 0 && fabs(delta - c[1].delta) < 1e-15, "%s %g", verdict, delta);
    cJSON_Delete(list);
    if (getenv("SHOW"))
        printf("%s", table);
    free(table);
    free(json);
    report_compare_free(c, n);
}

/* ---- the gate ---- */

static enum gate_result gate(const char *baseline, const char *candidate, int max_flips, bool json, char **text)
{
    struct error err = { 0 };
    struct gate_options o = { .baseline = baseline, .candidate = candidate, .margin = 1, .max_flips = max_flips };
    enum gate_result result = GATE_CANNOT_TELL;
    size_t size;
    FILE *out = open_memstream(text, &size);
    MUST(report_gate(store, &o, out, json, &result, &err));
    fclose(out);
    return result;
}

/* One run again under a tag, then more and more of its answers turned wrong. */
static void test_gate(void **state)
{
    (void)state;
    const struct made_task *t = &made_tasks[1];
    int64_t first = made_run(store, t, &made_models[0], NULL, t->n), second = made_run(store, t, &made_models[0], "night 2", t->n);
    char a[24], b[24], change[400];
    snprintf(a, sizeof a, "%lld", (long long)first);
    snprintf(b, sizeof b, "%lld", (long long)second);
    static const char wrong[] = "answer = 'Z' WHERE run = 2 AND item IN (SELECT item FROM v_scores WHERE run = 1 AND "
                                "metric = 'acc' AND score = 1 ORDER BY item LIMIT %d)";
    static const struct { int wrong, max_flips; enum gate_result result; const char *words; } steps[] = {
        { 0, 0, GATE_PASS, "every row is identical" },
        { 4, 10, GATE_PASS, "every score stays within the margin" },
        { 4, 3, GATE_REGRESSION, "more items flipped than allowed" },
        { 4, -1, GATE_PASS, "4 changed; flips: 4 lost, 0 won" },
        { 60, -1, GATE_REGRESSION, "the score fell" },
    };
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        char *text;
        snprintf(change, sizeof change, wrong, steps[i].wrong);
        char update[600];
        snprintf(update, sizeof update, "UPDATE items SET %s", change);
        sql(update);
        sql("UPDATE scores SET score = 0 WHERE metric = 'acc' AND item IN (SELECT id FROM items WHERE answer = 'Z')");
        enum gate_result got = gate(a, b, steps[i].max_flips, false, &text);
        CHECK(got == steps[i].result && strstr(text, steps[i].words), "step %zu: result %d, %s", i, got, text);
        free(text);
    }
    char *json;
    struct error err = { 0 };
    assert_int_equal(gate(a, b, -1, true, &json), GATE_REGRESSION);
    cJSON *o = json_parse(json, strlen(json), "gate", &err);
    CHECK(o && cJSON_GetArraySize(cJSON_GetObjectItem(cJSON_GetArrayItem(cJSON_GetObjectItem(o, "tasks"), 0), "items")) == 60,
          "the item diff is whole: %s", json);
    cJSON_Delete(o);
    free(json);
}

static void test_gate_moved_only(void **state)
{
    (void)state;
    char *text;
    made_run(store, &made_tasks[1], &made_models[0], NULL, 100);
    made_run(store, &made_tasks[1], &made_models[0], "night 2", 100);
    sql("UPDATE choices SET logprob = logprob * 1.0000001 WHERE position = 2 AND item IN (SELECT id FROM items WHERE run = 2 LIMIT "
        "7)");
    enum gate_result got = gate("1", "2", 0, false, &text);
    CHECK(got == GATE_PASS && strstr(text, "93 rows identical, 7 with other log-probabilities only, 0 changed"), "%s", text);
    free(text);
}

static void test_gate_few_items(void **state)
{
    (void)state;
    char *text;
    made_run(store, &made_tasks[1], &made_models[0], NULL, 50);
    made_run(store, &made_tasks[1], &made_models[3], NULL, 50);
    sql("UPDATE scores SET score = 0 WHERE metric = 'acc' AND item IN (SELECT id FROM items WHERE run = 2 ORDER BY item LIMIT 1)");
    sql("UPDATE scores SET score = 1 WHERE metric = 'acc' AND item IN (SELECT id FROM items WHERE run = 1 ORDER BY item LIMIT 1)");
    enum gate_result got = gate("bf16", "qat-q4_0", -1, false, &text);
    CHECK(got == GATE_CANNOT_TELL && strstr(text, "too few"), "50 items prove nothing: %s", text);
    free(text);
}

static void expect_gate_error(const char *baseline, const char *candidate, const char *words)
{
    struct error err = { 0 };
    struct gate_options o = { .baseline = baseline, .candidate = candidate, .margin = 1, .max_flips = -1 };
    enum gate_result result;
    CHECK(!report_gate(store, &o, stdout, false, &result, &err) && strstr(err.text, words), "%s lacks \"%s\"", err.text, words);
}

static void test_gate_errors(void **state)
{
    (void)state;
    made_run(store, &made_tasks[0], &made_models[0], NULL, 50);
    made_run(store, &made_tasks[1], &made_models[0], NULL, 50);
    made_run(store, &made_tasks[1], &made_models[1], NULL, 20);
    made_run(store, &made_tasks[1], &made_models[2], NULL, 50);
    expect_gate_error("bf16", "bf16", "a run is not compared with itself");
    expect_gate_error("bf16", "q8_0", "the candidate q8_0 has no run of task gsm8k");
    expect_gate_error("2", "q8_0", "q8_0 (run 3) has 20 items, the base bf16 #2 (run 2) has 50");
    expect_gate_error("1", "4", "no task in common");
    expect_gate_error("2", "99", "no model or run \"99\"");
    sql("UPDATE runs SET act = 'q8' WHERE id = 4");
    expect_gate_error("2", "4", "the activation mode (--act) differs");
}

#define ON_ROWS(test) cmocka_unit_test_setup_teardown(test, make_database, remove_database)
#define ON_EMPTY(test) cmocka_unit_test_setup_teardown(test, make_empty, remove_database)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ROWS(test_counts),         ON_ROWS(test_verdicts),   ON_EMPTY(test_chance_has_no_winner),
        ON_EMPTY(test_refusals),      ON_EMPTY(test_prompt_hashes), ON_EMPTY(test_unfinished),
        ON_EMPTY(test_names),         ON_EMPTY(test_shards),    ON_EMPTY(test_fractions),
        ON_ROWS(test_print),          ON_EMPTY(test_gate),      ON_EMPTY(test_gate_moved_only),
        ON_EMPTY(test_gate_few_items), ON_EMPTY(test_gate_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
