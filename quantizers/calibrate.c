#include "calibrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_ROWS = 128, DEFAULT_TOKENS = 1024, LEAST_TOKENS = 32, GROUP_TOKENS = 4096, BATCH_TOKENS = 1024 };

/* ---- text to ids ---- */

static bool encode_text(const struct tokenizer *t, const char *s, size_t len, struct ids *out, struct error *err)
{
    for (size_t from = 0; from < len;) {        /* a paragraph at a time, so that memory stays small */
        const char *end = len - from > 1 ? strstr(s + from, "\n\n") : NULL;
        size_t n = end ? (size_t)(end - s) + 2 - from : len - from;
        if (!tokenizer_encode(t, s + from, n, false, false, out, err))
            return false;
        from += n;
    }
    return true;
}

static bool encode_chat(const struct model *m, const cJSON *line, const char *where, struct ids *out, struct error *err)
{
    const cJSON *turns = json_get(line, "messages");
    if (!turns)
        turns = json_get(line, "conversations");
    int n = cJSON_IsArray(turns) ? cJSON_GetArraySize(turns) : 0;
    if (!n)
        return fail(err, STATUS_INPUT, "%s: no \"messages\" array", where);
    struct chat_turn *t = mem_new((size_t)n, sizeof *t, err);
    bool ok = t != NULL;
    for (int i = 0; ok && i < n; i++)
        ok = json_str(cJSON_GetArrayItem(turns, i), "role", &t[i].role, where, err) &&
             json_str(cJSON_GetArrayItem(turns, i), "content", &t[i].content, where, err);
    enum chat_family family = m->chat_template ? chat_detect(m->chat_template) : CHAT_NONE;
    if (ok && family == CHAT_NONE)
        ok = fail(err, STATUS_UNSUPPORTED, "%s: %s has no chat template that we render; give plain text", where, m->path);
    ok = ok && chat_encode(m->tokenizer, family, t, n, false, out, err);
    free(t);
    return ok;
}

static bool encode_chats(const struct model *m, const char *path, const char *s, size_t len, struct ids *out, struct error *err)
{
    int line = 1;
    for (const char *p = s, *end; p < s + len; p = end + 1, line++) {
        end = memchr(p, '\n', (size_t)(s + len - p));
        end = end ? end : s + len;
        if (strspn(p, " \t\r\n") >= (size_t)(end - p))
            continue;
        char where[512];
        snprintf(where, sizeof where, "%s line %d", path, line);
        cJSON *o = json_parse(p, (size_t)(end - p), where, err);
        bool ok = o && encode_chat(m, o, where, out, err);
        cJSON_Delete(o);
        if (!ok)
            return false;
    }
    return true;
}

static bool check_text(const char *path, const struct text *t, struct error *err)
{
    size_t bad = utf8_check(t->data, t->len), nul = t->len ? strnlen(t->data, t->len) : 0;
    if (strspn(text_str(t), " \t\r\n") == t->len)
        return fail(err, STATUS_INPUT, "calibration text %s is empty", path);
    if (nul < t->len || bad < t->len)
        return fail(err, STATUS_INPUT, "calibration text %s is not UTF-8 text: byte %zu is 0x%02x", path, nul < bad ? nul : bad,
                    (unsigned char)t->data[nul < bad ? nul : bad]);
    return true;
}

static bool read_ids(const char *path, const struct text *bytes, int vocab, struct ids *out, struct error *err)
{
    if (bytes->len % 4 || !bytes->len)
        return fail(err, STATUS_INPUT, "%s has %zu bytes, expected int32 ids", path, bytes->len);
    for (size_t i = 0; i < bytes->len; i += 4) {
        int32_t id;
        memcpy(&id, bytes->data + i, 4);
        if (id < 0 || id >= vocab)
            return fail(err, STATUS_INPUT, "%s: id %d at position %zu, expected 0 to %d", path, (int)id, i / 4, vocab - 1);
        if (!ids_add(out, id, err))
            return false;
    }
    return true;
}

/* All ids of the source; *packed: windows come as they are, without a BOS of ours. */
static bool source_ids(struct job *j, size_t want, struct ids *ids, bool *packed, struct error *err)
{
    const struct model *m = j->model;
    const char *path = j->o->calib;
    struct text text = { 0 };
    *packed = path && str_ends(path, ".i32");
    if (!*packed && !m->tokenizer)
        return fail(err, STATUS_INPUT, "%s has no tokenizer for calibration text (%s); give ids by --calib FILE.i32", m->path,
                    m->tokenizer_error ? m->tokenizer_error : "none opened");
    if (!path) {
        job_warn(j, "no calibration text given: using the built-in one, which suits no model in particular; "
                    "give text of the kind that the model will see by --calib FILE");
        calibration_text(&text, j->o->seed, want * 5);
    }
    bool ok = path ? file_read(path, 0, &text, err) : text_ok(&text, err);
    if (ok && *packed)
        ok = read_ids(path, &text, m->config.vocab, ids, err);
    else if (ok)
        ok = check_text(path ? path : "built-in", &text, err) &&
             (path && str_ends(path, ".jsonl") ? encode_chats(m, path, text.data, text.len, ids, err)
                                               : encode_text(m->tokenizer, text.data, text.len, ids, err));
    text_free(&text);
    return ok;
}

/* ---- ids to windows ---- */

/* Which n of all windows, in seeded order. */
static bool choose_windows(int *pick, int all, int n, uint64_t seed, struct error *err)
{
    int *order = mem_new((size_t)all, sizeof *order, err);
    if (!order)
        return false;
    for (int i = 0; i < all; i++)
        order[i] = i;
    for (int i = 0; i < n && all > n; i++) {
        int k = i + (int)(random_at(seed, (uint64_t)i) % (uint64_t)(all - i)), t = order[i];
        order[i] = order[k];
        order[k] = t;
    }
    memcpy(pick, order, (size_t)n * sizeof *pick);
    free(order);
    return true;
}

static bool make_windows(struct calibration *c, const struct ids *ids, int bos, uint64_t seed, struct error *err)
{
    int own = c->tokens - (bos >= 0), all = (int)(ids->n / (size_t)own);
    int *pick = mem_new((size_t)c->rows, sizeof *pick, err);
    c->ids = mem_new((size_t)c->rows * (size_t)c->tokens, sizeof *c->ids, err);
    bool ok = pick && c->ids && choose_windows(pick, all, c->rows, seed, err);
    for (int r = 0; ok && r < c->rows; r++) {
        int32_t *to = c->ids + (size_t)r * (size_t)c->tokens;
        if (bos >= 0)
            *to++ = bos;
        memcpy(to, ids->data + (size_t)pick[r] * (size_t)own, (size_t)own * sizeof *to);
    }
    free(pick);
    return ok;
}

/* Rows and tokens that the source can fill, at most what was asked for. */
static bool size_windows(struct job *j, struct calibration *c, size_t n, bool bos, struct error *err)
{
    int asked = c->rows, own = c->tokens - bos;
    if (n < (size_t)own) {
        c->tokens = (int)n + bos;
        own = (int)n;
    }
    if (c->tokens < LEAST_TOKENS)
        return fail(err, STATUS_INPUT, "calibration text %s gives %zu tokens, at least %d are needed", c->name, n, LEAST_TOKENS);
    if ((size_t)c->rows > n / (size_t)own)
        c->rows = (int)(n / (size_t)own);
    if (c->rows < asked)
        job_warn(j, "calibration text %s fills %d windows of %d tokens, %d were asked for", c->name, c->rows, c->tokens, asked);
    return true;
}

bool calibration_load(struct job *j, struct error *err)
{
    const struct quantize_options *o = j->o;
    struct calibration *c = mem_new(1, sizeof *c, err);
    struct ids ids = { 0 };
    bool packed = false;
    j->calibration = c;
    if (!c || !(c->name = str_dup(o->calib ? path_base(o->calib) : "built-in", err)))
        return false;
    c->rows = o->calib_rows > 0 ? o->calib_rows : DEFAULT_ROWS;
    c->tokens = o->calib_tokens > 0 ? o->calib_tokens : DEFAULT_TOKENS;
    if (c->tokens > j->model->config.context)
        c->tokens = j->model->config.context;
    int bos = j->model->tokenizer ? tokenizer_bos(j->model->tokenizer) : -1;
    bool ok = source_ids(j, (size_t)c->rows * (size_t)c->tokens, &ids, &packed, err);
    bos = packed ? -1 : bos;
    ok = ok && size_windows(j, c, ids.n, bos >= 0, err) && make_windows(c, &ids, bos, o->seed, err);
    uint8_t digest[32];
    ok = ok && sha256_bytes(c->ids, (size_t)c->rows * (size_t)c->tokens * sizeof *c->ids, digest, err);
    ids_free(&ids);
    if (!ok)
        return false;
    hex_of(digest, 32, c->sha256);
    text_printf(&j->notes, "calibration=%s\ncalibration.sha256=%s\ncalibration.windows=%d x %d\ncalibration.seed=%llu\n", c->name,
                c->sha256, c->rows, c->tokens, (unsigned long long)o->seed);
    return true;
}

void calibration_free(struct calibration *c)
{
    if (!c)
        return;
    free(c->ids);
    free(c->name);
    free(c);
}

/* ---- the pass ---- */

bool pass_open(struct pass *s, struct job *j, struct error *err)
{
    *s = (struct pass){ .job = j };
    const struct model_config *c = &j->model->config;
    if (!j->calibration && !calibration_load(j, err))
        return false;
    const struct calibration *k = j->calibration;
    size_t rows = (size_t)k->rows * (size_t)k->tokens;
    /* 16-bit activations are within 2e-5 of the true inputs and take half the time against rounded weights */
    struct engine_options o = { .act = ACT_I16, .threads = j->o->threads, .in_place = true, .batch_tokens = BATCH_TOKENS };
    s->kept_step = STEP_END;
    s->group_rows = GROUP_TOKENS / k->tokens > 0 ? GROUP_TOKENS / k->tokens : 1;
    s->groups = (k->rows + s->group_rows - 1) / s->group_rows;
    bool ok = engine_open(&s->engine, j->model, &o, err) &&
              (s->x = mem_new_aligned(rows * (size_t)c->hidden, sizeof(float), err)) != NULL &&
              (s->scratch = mem_new_aligned((size_t)(s->group_rows * k->tokens) * (size_t)c->hidden, sizeof(float), err)) != NULL;
    if (ok && c->ple_size)
        ok = (s->ple = mem_new_aligned(rows * (size_t)c->n_layers * (size_t)c->ple_size, sizeof(float), err)) != NULL;
    ok = ok && engine_stream_embed(s->engine, k->ids, k->rows, k->tokens, s->x, s->ple, err);
    if (!ok)
        pass_close(s);
    return ok;
}

void pass_close(struct pass *s)
{
    if (s->engine)
        engine_stream_end(s->engine);
    engine_close(s->engine);
    free(s->x);
    free(s->ple);
    free(s->scratch);
    free(s->kept);
    *s = (struct pass){ 0 };
}

/* One group of windows: where it begins, and how large it is. */
struct group {
    size_t at, tokens;
    int rows;
    float *x, *ple;
};
static struct group group_of(const struct pass *s, int g)
{
    const struct calibration *k = s->job->calibration;
    const struct model_config *c = &s->job->model->config;
    int first = g * s->group_rows, rows = k->rows - first < s->group_rows ? k->rows - first : s->group_rows;
    size_t at = (size_t)first * (size_t)k->tokens;
    return (struct group){ at, (size_t)rows * (size_t)k->tokens, rows, s->x + at * (size_t)c->hidden,
                           s->ple ? s->ple + at * (size_t)c->n_layers * (size_t)c->ple_size : NULL };
}

void pass_forget(const struct pass *s, int layer)
{
    const struct model *m = s->job->model;
    for (int i = 0; i < m->n_tensors; i++)
        if (tensor_layer(m->tensors[i].name) == layer)
            model_forget(m, &m->tensors[i], 0, m->tensors[i].rows * m->tensors[i].mats);
}

bool pass_layer(struct pass *s, int layer, const struct engine_tap *tap, bool keep, const char *what, struct error *err)
{
    const struct calibration *k = s->job->calibration;
    const struct model_config *c = &s->job->model->config;
    engine_set_tap(s->engine, tap);
    bool ok = true;
    for (int g = 0; ok && g < s->groups; g++) {
        struct group w = group_of(s, g);
        float *x = keep ? w.x : s->scratch;
        if (!keep)
            memcpy(x, w.x, w.tokens * (size_t)c->hidden * sizeof *x);
        engine_stream_group(s->engine, g);
        ok = engine_stream_layer(s->engine, layer, w.rows, k->tokens, x, w.ple, err);
        if (s->groups > 8 && g % 4 == 0)
            job_progress(s->job, what, layer, c->n_layers);
    }
    engine_set_tap(s->engine, NULL);
    if (keep)
        pass_forget(s, layer);
    return ok && (!keep || pass_check(s, layer, err));
}

/* ---- step by step ---- */

static void keep_rows(void *ctx, const char *name, int expert, const float *x, int n, int64_t cols, size_t ld)
{
    struct pass *s = ctx;
    for (int i = 0; i < n; i++, s->row++)
        memcpy(s->kept + s->row * s->kept_cols, x + (size_t)i * ld, (size_t)cols * sizeof *x);
    if (s->tap)
        s->tap->see(s->tap->ctx, name, expert, x, n, cols, ld);
}

/* Columns of the inputs that the next step can go on with, 0 where there are none or they take too much memory. */
static size_t columns_kept(const struct pass *s, int layer, enum layer_step step)
{
    const struct model_config *c = &s->job->model->config;
    const struct layer_config *l = &c->layers[layer];
    const struct calibration *k = s->job->calibration;
    size_t cols = step == STEP_O ? (size_t)c->n_heads * (size_t)l->head_size :
                  step == STEP_DOWN && l->moe == MOE_NONE ? (size_t)l->ffn_size : 0;
    return cols * (size_t)k->rows * (size_t)k->tokens * sizeof(float) <= s->memory ? cols : 0;
}

static bool kept_open(struct pass *s, size_t cols, struct error *err)
{
    size_t need = cols * (size_t)s->job->calibration->rows * (size_t)s->job->calibration->tokens;
    s->kept_step = STEP_END;
    s->kept_cols = cols;
    if (need > s->kept_room) {
        free(s->kept);
        s->kept_room = 0;
        s->kept = mem_new_aligned(need, sizeof *s->kept, err);
        s->kept_room = s->kept ? need : 0;
    }
    return !need || s->kept;
}

bool pass_step_begin(struct pass *s, int layer, enum layer_step step, const struct engine_tap *tap, struct error *err)
{
    s->from = s->kept_step < step && s->kept_step >= s->stream ? s->kept_step : s->stream;
    s->to = step;
    s->next_cols = s->from == s->stream ? columns_kept(s, layer, step) : 0;
    s->tap = tap;
    s->row = 0;
    return s->from != s->stream || kept_open(s, s->next_cols, err);
}

bool pass_step_group(struct pass *s, int layer, int group, struct error *err)
{
    const struct engine_tap keeper = { keep_rows, s };
    struct group w = group_of(s, group);
    struct layer_part part = { s->from, s->to, s->from == s->stream ? NULL : s->kept + w.at * s->kept_cols };
    engine_set_tap(s->engine, s->next_cols ? &keeper : s->tap);
    engine_stream_group(s->engine, group);
    bool ok = engine_stream_part(s->engine, layer, &part, w.rows, s->job->calibration->tokens, w.x, w.ple, err);
    engine_set_tap(s->engine, NULL);
    if (s->groups > 8 && group % 4 == 0)
        job_progress(s->job, "calibrate", layer, s->job->model->config.n_layers);
    return ok;
}

void pass_step_end(struct pass *s)
{
    enum layer_step step = s->to;
    s->kept_step = s->next_cols ? step : STEP_END;
    s->stream = step == STEP_END ? STEP_QKV : step >= STEP_PLE_GATE ? STEP_PLE_GATE : step >= STEP_FFN ? STEP_FFN : STEP_QKV;
}

bool pass_step(struct pass *s, int layer, enum layer_step step, const struct engine_tap *tap, struct error *err)
{
    bool ok = pass_step_begin(s, layer, step, tap, err);
    for (int g = 0; ok && g < s->groups; g++)
        ok = pass_step_group(s, layer, g, err);
    pass_step_end(s);
    return ok && (step != STEP_END || pass_check(s, layer, err));
}

bool pass_check(const struct pass *s, int layer, struct error *err)
{
    const struct calibration *k = s->job->calibration;
    size_t d = (size_t)s->job->model->config.hidden, n = (size_t)k->rows * (size_t)k->tokens * d;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(s->x[i]))
            return fail(err, STATUS_INPUT, "layer %d: the residual stream holds %g after it (window %zu, token %zu)", layer,
                        (double)s->x[i], i / d / (size_t)k->tokens, i / d % (size_t)k->tokens);
    return true;
}
