/* gptq.c - calibrated rounding of a whole model, layer by layer.
 *
 * Every matrix is rounded against the inputs it will really see: upstream layers are already rounded, and inside a
 * layer q, k, v come before the attention output, that before gate and up, those before down (true-sequential).  No
 * product is made with weights that are about to be rounded: a step's inputs come of rounded weights alone, so the
 * calibration tokens go through each layer once, or a second time where the inputs of a step cannot be kept.
 *
 * With drift the unrounded model goes alongside, and each matrix is fitted to the outputs that it has there: it makes up
 * for what the rounding before it did to its inputs, as far as they tell (asymmetric calibration; solve.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "blocks.h"
#include "calibrate.h"
#include "gptq.h"
#include "solve.h"

/* ---- which matrices share an input, and when they are taken ---- */

static const struct {
    const char *suffix, *leader;        /* the leader's inputs are the group's */
    enum layer_step step;
} members[] = {
    { "attn_q.weight", "attn_q.weight", STEP_QKV },
    { "attn_k.weight", "attn_q.weight", STEP_QKV },
    { "attn_v.weight", "attn_q.weight", STEP_QKV },
    { "attn_output.weight", "attn_output.weight", STEP_O },
    { "ffn_gate.weight", "ffn_gate.weight", STEP_FFN },
    { "ffn_up.weight", "ffn_gate.weight", STEP_FFN },
    { "ffn_gate_up_exps.weight", "ffn_gate_up_exps.weight", STEP_FFN },
    { "ffn_gate_exps.weight", "ffn_gate_exps.weight", STEP_FFN },
    { "ffn_up_exps.weight", "ffn_gate_exps.weight", STEP_FFN },
    { "ffn_down.weight", "ffn_down.weight", STEP_DOWN },
    { "ffn_down_exps.weight", "ffn_down_exps.weight", STEP_DOWN },
    { "inp_gate.weight", "inp_gate.weight", STEP_PLE_GATE },
    { "proj.weight", "proj.weight", STEP_PLE_PROJ },
};

static int member_of(const char *name)
{
    const char *dot = str_starts(name, "blk.") ? strchr(name + 4, '.') : NULL;
    for (size_t i = 0; dot && i < ARRAY_LEN(members); i++)
        if (strcmp(dot + 1, members[i].suffix) == 0)
            return (int)i;
    return -1;
}

/* ---- captured inputs ---- */

struct unit {                   /* one Hessian: a leader's matrix */
    const char *leader;         /* suffix */
    struct part *part;          /* the leader, or the first member that is there */
    int64_t mat;
    struct hessian h;
    float *want;                /* unrounded model: inputs of the group of windows at hand, where drift is kept */
    int shown, used;            /* rows of it */
};
struct capture {
    struct job *job;
    int layer;
    struct unit *units;
    int n, from, to;            /* those that this pass fills */
};

static void see(void *ctx, const char *name, int expert, const float *x, int n, int64_t cols, size_t ld)
{
    struct capture *c = ctx;
    for (int i = c->from; i < c->to; i++) {
        struct unit *u = &c->units[i];
        if (u->mat != (expert > 0 ? expert : 0) || strcmp(u->part->source->name, name))
            continue;
        hessian_add(&u->h, c->job->pool, x, n, ld);
        if (u->want)
            hessian_add_drift(&u->h, c->job->pool, x, ld, u->want + (size_t)u->used * (size_t)cols, (size_t)cols, n);
        u->used += n;
    }
}

/* The unrounded model's inputs, of the same tokens in the same order. */
static void see_wanted(void *ctx, const char *name, int expert, const float *x, int n, int64_t cols, size_t ld)
{
    struct capture *c = ctx;
    for (int i = c->from; expert < 0 && i < c->to; i++) {
        struct unit *u = &c->units[i];
        if (!u->want || strcmp(u->part->source->name, name))
            continue;
        for (int r = 0; r < n; r++, u->shown++)
            memcpy(u->want + (size_t)u->shown * (size_t)cols, x + (size_t)r * ld, (size_t)cols * sizeof *x);
    }
}

/* ---- settings ---- */

struct plan {
    struct solve_options solve;
    double memory;              /* bytes for Hessians of one pass, and as many for kept inputs */
    struct pass *unrounded;     /* the model as it was, in step with the pass; NULL: drift is not looked at */
};

/* Making up for drift takes the calibration tokens through the unrounded layers as well: as a rule where that is
 * minutes at most. */
static bool drift_is_quick(const struct job *j)
{
    double weights = 0, tokens = (double)j->calibration->rows * j->calibration->tokens;
    for (int i = 0; i < j->n_parts; i++)
        if (j->parts[i].matrix)
            weights += (double)(j->parts[i].source->cols * j->parts[i].source->rows * j->parts[i].source->mats);
    return 2 * weights * tokens < 2e13;
}

static struct plan read_plan(const struct job *j)
{
    enum algorithm algorithm = (enum algorithm)setting_word(j, "algorithm");
    int drift = setting_word(j, "drift");       /* auto, 1, 0 */
    return (struct plan){
        .solve = { .algorithm = algorithm, .act_order = setting_word(j, "order") == 0, .damp = setting_number(j, "damp"),
                   .shrink = setting_number(j, "shrink"), .passes = (int)setting_number(j, "cd"),
                   .searches = (int)setting_number(j, "search"),
                   .drift = algorithm != ALGORITHM_RTN && (drift == 1 || (drift == 0 && drift_is_quick(j))) },
        .memory = setting_number(j, "memory") * 1048576,
    };
}

/* ---- one matrix ---- */

static void decode_error(const struct part *p, const float *w, int64_t mat, double *error, double *power)
{
    const struct tensor *t = p->source;
    int64_t bytes = format_row_bytes(p->to, t->cols);
    float *back = malloc((size_t)t->cols * sizeof *back);
    for (int64_t r = 0; back && r < t->rows; r++) {
        formats[p->to].to_f32(p->data + (mat * t->rows + r) * bytes, back, t->cols);
        for (int64_t c = 0; c < t->cols; c++) {
            double x = (double)w[r * t->cols + c], e = x - (double)back[c];
            *error += e * e;
            *power += x * x;
        }
    }
    free(back);
}

/* Formats without a grid of ours (Q6_K in the mixed recipes, fallbacks): the format's own search, weighted by diag(H). */
static bool weighted_matrix(struct part *p, const float *w, int64_t mat, const struct hessian *h, struct error *err)
{
    const struct tensor *t = p->source;
    int64_t bytes = format_row_bytes(p->to, t->cols);
    float *importance = mem_new((size_t)t->cols, sizeof *importance, err);
    if (!importance)
        return false;
    for (int64_t c = 0; c < t->cols; c++)
        importance[c] = h->tokens ? (float)h->h[(size_t)c * h->ld + (size_t)c] : 1;
    for (int64_t r = 0; r < t->rows; r++)
        quantize_row(p->to, w + r * t->cols, importance, p->data + (mat * t->rows + r) * bytes, t->cols);
    free(importance);
    return true;
}

static void note_fallback(struct job *j, struct part *p, int64_t mat, const char *what, const struct hessian *h)
{
    text_printf(&j->fallbacks, "%s[%lld]: %s (%lld tokens, %d columns)\n", p->source->name, (long long)mat, what, (long long)h->tokens, h->n);
    job_warn(j, "%s, matrix %lld: %s; it saw %lld tokens for %d columns", p->source->name, (long long)mat, what, (long long)h->tokens, h->n);
}

static bool round_matrix(struct job *j, const struct plan *plan, struct part *p, int64_t mat, const float *w,
                         const struct hessian *h, double *loss, struct error *err)
{
    const struct tensor *t = p->source;
    const struct grid *g = grid_find(p->to, j->format);
    uint64_t bytes = (uint64_t)(t->rows * format_row_bytes(p->to, t->cols));
    struct solve_options o = plan->solve;
    struct solution s;
    if (!g) {
        p->method = "rtn imatrix";
        *loss = NAN;
        return weighted_matrix(p, w, mat, h, err);
    }
    if (t->mats > 1 && h->tokens < 4 * h->n && o.algorithm == ALGORITHM_GPTQ) {
        o.algorithm = ALGORITHM_RTN;            /* a rare expert: its inputs tell sizes, not correlations */
        note_fallback(j, p, mat, h->tokens < 32 ? "scales by importance only, the expert was hardly called" :
                                                  "scales by importance only, the expert was rarely called", h);
    }
    if (!solve_matrix(g, w, (int)t->rows, (int)t->cols, h, &o, j->pool, &s, err))
        return fail_in(err, "%s", t->name);
    memcpy(p->data + (uint64_t)mat * bytes, s.bytes, bytes);
    free(s.bytes);
    static const char *const names[] = { "gptq", "cd", "rtn diag" };
    p->method = names[o.algorithm];
    if (o.algorithm == ALGORITHM_GPTQ && !s.factored) {
        p->method = "fallback cd";
        note_fallback(j, p, mat, "no factorisation up to damp 1, coordinate descent instead", h);
    }
    if (s.subnormal)
        job_warn(j, "%s: %lld blocks have an fp16 scale below 2^-14", t->name, (long long)s.subnormal);
    *loss = s.loss;
    return true;
}

/* All members of a unit's group, for its matrix number. */
static bool round_group(struct job *j, const struct plan *plan, struct unit *u, int layer, struct error *err)
{
    bool ok = true;
    if (!hessian_finish(&u->h))
        return fail(err, STATUS_INPUT, "layer %d: the inputs of %s are not all finite", layer, u->part->source->name);
    for (int i = 0; ok && i < j->n_parts; i++) {
        struct part *p = &j->parts[i];
        int k = p->layer == layer && p->matrix ? member_of(p->source->name) : -1;
        if (k < 0 || strcmp(members[k].leader, u->leader) || u->mat >= p->source->mats)
            continue;
        const struct tensor *t = p->source;
        float *w = mem_new_aligned((size_t)(t->rows * t->cols), sizeof *w, err);
        double loss = NAN, error = 0, power = 0;
        if (!p->data)
            p->data = mem_new((size_t)(t->rows * t->mats), (size_t)format_row_bytes(p->to, t->cols), err);
        ok = w && p->data && part_matrix(j, p, u->mat, w, err) && round_matrix(j, plan, p, u->mat, w, &u->h, &loss, err);
        if (ok) {
            decode_error(p, w, u->mat, &error, &power);
            double rms = power > 0 ? sqrt(error / power) : 0, share = 1.0 / (double)t->mats;
            p->rms = (u->mat ? p->rms : 0) + rms * share;
            p->loss = (u->mat ? p->loss : 0) + loss * share;
        }
        free(w);
    }
    return ok;
}

/* ---- one step ---- */

static bool list_units(struct job *j, int layer, enum layer_step step, struct unit **out, int *n, struct error *err)
{
    size_t cap = 0;
    *out = NULL;
    *n = 0;
    for (int i = 0; i < j->n_parts; i++) {
        struct part *p = &j->parts[i];
        int k = p->layer == layer && p->matrix ? member_of(p->source->name) : -1;
        if (k < 0 || members[k].step != step)
            continue;
        bool have = false;
        for (int u = 0; u < *n; u++)
            have |= strcmp((*out)[u].leader, members[k].leader) == 0;
        for (int64_t m = 0; !have && m < p->source->mats; m++) {
            if (!mem_grow(out, &cap, (size_t)*n + 1, sizeof **out, err))
                return false;
            (*out)[(*n)++] = (struct unit){ .leader = members[k].leader, .part = p, .mat = m };
        }
    }
    return true;
}

static bool unit_open(struct unit *u, const struct pass *s, const struct plan *plan, struct error *err)
{
    int n = (int)u->part->source->cols;
    bool drift = plan->unrounded && u->part->source->mats == 1;     /* experts are called by other tokens in each stream */
    return hessian_open(&u->h, n, err) &&
           (!drift || (hessian_open_drift(&u->h, err) &&
                       (u->want = mem_new((size_t)s->group_rows * (size_t)s->job->calibration->tokens * (size_t)n, sizeof *u->want, err))));
}

static void unit_close(struct unit *u)
{
    hessian_close(&u->h);
    free(u->want);
    u->want = NULL;
}

/* Both passes through a step, group by group; without an unrounded one this is pass_step. */
static bool capture_step(struct capture *c, struct pass *s, struct pass *unrounded, int layer, enum layer_step step, struct error *err)
{
    const struct engine_tap tap = { see, c }, wanted = { see_wanted, c };
    bool ok = pass_step_begin(s, layer, step, &tap, err) && (!unrounded || pass_step_begin(unrounded, layer, step, &wanted, err));
    for (int g = 0; ok && g < s->groups; g++) {
        for (int u = c->from; u < c->to; u++)
            c->units[u].shown = c->units[u].used = 0;
        ok = (!unrounded || pass_step_group(unrounded, layer, g, err)) && pass_step_group(s, layer, g, err);
    }
    pass_step_end(s);
    if (unrounded)
        pass_step_end(unrounded);
    return ok;
}

/* As many units as fit into memory are captured in one pass over the calibration tokens, then rounded. */
static bool run_step(struct job *j, struct pass *s, const struct plan *plan, int layer, enum layer_step step, struct error *err)
{
    struct capture c = { .job = j, .layer = layer };
    bool ok = list_units(j, layer, step, &c.units, &c.n, err);
    for (c.from = 0; ok && c.from < c.n; c.from = c.to) {
        double used = 0;
        for (c.to = c.from; ok && c.to < c.n; c.to++) {
            double n = (double)c.units[c.to].part->source->cols, need = (plan->unrounded ? 16 : 8) * n * n;
            if (c.to > c.from && used + need > plan->memory)
                break;
            used += need;
            ok = unit_open(&c.units[c.to], s, plan, err);
        }
        ok = ok && capture_step(&c, s, plan->unrounded, layer, step, err);
        for (int u = c.from; u < c.to; u++) {
            ok = ok && round_group(j, plan, &c.units[u], layer, err);
            unit_close(&c.units[u]);
        }
    }
    free(c.units);
    return ok;
}

/* From here on the engine multiplies with what was written. */
static bool replace_step(struct job *j, struct pass *s, int layer, enum layer_step step, struct error *err)
{
    for (int i = 0; i < j->n_parts; i++) {
        struct part *p = &j->parts[i];
        int k = p->layer == layer && p->data ? member_of(p->source->name) : -1;
        if (k < 0 || members[k].step != step)
            continue;
        struct tensor t = *p->source;
        t.format = p->to;
        t.data = p->data;
        t.bytes = (uint64_t)(t.rows * t.mats) * (uint64_t)format_row_bytes(p->to, t.cols);
        t.col_perm = NULL;
        if (!engine_replace(s->engine, &t, err))
            return false;
    }
    return true;
}

bool gptq_prepare(struct job *j, struct error *err)
{
    struct pass s = { 0 }, unrounded = { 0 };
    struct plan plan = { 0 };
    int layers = j->model->config.n_layers;
    bool ok = pass_open(&s, j, err);
    if (ok) {
        plan = read_plan(j);
        s.memory = (uint64_t)plan.memory;
    }
    if (ok && plan.solve.drift) {
        ok = pass_open(&unrounded, j, err);
        plan.unrounded = &unrounded;
    }
    for (int l = 0; ok && l < layers; l++) {
        job_progress(j, "quantize layer", l, layers);
        for (enum layer_step step = STEP_QKV; ok && step < STEP_END; step++)
            ok = run_step(j, &s, &plan, l, step, err) && replace_step(j, &s, l, step, err);
        if (ok && l + 1 < layers)
            ok = pass_step(&s, l, STEP_END, NULL, err) && (!plan.unrounded || pass_step(&unrounded, l, STEP_END, NULL, err));
        engine_drop_layer(s.engine, l);
        if (plan.unrounded)
            engine_drop_layer(unrounded.engine, l);
        ok = ok && job_write(j, l, err);
    }
    pass_close(&s);
    pass_close(&unrounded);
    if (ok)
        text_printf(&j->notes, "drift=%d\n", plan.solve.drift);
    return ok;
}
