/* A run's rows: right against a plain computation, and the same bits however the work is cut up. */
#include "check.h"

#include "eval/eval.h"

static struct error err;

/* ---- rows as texts, sorted by id ---- */

struct row_text {
    char *id, *text;
};
struct rows {
    struct row_text *list;
    size_t n, cap;
    const struct rows *stored;      /* have() answers from these */
    int done, total;
    int64_t prompt_tokens;
    size_t cancel_after;            /* 0: never */
};

static bool have(void *ctx, const char *id)
{
    const struct rows *r = ctx;
    for (size_t i = 0; r->stored && i < r->stored->n; i++)
        if (strcmp(r->stored->list[i].id, id) == 0)
            return true;
    return false;
}

static bool take(void *ctx, const struct item_row *row, struct error *e)
{
    struct rows *r = ctx;
    struct text t = { 0 };
    text_printf(&t, "%s|%s|%s|%d|%s|%s|%s|%s|%d|%a", row->id, row->group, row->prompt_hash, row->prompt_tokens, row->gold,
                row->answer ? row->answer : "(invalid)", row->output ? row->output : "", row->finish, row->output_tokens, row->margin);
    for (int i = 0; i < row->n_choices; i++)
        text_printf(&t, "|%a/%d/%d/%d", row->choices[i].logprob, row->choices[i].tokens, row->choices[i].chars, row->choices[i].bytes);
    for (int i = 0; i < row->n_extractions; i++)
        text_printf(&t, "|%s=%s", row->extractions[i].rule, row->extractions[i].value ? row->extractions[i].value : "(invalid)");
    for (int i = 0; i < row->n_scores; i++)
        text_printf(&t, "|%s:%a", row->scores[i].metric, row->scores[i].value);
    if (!mem_grow(&r->list, &r->cap, r->n + 1, sizeof *r->list, e))
        return false;
    r->list[r->n].id = str_dup(row->id, e);
    r->list[r->n++].text = t.data;
    return true;
}

static void progress(void *ctx, int done, int total, int64_t prompt_tokens, int64_t new_tokens)
{
    struct rows *r = ctx;
    (void)new_tokens;
    r->done = done;
    r->total = total;
    r->prompt_tokens = prompt_tokens;
}

static bool cancelled(void *ctx)
{
    const struct rows *r = ctx;
    return r->cancel_after && r->n >= r->cancel_after;
}

static int by_id(const void *a, const void *b)
{
    return strcmp(((const struct row_text *)a)->id, ((const struct row_text *)b)->id);
}

static void rows_free(struct rows *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->list[i].id);
        free(r->list[i].text);
    }
    free(r->list);
    *r = (struct rows){ 0 };
}

/* ---- the model and the tasks ---- */

static struct model stories;

static bool open_stories(void)
{
    const char *path = shared_data("models/stories260K/gguf/stories260K-f32.gguf");
    if (!path || stories.path)
        return path != NULL;
    MUST(model_open(&stories, path, true, &err));
    CHECK(stories.tokenizer, "%s", stories.tokenizer_error);
    return true;
}

static const char *data_dir(void)
{
    const char *root = getenv("SHARED_DATA");
    return root ? root : "../shared/data";
}

struct setting {
    int threads, batch_tokens, batch_items, width;
    bool share;
};

static void run_task(const struct task *t, const struct setting *s, struct rows *rows)
{
    struct engine_options eo = { .act = ACT_I16, .threads = s->threads, .batch_tokens = s->batch_tokens };
    struct eval_options o = { .chat = CHAT_OFF, .share_prefixes = s->share, .batch_items = s->batch_items, .batch_width = s->width };
    struct eval_sink sink = { .have = have, .item = take, .progress = progress, .cancelled = cancelled, .ctx = rows };
    struct engine *e;
    MUST(engine_open(&e, &stories, &eo, &err));
    MUST(eval_run(e, &stories, t, &o, &sink, &err));
    engine_close(e);
    qsort(rows->list, rows->n, sizeof *rows->list, by_id);
}

static void compare(const struct rows *got, const struct rows *want, const char *what, int setting)
{
    CHECK(got->n == want->n, "%s, setting %d: %zu rows, want %zu", what, setting, got->n, want->n);
    for (size_t i = 0; i < want->n; i++)
        CHECK(strcmp(got->list[i].text, want->list[i].text) == 0, "%s, setting %d:\n got %s\nwant %s", what, setting, got->list[i].text,
              want->list[i].text);
}

static struct task *open_task(const char *name, int shots, int limit, enum prompt_mode mode)
{
    struct task *t;
    struct task_options o = { .data_dir = data_dir(), .tasks_dir = "tasks", .mode = mode, .shots = shots, .limit = limit };
    MUST(task_open(&t, name, &o, &err));
    return t;
}

static const struct run_case {
    const char *task;
    int shots, limit;
    enum prompt_mode mode;
} cases[] = {
    { "mmlu", 0, 30, PROMPT_STABLE },           { "tasks/mmlu/sample", 1, 0, PROMPT_STABLE }, { "mmlu_continuation", 0, 12, PROMPT_STABLE },
    { "winogrande", 0, 12, PROMPT_STABLE },     { "piqa", 0, 6, PROMPT_COMPAT },              { "truthfulqa_mc2", 0, 3, PROMPT_STABLE },
    { "tests/golden/eval/gsm8k-short", 0, 12, PROMPT_STABLE },          { "tests/golden/eval/sample-short", 2, 0, PROMPT_STABLE },
};

/* Prefix sharing, batch sizes, widths and threads change speed and nothing else. */
static void test_same_rows(void **state)
{
    (void)state;
    static const struct setting settings[] = {
        { 1, 0, 0, 0, true }, { 2, 512, 7, 5, false }, { 2, 48, 1, 2, true },
    };
    if (!open_stories())
        skip();
    for (size_t c = 0; c < ARRAY_LEN(cases); c++) {
        struct rows want = { 0 };
        struct task *t = open_task(cases[c].task, cases[c].shots, cases[c].limit, cases[c].mode);
        for (size_t s = 0; s < ARRAY_LEN(settings); s++) {
            struct rows got = { 0 };
            run_task(t, &settings[s], &got);
            CHECK((int)got.n == task_size(t) && got.done == task_size(t) && got.total == task_size(t), "%s: %zu rows, %d done of %d",
                  cases[c].task, got.n, got.done, task_size(t));
            if (s == 0) {
                want = got;
            } else {
                compare(&got, &want, cases[c].task, (int)s);
                rows_free(&got);
            }
        }
        rows_free(&want);
        task_close(t);
    }
}

/* Stopped in the middle and said again: the rows of both are those of one run. */
static void test_resume(void **state)
{
    (void)state;
    static const struct setting plain = { 2, 0, 3, 2, true };
    if (!open_stories())
        skip();
    for (size_t c = 0; c < ARRAY_LEN(cases); c += 6) {
        struct task *t = open_task(cases[c].task, cases[c].shots, cases[c].limit, cases[c].mode);
        struct rows whole = { 0 }, first = { .cancel_after = 5 }, rest = { .stored = &first };
        run_task(t, &plain, &whole);
        run_task(t, &plain, &first);
        CHECK(first.n >= 5 && first.n < whole.n, "%s: cancelled after %zu of %zu", cases[c].task, first.n, whole.n);
        run_task(t, &plain, &rest);
        CHECK(rest.n == whole.n - first.n && rest.done == (int)whole.n, "%s: %zu + %zu rows of %zu", cases[c].task, first.n, rest.n, whole.n);
        for (size_t i = 0; i < rest.n; i++) {
            struct error e;
            CHECK(mem_grow(&first.list, &first.cap, first.n + 1, sizeof *first.list, &e), "%s", e.text);
            first.list[first.n++] = rest.list[i];
        }
        rest.n = 0;
        qsort(first.list, first.n, sizeof *first.list, by_id);
        compare(&first, &whole, cases[c].task, -1);
        rows_free(&whole);
        rows_free(&first);
        rows_free(&rest);
        task_close(t);
    }
}

/* A shared prefix costs its tokens once. */
static void test_prefix_saves_tokens(void **state)
{
    (void)state;
    if (!open_stories())
        skip();
    struct task *t = open_task("tests/golden/eval/sample-short", 2, 0, PROMPT_STABLE);
    struct setting on = { 1, 0, 0, 0, true }, off = { 1, 0, 0, 0, false };
    struct rows shared = { 0 }, alone = { 0 };
    run_task(t, &on, &shared);
    run_task(t, &off, &alone);
    CHECK(shared.prompt_tokens * 2 < alone.prompt_tokens, "%lld tokens with a shared prefix, %lld without",
          (long long)shared.prompt_tokens, (long long)alone.prompt_tokens);
    rows_free(&shared);
    rows_free(&alone);
    task_close(t);
}

/* ---- log-probabilities against the plain way: the whole text through the model, choice by choice ---- */

struct check_row {
    struct task *t;
    struct engine *e;
    int seen;
};

static double plain_logprob(struct engine *e, const char *prompt, size_t len, const char *choice)
{
    struct ids context = { 0 }, whole = { 0 };
    struct text both = { 0 };
    text_add(&both, prompt, len);
    text_puts(&both, choice);
    MUST(tokenizer_encode(stories.tokenizer, prompt, len, true, false, &context, &err));
    MUST(tokenizer_encode(stories.tokenizer, both.data, both.len, true, false, &whole, &err));
    int vocab = stories.config.vocab, n = (int)whole.n - 1;
    float *logits = mem_new((size_t)n * (size_t)vocab, sizeof *logits, &err);
    struct seq *s;
    MUST(seq_open(&s, e, NULL, &err));
    struct span span = { s, whole.data, n, 0 };
    MUST(engine_forward(e, &span, 1, logits, &err));
    double sum = 0;
    for (int p = (int)context.n - 1; p < n; p++)
        sum += (double)logits[(size_t)p * (size_t)vocab + (size_t)whole.data[p + 1]] - logits_log_sum(logits + (size_t)p * (size_t)vocab, vocab);
    seq_close(s);
    free(logits);
    text_free(&both);
    ids_free(&context);
    ids_free(&whole);
    return sum;
}

static bool check_logprobs(void *ctx, const struct item_row *row, struct error *e)
{
    struct check_row *c = ctx;
    static const char *const letters[] = { " A", " B", " C", " D" };
    struct text prompt = { 0 };
    const char *id = "";
    for (int i = 0; i < task_size(c->t) && strcmp(id, row->id) != 0; i++) {
        text_clear(&prompt);
        if (!task_prompt(c->t, i, &prompt, NULL, &id, e))
            return false;
    }
    int best = 0;
    for (int k = 0; k < row->n_choices; k++) {
        double want = plain_logprob(c->e, prompt.data, prompt.len, letters[k]);
        CHECK(row->choices[k].logprob == want, "%s choice %d: %.17g, the plain way %.17g", row->id, k, row->choices[k].logprob, want);
        best = row->choices[k].logprob > row->choices[best].logprob ? k : best;
    }
    CHECK(row->answer[0] == 'A' + best, "%s: answer %s", row->id, row->answer);
    CHECK(row->scores[0].value == (row->answer[0] == row->gold[0]), "%s: score %g", row->id, row->scores[0].value);
    c->seen++;
    text_free(&prompt);
    return true;
}

static void test_logprobs(void **state)
{
    (void)state;
    if (!open_stories())
        skip();
    struct check_row c = { .t = open_task("tasks/mmlu/sample", 1, 0, PROMPT_STABLE) };
    struct engine_options eo = { .act = ACT_I16, .threads = 2 };
    struct eval_options o = { .chat = CHAT_OFF, .share_prefixes = true };
    struct eval_sink sink = { .item = check_logprobs, .ctx = &c };
    struct engine *e;
    MUST(engine_open(&c.e, &stories, &eo, &err));
    MUST(engine_open(&e, &stories, &eo, &err));
    MUST(eval_run(e, &stories, c.t, &o, &sink, &err));
    CHECK(c.seen == task_size(c.t), "%d rows", c.seen);
    engine_close(e);
    engine_close(c.e);
    task_close(c.t);
}

/* Prompts over the model's context are marked, never cut. */
static void test_too_long(void **state)
{
    (void)state;
    static const struct setting plain = { 1, 0, 0, 0, true };
    if (!open_stories())
        skip();
    struct task *t = open_task("gsm8k", 5, 3, PROMPT_STABLE);
    struct rows rows = { 0 };
    run_task(t, &plain, &rows);
    CHECK(rows.n == 3, "%zu rows", rows.n);
    for (size_t i = 0; i < rows.n; i++)
        CHECK(strstr(rows.list[i].text, "|too-long|") && strstr(rows.list[i].text, "exact_match,strict-match:0x0p+0"), "%s",
              rows.list[i].text);
    rows_free(&rows);
    task_close(t);
}

static int close_stories(void **state)
{
    (void)state;
    model_close(&stories);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logprobs),  cmocka_unit_test(test_same_rows), cmocka_unit_test(test_resume),
        cmocka_unit_test(test_prefix_saves_tokens), cmocka_unit_test(test_too_long),
    };
    return cmocka_run_group_tests(tests, NULL, close_stories);
}
