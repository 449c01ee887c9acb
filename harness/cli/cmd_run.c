/* run: score models on tasks, store every item. */
#include "cli/cli.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct run {                        /* one model on one task */
    const struct settings *s;
    struct store *store;
    int64_t id;
    struct progress progress;
    int64_t prompt_tokens, new_tokens;      /* computed: a shared prefix once */
    int64_t whole_prompts;                  /* of the stored items, prefixes included */
    int stored;
};

static bool have_item(void *ctx, const char *item_id)
{
    struct run *r = ctx;
    return store_have_item(r->store, r->id, item_id);
}

static bool put_item(void *ctx, const struct item_row *row, struct error *err)
{
    struct run *r = ctx;
    if (!store_put_item(r->store, r->id, row, err))
        return false;
    r->stored++;
    r->whole_prompts += row->prompt_tokens;
    return true;
}

static void show_progress(void *ctx, int done, int total, int64_t prompt_tokens, int64_t new_tokens)
{
    struct run *r = ctx;
    r->prompt_tokens = prompt_tokens;
    r->new_tokens = new_tokens;
    progress_show(&r->progress, done, total, prompt_tokens, new_tokens);
}

static void show_note(void *ctx, const char *text)
{
    const struct run *r = ctx;
    note(r->s, "%s", text);
}

/* Who chose the values: what the quantizer wrote into the file, else "" (unknown). */
static const char *method_of(const struct model *m, char *buffer, size_t size)
{
    struct gguf_kv *kv = NULL;
    int n = 0;
    buffer[0] = '\0';
    if (model_metadata(m, &kv, &n, NULL))
        for (int i = 0; i < n; i++)
            if (strcmp(kv[i].key, "qdelta.quantize.method") == 0 && kv[i].type == GGUF_STRING)
                snprintf(buffer, size, "%.*s", (int)kv[i].value.s.len, kv[i].value.s.data);
    return buffer;
}

static bool identify(const struct settings *s, const struct model *m, const struct engine *e, const struct task *t,
                     const struct task_options *o, struct run *r, struct error *err)
{
    char sha[65], tokenizer[65], method[64];
    enum chat_family chat;
    enum chat_mode mode = strcmp(s->chat, "on") == 0 ? CHAT_ON : strcmp(s->chat, "off") == 0 ? CHAT_OFF : CHAT_AUTO;
    if (!model_sha256(m, sha, err) || !model_tokenizer_hash(m, tokenizer, err) || !eval_chat_family(m, mode, &chat, err))
        return false;
    struct run_identity id = {
        .model_label = m->label, .model_path = m->path, .model_sha256 = sha, .arch = m->config.arch, .recipe = m->recipe,
        .format = m->source == MODEL_GGUF ? "gguf" : "hf", .method = method_of(m, method, sizeof method),
        .bits_per_weight = m->bits_per_weight, .file_bytes = m->file_bytes, .tokenizer_hash = tokenizer,
        .template_name = chat_family_names[chat], .task = task_name(t), .task_version = task_version(t),
        .metric = task_metric(t), .prompt_mode = s->mode, .shots = task_shots(t), .limit = o->limit, .seed = o->seed,
        .shard = s->shard, .act = s->act, .program_version = qdelta_version, .commit = qdelta_commit,
        .kernels = engine_kernels(e), .threads = engine_threads(e), .items_expected = task_size(t), .command = "run", .tag = s->tag,
    };
    bool resumed;
    if (!store_run(r->store, &id, &r->id, &resumed, err))
        return false;
    if (resumed)
        note(s, "%s on %s: going on with run %lld", m->label, task_name(t), (long long)r->id);
    return true;
}

struct run_list {               /* of this invocation */
    int64_t *ids;
    size_t n;
};

static bool run_task(const struct settings *s, struct store *store, const struct model *m, struct engine *e,
                     const char *task_arg, struct run_list *runs, struct error *err)
{
    struct task_options to;
    struct task *t = NULL;
    struct run r = { .s = s, .store = store };
    if (!task_options_of(s, &to, err) || !task_open(&t, task_arg, &to, err))
        return false;
    bool ok = identify(s, m, e, t, &to, &r, err);
    if (ok) {
        runs->ids[runs->n++] = r.id;
        char what[256];
        snprintf(what, sizeof what, "%s on %s", m->label, task_name(t));
        struct eval_options eo = { .chat = strcmp(s->chat, "on") == 0 ? CHAT_ON : strcmp(s->chat, "off") == 0 ? CHAT_OFF : CHAT_AUTO,
                                   .share_prefixes = !s->no_share, .batch_items = (int)s->batch_items,
                                   .batch_width = (int)s->width, .note = show_note, .note_ctx = &r };
        struct eval_sink sink = { have_item, put_item, show_progress, interrupted, &r };
        progress_start(&r.progress, what, s->quiet);
        ok = eval_run(e, m, t, &eo, &sink, err);
        progress_end(&r.progress);
        double seconds = (double)(clock_ns() - r.progress.started_ns) / 1e9;
        struct error later = { 0 };
        bool whole = ok && !interrupted(NULL);
        if (!store_run_totals(store, r.id, whole, seconds, r.prompt_tokens, r.new_tokens, peak_rss_bytes(), ok ? err : &later))
            ok = false;
        if (ok && interrupted(NULL))
            ok = fail(err, STATUS_IO, "stopped; %d items are stored, say the same command to go on", r.stored);
        if (ok && r.stored)
            note(s, "%s: %d items in %.1f s, %.1f items/s, %.0f tokens/s; %lld tokens computed, prompts have %lld; %.2f GB at most", what,
                 r.stored, seconds, r.stored / seconds, (double)(r.prompt_tokens + r.new_tokens) / seconds,
                 (long long)(r.prompt_tokens + r.new_tokens), (long long)r.whole_prompts, (double)peak_rss_bytes() / 1e9);
        else if (ok)
            note(s, "%s: all %d items were there already", what, task_size(t));
    }
    task_close(t);
    return ok;
}

static bool has_tokenizer(const struct model *m, struct error *err)
{
    return m->tokenizer || fail(err, STATUS_INPUT, "%s: no tokenizer, and tasks need text: %s", m->path,
                                m->tokenizer_error ? m->tokenizer_error : "none found");
}

static bool run_model(const struct settings *s, struct store *store, const char *spec, const struct word_list *tasks,
                      struct run_list *runs, struct error *err)
{
    struct model m;
    struct engine *e = NULL;
    struct engine_options eo;
    if (!engine_options_of(s, &eo, err) || !model_open(&m, spec, true, err))
        return false;
    bool ok = has_tokenizer(&m, err) && engine_open(&e, &m, &eo, err);
    for (size_t i = 0; ok && i < tasks->n; i++)
        ok = run_task(s, store, &m, e, tasks->words[i], runs, err);
    engine_close(e);
    model_close(&m);
    return ok;
}

/* A later model or task that cannot be opened is known now, not after the hours that the earlier ones take. */
static bool check_later(const struct settings *s, const struct word_list *models, const struct word_list *tasks, struct error *err)
{
    bool ok = true;
    for (size_t i = 1; ok && i < tasks->n; i++) {
        struct task_options to;
        struct task *t = NULL;
        ok = task_options_of(s, &to, err) && task_open(&t, tasks->words[i], &to, err);
        task_close(t);
    }
    for (size_t i = 1; ok && i < models->n; i++) {
        struct model m;
        ok = model_open(&m, models->words[i], true, err) && has_tokenizer(&m, err);
        model_close(&m);
    }
    return ok;
}

/* "mmlu,gsm8k" counts as two words. */
static bool split_tasks(const struct word_list *given, struct word_list *out, struct arena *a, struct error *err)
{
    for (size_t i = 0; i < given->n; i++)
        for (const char *p = given->words[i]; *p;) {
            size_t len = strcspn(p, ",");
            char *word = arena_str(a, p, len, err);
            if (!word || !mem_grow(&out->words, &out->cap, out->n + 1, sizeof *out->words, err))
                return false;
            if (len)
                out->words[out->n++] = word;
            p += len + (p[len] == ',');
        }
    return out->n > 0 || fail(err, STATUS_USAGE, "run: --task names no task");
}

static void print_score(struct table *t, cJSON *array, sqlite3_stmt *q)
{
    static const char *const words[] = { "model", "task", "metric" };
    int n = sqlite3_column_int(q, 3);
    double p = sqlite3_column_double(q, 4);
    struct interval w = wilson((int)(p * n + 0.5), n, 0.95);
    cJSON *row = array ? cJSON_CreateObject() : NULL;
    if (row) {
        cJSON_AddItemToArray(array, row);
        cJSON_AddNumberToObject(row, "run", sqlite3_column_int(q, 5));
        for (int c = 0; c < 3; c++)
            cJSON_AddStringToObject(row, words[c], (const char *)sqlite3_column_text(q, c));
        cJSON_AddNumberToObject(row, "n", n);
        cJSON_AddNumberToObject(row, "score", p);
        cJSON_AddNumberToObject(row, "score_lo", w.lo);
        cJSON_AddNumberToObject(row, "score_hi", w.hi);
        return;
    }
    table_cell(t, "%d", sqlite3_column_int(q, 5));
    for (int c = 0; c < 3; c++)
        table_cell(t, "%s", (const char *)sqlite3_column_text(q, c));
    table_cell(t, "%d", n);
    table_cell(t, "%.2f", 100 * p);
    table_cell(t, "%.2f to %.2f", 100 * w.lo, 100 * w.hi);
}

/* Scores of the runs of this invocation, from the rows. */
static bool print_scores(const struct settings *s, struct store *store, const struct run_list *runs, struct error *err)
{
    static const char *const heads[] = { "run", "model", "task", "metric", "n", "score", "95 % interval" };
    struct text sql = { 0 };
    sqlite3_stmt *q = NULL;
    text_puts(&sql, "SELECT model, task, metric, count(*), avg(score), run FROM v_scores WHERE run IN (");
    for (size_t i = 0; i < runs->n; i++)
        text_printf(&sql, "%s%lld", i ? "," : "", (long long)runs->ids[i]);
    text_puts(&sql, ") GROUP BY run, metric ORDER BY task, metric, run");
    bool ok = text_ok(&sql, err) && (sqlite3_prepare_v2(store_db(store), text_str(&sql), -1, &q, NULL) == SQLITE_OK ||
                                     fail(err, STATUS_IO, "%s: %s", s->db, sqlite3_errmsg(store_db(store))));
    text_free(&sql);
    if (!ok)
        return false;
    cJSON *array = s->json ? cJSON_CreateArray() : NULL;
    struct table *t = s->json ? NULL : table_new(7, heads, "rlllrrl", err);
    while ((t || array) && sqlite3_step(q) == SQLITE_ROW)
        print_score(t, array, q);
    sqlite3_finalize(q);
    return s->json ? json_print(array, err) : t && table_print(t, stdout, err);
}

int cmd_run(const struct settings *s, struct error *err)
{
    struct word_list tasks = { 0 };
    struct arena words = { 0 };
    struct store *store = NULL;
    const struct word_list *models = s->models.n ? &s->models : &s->rest;
    if (s->models.n && s->rest.n)
        return fail(err, STATUS_USAGE, "run: \"%s\" stands alone; models follow -m or stand alone, not both", s->rest.words[0]), EXIT_USAGE;
    if (!models->n)
        return fail(err, STATUS_USAGE, "run: no model; usage: qdelta run -m MODEL.. -t TASK.."), EXIT_USAGE;
    struct task_options to;
    struct engine_options eo;
    if (!task_options_of(s, &to, err) || !engine_options_of(s, &eo, err))     /* before any file is opened */
        return EXIT_FAILED;
    catch_interrupts();
    struct run_list runs = { 0 };
    bool ok = split_tasks(&s->tasks, &tasks, &words, err) && check_later(s, models, &tasks, err) &&
              (runs.ids = mem_new(models->n * tasks.n, sizeof *runs.ids, err)) && store_open(&store, s->db, STORE_WRITE, err);
    for (size_t i = 0; ok && i < models->n; i++)
        ok = run_model(s, store, models->words[i], &tasks, &runs, err);
    ok = ok && print_scores(s, store, &runs, err);
    store_close(store);
    free(runs.ids);
    free(tasks.words);
    arena_free(&words);
    return ok ? EXIT_DONE : EXIT_FAILED;
}
