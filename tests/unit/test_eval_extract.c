/* Extraction of answers: recorded vectors of the reference harness, and 5276 graded model solutions. */
#include "check.h"

#include "eval/task.h"

static struct error err;

static struct task *open_task(const char *name)
{
    const char *root = getenv("SHARED_DATA");
    struct task *t;
    struct task_options o = { .data_dir = root ? root : "../shared/data", .tasks_dir = "tasks", .mode = PROMPT_COMPAT, .shots = 0 };
    MUST(task_open(&t, name, &o, &err));
    return t;
}

static void check_rule(const struct extractor *e, int rule, const char *output, const char *want)
{
    struct text got = { 0 };
    bool found;
    MUST(extractor_apply(e, rule, output, strlen(output), &got, &found, &err));
    CHECK(found == (want != NULL) && (!found || strcmp(text_str(&got), want) == 0), "\"%s\" by %s: %s%s, want %s", output,
          extractor_rule_name(e, rule), found ? "" : "(nothing)", text_str(&got), want ? want : "(nothing)");
    text_free(&got);
}

static void test_gsm8k_vectors(void **state)
{
    (void)state;
    enum { STRICT, FLEXIBLE, BOXED };
    static const struct {
        const char *output, *strict, *flexible, *cot;       /* NULL: [invalid] */
    } vectors[] = {
        { " 16-3-4=9 eggs.\n#### 18", "18", "18", NULL },
        { "#### $18", NULL, "18", NULL },
        { "####18", NULL, "18", NULL },
        { "#### 1,080.", "1080", "1080", NULL },
        { "The answer is 18.", NULL, "18", "18" },
        { "The answer is 18", NULL, "18", "1" },            /* the regex wants one more character */
        { "The answer is 8", NULL, "8", NULL },
        { "The answer is $18.", NULL, "18", NULL },
        { "The answer is 18 dollars.", NULL, "18", "18" },
        { "= $18.00", NULL, "18.00", NULL },
        { "18... ok", NULL, "18..", NULL },
        { "a ,, b", NULL, "", NULL },
        { "1 000", NULL, "000", NULL },
        { "3/4", NULL, "4", NULL },
        { "\\boxed{18}", NULL, "18", NULL },
        { "**18**", NULL, "18", NULL },
        { "18%", NULL, "18", NULL },
        { "no number here", NULL, NULL, NULL },
        { "", NULL, NULL, NULL },
        { "#### -3\n#### 4", "-3", "4", NULL },             /* strict takes the first, flexible the last */
        { "12\xFF 34\n#### 34", "34", "34", NULL },         /* an invalid byte is no reason to stop */
        { "The answer is \xE2\x80\x9C" "18\xE2\x80\x9D.", NULL, "18", NULL },
    };
    NEED_SHARED(here, "gsm8k/test.jsonl");
    (void)here;
    struct task *t = open_task("gsm8k"), *cot = open_task("gsm8k_cot");
    for (size_t i = 0; i < ARRAY_LEN(vectors); i++) {
        check_rule(t->spec.extractor, STRICT, vectors[i].output, vectors[i].strict);
        check_rule(t->spec.extractor, FLEXIBLE, vectors[i].output, vectors[i].flexible);
        check_rule(cot->spec.extractor, STRICT, vectors[i].output, vectors[i].cot);
    }
    check_rule(t->spec.extractor, BOXED, "so \\boxed{1,234} and then \\boxed{56}", "56");
    task_close(t);
    task_close(cot);
}

/* Normalisation turns each worked solution into its number: 14 with a comma, 2 negative. */
static void test_gsm8k_gold(void **state)
{
    (void)state;
    NEED_SHARED(here, "gsm8k/test.jsonl");
    (void)here;
    struct task *t = open_task("gsm8k");
    int negative = 0;
    for (int i = 0; i < task_size(t); i++) {
        struct arena a = { 0 };
        struct item_text x;
        int64_t value;
        MUST(item_render(t, i, &a, &x, &err));
        CHECK(parse_int(x.gold, -1000000000, 1000000000, &value), "item %d: gold \"%s\"", i, x.gold);
        negative += value < 0;
        arena_free(&a);
    }
    CHECK(negative == 2, "%d negative", negative);
    task_close(t);
}

/* Four models' solutions with the graders' verdicts: text after the last "A:", less commas, dollar and final stop. */
static void test_graded_solutions(void **state)
{
    (void)state;
    static const char *const models[] = { "6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification" };
    static const int totals[] = { 286, 515, 458, 742 };
    NEED_SHARED(path, "gsm8k/example_model_solutions.jsonl.gz");
    cJSON *rules = cJSON_Parse("[{\"name\": \"last\", \"regex\": \"A:\\\\s*([^\\\\n]*)\", \"pick\": \"last\"}]");
    cJSON *normalise = cJSON_Parse("{\"delete\": [\",\", \"\\\\$\", \"\\\\.$\"]}");
    struct extractor *e;
    MUST(extractor_new(&e, rules, normalise, "test", &err));
    char command[1200];
    snprintf(command, sizeof command, "gzip -dc '%s'", path);
    FILE *f = popen(command, "r");
    CHECK(f, "%s", command);
    struct text line = { 0 };
    int right[4] = { 0 }, lines = 0;
    for (int c; (c = fgetc(f)) != EOF;) {
        if (c != '\n') {
            text_putc(&line, (char)c);
            continue;
        }
        cJSON *o = json_parse(line.data, line.len, "solutions", &err);
        CHECK(o, "%s", err.text);
        struct text want = { 0 };
        const char *truth;
        bool found;
        MUST(json_str(o, "ground_truth", &truth, "solutions", &err));
        MUST(extractor_apply(e, 0, truth, strlen(truth), &want, &found, &err));
        for (int m = 0; m < 4; m++) {
            const char *solution;
            bool flag;
            struct text got = { 0 };
            MUST(json_str(json_get(o, models[m]), "solution", &solution, "solutions", &err));
            MUST(json_bool(json_get(o, models[m]), "is_correct", &flag, "solutions", &err));
            MUST(extractor_apply(e, 0, solution, strlen(solution), &got, &found, &err));
            bool equal = found && strcmp(text_str(&got), text_str(&want)) == 0;
            CHECK(equal == flag, "line %d, %s: \"%s\" against \"%s\", graded %d", lines + 1, models[m], text_str(&got), text_str(&want), flag);
            right[m] += equal;
            text_free(&got);
        }
        text_free(&want);
        cJSON_Delete(o);
        text_clear(&line);
        lines++;
    }
    pclose(f);
    CHECK(lines == 1319, "%d lines", lines);
    for (int m = 0; m < 4; m++)
        CHECK(right[m] == totals[m], "%s: %d right, want %d", models[m], right[m], totals[m]);
    text_free(&line);
    extractor_free(e);
    cJSON_Delete(rules);
    cJSON_Delete(normalise);
}

static void test_normalise(void **state)
{
    (void)state;
    cJSON *normalise = cJSON_Parse("{\"ignore_case\": true, \"ignore_punctuation\": true}");
    struct extractor *e;
    MUST(extractor_new(&e, NULL, normalise, "test", &err));
    check_rule(e, 0, " (B) \xC3\x84pfel, \"yes\"!", " b \xC3\xA4pfel yes");
    cJSON *bad = cJSON_Parse("[{\"name\": \"x\", \"regex\": \"(a\"}]");
    struct extractor *none;
    CHECK(!extractor_new(&none, bad, NULL, "tasks/x/task.json", &err) && strstr(err.text, "tasks/x/task.json") && strstr(err.text, "(a"),
          "%s", err.text);
    cJSON_Delete(bad);
    cJSON_Delete(normalise);
    extractor_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gsm8k_vectors),
        cmocka_unit_test(test_gsm8k_gold),
        cmocka_unit_test(test_graded_solutions),
        cmocka_unit_test(test_normalise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
