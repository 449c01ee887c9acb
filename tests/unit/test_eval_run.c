/* A run's rows: right against a plain computation, and the same bits however the work is cut up. */
#include "check.h"

#include "eval/run.h"

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

/* A sink that cannot store ends the run with its own error, and nothing is lost or left. */
static bool refuse(void *ctx, const struct item_row *row, struct error *e)
{
    int *rows = ctx;
    return ++*rows < 4 || fail(e, STATUS_IO, "no room for item %s", row->id);
}

static void test_sink_fails(void **state)
{
    (void)state;
    if (!open_stories())
        skip();
    for (size_t c = 0; c < ARRAY_LEN(cases); c += 6) {
        struct task *t = open_task(cases[c].task, cases[c].shots, cases[c].limit, cases[c].mode);
        struct engine_options eo = { .act = ACT_I16, .threads = 2 };
        struct eval_options o = { .chat = CHAT_OFF, .share_prefixes = true, .batch_items = 3, .batch_width = 2 };
        int rows = 0;
        struct eval_sink sink = { .item = refuse, .ctx = &rows };
        struct engine *e;
        MUST(engine_open(&e, &stories, &eo, &err));
        CHECK(!eval_run(e, &stories, t, &o, &sink, &err) && rows == 4 && strstr(err.text, "no room for item"), "%d rows, %s", rows, err.text);
        engine_close(e);
        task_close(t);
    }
}

/* ---- chat: description as system message, shots as turns, choices without delimiter ---- */

/* A tokenizer of bytes and Gemma 4's markers. */
static struct tokenizer *byte_tokenizer(void)
{
    static char bytes[256][8];
    static const char *tokens[264];
    static uint32_t lens[264];
    static int32_t types[264];
    static const char *const special[] = { "<bos>", "<eos>", "<unk>", "<|turn>", "<turn|>", "x", "xx", "\xE2\x96\x81" };
    static const char *const merges[] = { "x x" };      /* a BPE needs one */
    for (int i = 0; i < 264; i++) {
        snprintf(bytes[i & 255], sizeof bytes[0], "<0x%02X>", i & 255);
        tokens[i] = i < 256 ? bytes[i] : special[i - 256];
        lens[i] = (uint32_t)strlen(tokens[i]);
        types[i] = i < 256 ? TOKEN_BYTE : i < 261 ? TOKEN_CONTROL : TOKEN_NORMAL;
    }
    struct tokenizer_spec spec = { .where = "test", .kind = "gemma4", .n_tokens = 264, .n_merges = 1, .merges = merges, .tokens = tokens, .token_lens = lens, .types = types,
                                   .bos = 256, .eos = 257, .unk = 258, .pad = -1, .add_bos = true };
    struct tokenizer *t;
    MUST(tokenizer_new(&t, &spec, &err));
    return t;
}

static void test_chat(void **state)
{
    (void)state;
    struct model m = { .path = "test", .tokenizer = byte_tokenizer() };
    struct task *t = open_task("tasks/mmlu/sample", 1, 0, PROMPT_STABLE);
    struct encoder c = { t, &m, CHAT_GEMMA4_SMALL };
    struct arena a = { 0 };
    struct request q;
    static const char want[] =
        "<bos><|turn>system\nThe following are multiple choice questions (with answers) about everyday science.<turn|>\n"
        "<|turn>user\nWhich of these melts when it is warmed from -5 to 5 degrees Celsius?\nA. Iron\nB. Ice\nC. Glass\nD. Granite\nAnswer:<turn|>\n"
        "<|turn>model\nB<turn|>\n"
        "<|turn>user\nA magnet is brought near four spoons. Which spoon does it pull?\nA. Steel\nB. Wood\nC. Silver\nD. Plastic\nAnswer:<turn|>\n"
        "<|turn>model\n";
    MUST(request_encode(&c, 0, &a, &q, &err));
    CHECK(q.n_seqs == 4, "%d sequences", q.n_seqs);
    for (int s = 0; s < 4; s++) {
        struct text prompt = { 0 }, choice = { 0 };
        for (int i = 0; i < q.seqs[s].n; i++)
            tokenizer_decode(m.tokenizer, q.seqs[s].ids[i], true, i < q.seqs[s].n_context ? &prompt : &choice);
        CHECK(strcmp(prompt.data, want) == 0, "choice %d:\n%s\nwant\n%s", s, prompt.data, want);
        CHECK(choice.len == 1 && choice.data[0] == 'A' + s, "choice %d is \"%s\"", s, choice.data);
        text_free(&prompt);
        text_free(&choice);
    }
    enum chat_family family;
    CHECK(!eval_chat_family(&m, CHAT_ON, &family, &err) && strstr(err.text, "no chat template"), "%s", err.text);
    m.chat_template = "{{ something of its own }}";
    CHECK(!eval_chat_family(&m, CHAT_ON, &family, &err) && strstr(err.text, "known"), "%s", err.text);
    CHECK(eval_chat_family(&m, CHAT_AUTO, &family, &err) && family == CHAT_NONE, "auto takes %d", (int)family);
    arena_free(&a);
    task_close(t);
    tokenizer_free(m.tokenizer);
}

/* White space at the prompt's end moves to the continuation; an empty prompt is the BOS alone. */
static void test_borders(void **state)
{
    (void)state;
    static const struct {
        const char *prompt, *delimiter, *choice, *context, *continuation;
    } borders[] = {
        { "Q: ", "", "yes", "Q:", " yes" },
        { "Q:\n\xC2\xA0", " ", "yes", "Q:", "\n\xC2\xA0 yes" },
        { "Q:", " ", "yes", "Q:", " yes" },
        { "", " ", "yes", "", " yes" },
        { " \n", "", "yes", "", " \nyes" },
    };
    struct model m = { .path = "test", .tokenizer = byte_tokenizer() };
    struct task *t = open_task("tasks/mmlu/sample", 0, 0, PROMPT_STABLE);
    struct encoder c = { t, &m, CHAT_NONE };
    for (size_t i = 0; i < ARRAY_LEN(borders); i++) {
        struct template *prompt = t->spec.prompt, *first = t->spec.choices.fixed[0], *description = t->spec.description;
        struct arena a = { 0 };
        struct request q;
        struct text context = { 0 }, continuation = { 0 };
        const char *delimiter = t->spec.target_delimiter;
        MUST(template_new(&t->spec.prompt, borders[i].prompt, "test", &err));
        MUST(template_new(&t->spec.choices.fixed[0], borders[i].choice, "test", &err));
        t->spec.target_delimiter = borders[i].delimiter;
        t->spec.description = NULL;
        MUST(request_encode(&c, 0, &a, &q, &err));
        for (int k = 1; k < q.seqs[0].n; k++)
            tokenizer_decode(m.tokenizer, q.seqs[0].ids[k], true, k < q.seqs[0].n_context ? &context : &continuation);
        CHECK(q.seqs[0].ids[0] == 256, "case %zu: begins with %d", i, q.seqs[0].ids[0]);
        CHECK(strcmp(text_str(&context), borders[i].context) == 0 && strcmp(text_str(&continuation), borders[i].continuation) == 0,
              "case %zu: \"%s\" + \"%s\"", i, text_str(&context), text_str(&continuation));
        template_free(t->spec.prompt);
        template_free(t->spec.choices.fixed[0]);
        t->spec.prompt = prompt;
        t->spec.choices.fixed[0] = first;
        t->spec.description = description;
        t->spec.target_delimiter = delimiter;
        text_free(&context);
        text_free(&continuation);
        arena_free(&a);
    }
    task_close(t);
    tokenizer_free(m.tokenizer);
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
        cmocka_unit_test(test_sink_fails), cmocka_unit_test(test_chat), cmocka_unit_test(test_borders),
    };
    return cmocka_run_group_tests(tests, NULL, close_stories);
}
