/* weights.c - which tensors a layer has follows from the switches of model_config, row by row. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum dim { DIM_ONE, DIM_HIDDEN, DIM_Q, DIM_KV, DIM_HEAD, DIM_FFN, DIM_PLE, DIM_EXPERTS, DIM_EXPERT_FFN, DIM_EXPERT_FFN2 };
enum kind { MATRIX, STACK, VECTOR };
enum need {
    ALWAYS = 0,
    OWN_KV = 1 << 0, OWN_V = 1 << 1, QK_NORM = 1 << 2, BIAS = 1 << 3, SANDWICH = 1 << 4, DENSE = 1 << 5, MOE = 1 << 6,
    MOE_GEMMA = 1 << 7, PLE = 1 << 8, SCALE = 1 << 9, FUSED = 1 << 10, SPLIT = 1 << 11,
};

struct weight_row {
    const char *name;           /* after "blk.N." */
    enum kind kind;
    size_t at;                  /* in struct layer */
    enum dim rows, cols;
    unsigned needs;             /* all of these switches must be on */
};
#define AT(field) offsetof(struct layer, field)

static const struct weight_row layer_rows[] = {
    { "attn_norm.weight",           VECTOR, AT(attn_norm),      DIM_ONE, DIM_HIDDEN, ALWAYS },
    { "attn_q.weight",              MATRIX, AT(q),              DIM_Q, DIM_HIDDEN, ALWAYS },
    { "attn_k.weight",              MATRIX, AT(k),              DIM_KV, DIM_HIDDEN, OWN_KV },
    { "attn_v.weight",              MATRIX, AT(v),              DIM_KV, DIM_HIDDEN, OWN_V },
    { "attn_q.bias",                VECTOR, AT(q_bias),         DIM_ONE, DIM_Q, BIAS },
    { "attn_k.bias",                VECTOR, AT(k_bias),         DIM_ONE, DIM_KV, BIAS | OWN_KV },
    { "attn_v.bias",                VECTOR, AT(v_bias),         DIM_ONE, DIM_KV, BIAS | OWN_V },
    { "attn_q_norm.weight",         VECTOR, AT(q_norm),         DIM_ONE, DIM_HEAD, QK_NORM },
    { "attn_k_norm.weight",         VECTOR, AT(k_norm),         DIM_ONE, DIM_HEAD, QK_NORM | OWN_KV },
    { "attn_output.weight",         MATRIX, AT(o),              DIM_HIDDEN, DIM_Q, ALWAYS },
    { "post_attention_norm.weight", VECTOR, AT(post_attn_norm), DIM_ONE, DIM_HIDDEN, SANDWICH },
    { "ffn_norm.weight",            VECTOR, AT(ffn_norm),       DIM_ONE, DIM_HIDDEN, ALWAYS },
    { "ffn_gate.weight",            MATRIX, AT(gate),           DIM_FFN, DIM_HIDDEN, DENSE },
    { "ffn_up.weight",              MATRIX, AT(up),             DIM_FFN, DIM_HIDDEN, DENSE },
    { "ffn_down.weight",            MATRIX, AT(down),           DIM_HIDDEN, DIM_FFN, DENSE },
    { "post_ffw_norm.weight",       VECTOR, AT(post_ffn_norm),  DIM_ONE, DIM_HIDDEN, SANDWICH },
    { "ffn_gate_inp.weight",        MATRIX, AT(router),         DIM_EXPERTS, DIM_HIDDEN, MOE },
    { "ffn_gate_inp.scale",         VECTOR, AT(router_scale),   DIM_ONE, DIM_HIDDEN, MOE_GEMMA },
    { "ffn_gate_up_exps.weight",    STACK,  AT(gate_up_exps),   DIM_EXPERT_FFN2, DIM_HIDDEN, MOE | FUSED },
    { "ffn_gate_exps.weight",       STACK,  AT(gate_exps),      DIM_EXPERT_FFN, DIM_HIDDEN, MOE | SPLIT },
    { "ffn_up_exps.weight",         STACK,  AT(up_exps),        DIM_EXPERT_FFN, DIM_HIDDEN, MOE | SPLIT },
    { "ffn_down_exps.weight",       STACK,  AT(down_exps),      DIM_HIDDEN, DIM_EXPERT_FFN, MOE },
    { "ffn_down_exps.scale",        VECTOR, AT(expert_scale),   DIM_ONE, DIM_EXPERTS, MOE_GEMMA },
    { "pre_ffw_norm_2.weight",      VECTOR, AT(pre_ffn_norm_2), DIM_ONE, DIM_HIDDEN, MOE_GEMMA },
    { "post_ffw_norm_1.weight",     VECTOR, AT(post_ffn_norm_1), DIM_ONE, DIM_HIDDEN, MOE_GEMMA | DENSE },
    { "post_ffw_norm_2.weight",     VECTOR, AT(post_ffn_norm_2), DIM_ONE, DIM_HIDDEN, MOE_GEMMA },
    { "inp_gate.weight",            MATRIX, AT(ple_gate),       DIM_PLE, DIM_HIDDEN, PLE },
    { "proj.weight",                MATRIX, AT(ple_proj),       DIM_HIDDEN, DIM_PLE, PLE },
    { "post_norm.weight",           VECTOR, AT(ple_norm),       DIM_ONE, DIM_HIDDEN, PLE },
    { "layer_output_scale.weight",  VECTOR, AT(out_scale),      DIM_ONE, DIM_ONE, SCALE },
};

static struct matrix *matrix_at(struct layer *l, const struct weight_row *r)
{
    return (struct matrix *)(void *)((char *)l + r->at);
}

static struct vector *vector_at(struct layer *l, const struct weight_row *r)
{
    return (struct vector *)(void *)((char *)l + r->at);
}

static int64_t dim_of(const struct model_config *c, const struct layer_config *l, enum dim d)
{
    const int64_t sizes[] = {
        [DIM_ONE] = 1, [DIM_HIDDEN] = c->hidden, [DIM_Q] = (int64_t)c->n_heads * l->head_size,
        [DIM_KV] = (int64_t)l->n_kv_heads * l->head_size, [DIM_HEAD] = l->head_size, [DIM_FFN] = l->ffn_size,
        [DIM_PLE] = c->ple_size, [DIM_EXPERTS] = l->n_experts, [DIM_EXPERT_FFN] = l->expert_ffn_size,
        [DIM_EXPERT_FFN2] = 2 * (int64_t)l->expert_ffn_size,
    };
    return sizes[d];
}

static unsigned switches_of(const struct engine *e, const struct layer *l, bool fused)
{
    const struct model_config *c = e->c;
    unsigned on = fused ? FUSED : SPLIT;
    on |= l->owns_kv ? OWN_KV : 0;
    on |= l->owns_kv && !l->c->v_from_k ? OWN_V : 0;
    on |= c->qk_norm ? QK_NORM : 0;
    on |= c->qkv_bias ? BIAS : 0;
    on |= c->sandwich_norms ? SANDWICH : 0;
    on |= l->c->ffn_size > 0 ? DENSE : 0;
    on |= l->c->moe != MOE_NONE ? MOE : 0;
    on |= l->c->moe == MOE_GEMMA4 ? MOE_GEMMA : 0;
    on |= c->ple_size > 0 ? PLE : 0;
    on |= c->layer_scale ? SCALE : 0;
    return on;
}

static bool vector_load(struct vector *v, const struct tensor *t, struct error *err)
{
    float *w = mem_new_aligned((size_t)t->cols, sizeof *w, err);
    if (!w)
        return false;
    tensor_row(t, 0, 0, w);
    free(v->w);
    *v = (struct vector){ w, t };
    return true;
}

/* Opening a file reads no weights, so here is where a scale that is not finite first shows. */
struct scale_check {
    const struct tensor *t;
    int64_t per_job;
    bool *bad;                  /* [jobs] */
};

static void check_job(void *ctx, int i, int thread)
{
    (void)thread;
    struct scale_check *c = ctx;
    int64_t first = i * c->per_job, left = c->t->rows * c->t->mats - first;
    struct error ignored;
    c->bad[i] = !tensor_check_scales(c->t, first, left < c->per_job ? left : c->per_job, &ignored);
}

static bool scales_check(struct engine *e, const struct tensor *t, struct error *err)
{
    enum { JOBS = 64 };
    bool bad[JOBS] = { 0 };
    int64_t rows = t->rows * t->mats;
    struct scale_check c = { t, (rows + JOBS - 1) / JOBS, bad };
    if (!formats[t->format].quantized)
        return true;
    pool_run(pool_for(e, (double)rows * (double)t->cols / 16), (int)((rows + c.per_job - 1) / c.per_job), check_job, &c);
    for (int i = 0; i < JOBS; i++)
        if (bad[i])
            return tensor_check_scales(t, i * c.per_job, c.per_job < rows - i * c.per_job ? c.per_job : rows - i * c.per_job, err);
    return true;
}

/* Rows of the embeddings are read one by one, and most of them never. */
bool embedding_check(const struct engine *e, int32_t id, struct error *err)
{
    const struct global_weights *g = &e->g;
    bool checked = e->c->tied_output;   /* the same tensor is the head */
    return (checked || tensor_check_scales(g->embed, id, 1, err)) && (!g->ple_embed || tensor_check_scales(g->ple_embed, id, 1, err));
}

static bool matrix_load(struct engine *e, struct matrix *w, const struct tensor *t, bool in_place, struct error *err)
{
    return scales_check(e, t, err) && (matrix_open(w, e->k, t, e->act, in_place, e->pool, err) || fail_in(err, "%s", t->name));
}

static bool vector_find(struct engine *e, const char *name, int64_t cols, struct vector *out, struct error *err)
{
    const struct tensor *t;
    return model_tensor(e->m, name, 1, cols, 1, &t, err) && vector_load(out, t, err);
}

static bool matrix_find(struct engine *e, const char *name, int64_t rows, int64_t cols, int64_t mats,
                        struct matrix *out, struct error *err)
{
    const struct tensor *t;
    return model_tensor(e->m, name, rows, cols, mats, &t, err) && matrix_load(e, out, t, e->in_place, err);
}

static bool layer_weight(struct engine *e, struct layer *l, const struct weight_row *r, struct error *err)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.%s", l->index, r->name);
    int64_t rows = dim_of(e->c, l->c, r->rows), cols = dim_of(e->c, l->c, r->cols);
    if (r->kind == VECTOR)
        return vector_find(e, name, cols, vector_at(l, r), err);
    return matrix_find(e, name, rows, cols, r->kind == STACK ? l->c->n_experts : 1, matrix_at(l, r), err);
}

/* The router's input is rms(x) * scale * hidden^-0.5: one weight vector does both products. */
static void router_prepare(struct layer *l, int hidden)
{
    float by = (float)(1.0 / sqrt((double)hidden));
    for (int i = 0; l->router_scale.w && i < hidden; i++)
        l->router_scale.w[i] *= by;
}

static bool layer_open(struct engine *e, struct layer *l, struct error *err)
{
    char name[64];
    snprintf(name, sizeof name, "blk.%d.ffn_gate_up_exps.weight", l->index);
    unsigned on = switches_of(e, l, model_find(e->m, name) != NULL);
    for (size_t i = 0; i < ARRAY_LEN(layer_rows); i++)
        if ((layer_rows[i].needs & on) == layer_rows[i].needs && !layer_weight(e, l, &layer_rows[i], err))
            return false;
    router_prepare(l, e->c->hidden);
    return true;
}

static bool kv_layout(struct engine *e, struct error *err)
{
    e->slots = mem_new((size_t)e->c->n_layers, sizeof *e->slots, err);
    e->free_blocks = mem_new((size_t)e->c->n_layers, sizeof *e->free_blocks, err);
    if (!e->slots || !e->free_blocks)
        return false;
    for (int i = 0; i < e->c->n_layers; i++) {
        struct layer *l = &e->layers[i];
        int from = l->c->kv_source;
        if (from < 0 || from > i || (from != i && !e->layers[from].owns_kv))
            return fail(err, STATUS_FORMAT, "layer %d reads the K/V of layer %d, which has none before it", i, from);
        if (l->c->sliding && l->c->window > e->window_max)
            e->window_max = l->c->window;
        l->owns_kv = from == i;
        if (!l->owns_kv) {
            l->kv_slot = e->layers[from].kv_slot;
            e->layers[from].is_donor = true;
            continue;
        }
        size_t floats = 2 * (size_t)KV_BLOCK * (size_t)l->c->n_kv_heads * (size_t)l->c->head_size;
        int class = 0;
        while (class < e->n_classes && e->free_blocks[class].block_floats != floats)
            class++;
        if (class == e->n_classes)
            e->free_blocks[e->n_classes++].block_floats = floats;
        l->kv_slot = e->n_slots;
        e->slots[e->n_slots++] = (struct kv_slot){ i, l->c->n_kv_heads, l->c->head_size, l->c->sliding, floats, class };
    }
    return true;
}

static bool globals_open(struct engine *e, struct error *err)
{
    const struct model_config *c = e->c;
    struct global_weights *g = &e->g;
    if (!model_tensor(e->m, "token_embd.weight", c->vocab, c->hidden, 1, &g->embed, err) ||
        !vector_find(e, "output_norm.weight", c->hidden, &g->out_norm, err) ||
        !matrix_find(e, c->tied_output ? "token_embd.weight" : "output.weight", c->vocab, c->hidden, 1, &g->head, err))
        return false;
    if (!c->ple_size)
        return true;
    int64_t wide = (int64_t)c->n_layers * c->ple_size;
    return model_tensor(e->m, "per_layer_token_embd.weight", c->vocab, wide, 1, &g->ple_embed, err) &&
           matrix_find(e, "per_layer_model_proj.weight", wide, c->hidden, 1, &g->ple_proj, err) &&
           vector_find(e, "per_layer_proj_norm.weight", c->ple_size, &g->ple_norm, err);
}

bool weights_open(struct engine *e, struct error *err)
{
    e->layers = mem_new((size_t)e->c->n_layers, sizeof *e->layers, err);
    if (!e->layers)
        return false;
    for (int i = 0; i < e->c->n_layers; i++) {
        e->layers[i].c = &e->c->layers[i];
        e->layers[i].index = i;
    }
    if (!kv_layout(e, err) || !globals_open(e, err))
        return false;
    for (int i = 0; i < e->c->n_layers; i++)
        if (!layer_open(e, &e->layers[i], err))
            return false;
    return true;
}

void weights_close(struct engine *e)
{
    for (int i = 0; e->layers && i < e->c->n_layers; i++)
        for (size_t r = 0; r < ARRAY_LEN(layer_rows); r++)
            if (layer_rows[r].kind == VECTOR)
                free(vector_at(&e->layers[i], &layer_rows[r])->w);
            else
                matrix_close(matrix_at(&e->layers[i], &layer_rows[r]));
    free(e->layers);
    matrix_close(&e->g.head);
    matrix_close(&e->g.ple_proj);
    free(e->g.out_norm.w);
    free(e->g.ple_norm.w);
    free(e->slots);
    free(e->free_blocks);
    for (size_t i = 0; i < e->n_replaced; i++)
        free(e->replaced[i]);
    free(e->replaced);
}

void engine_drop_layer(struct engine *e, int layer)
{
    for (size_t r = 0; r < ARRAY_LEN(layer_rows); r++)
        if (layer_rows[r].kind != VECTOR)
            matrix_close(matrix_at(&e->layers[layer], &layer_rows[r]));
}

uint64_t weights_bytes(const struct engine *e)
{
    uint64_t sum = e->g.head.packed_bytes + e->g.ple_proj.packed_bytes;
    for (int i = 0; e->layers && i < e->c->n_layers; i++)
        for (size_t r = 0; r < ARRAY_LEN(layer_rows); r++) {
            struct layer *l = &e->layers[i];
            if (layer_rows[r].kind != VECTOR)
                sum += matrix_at(l, &layer_rows[r])->packed_bytes;
            else if (vector_at(l, &layer_rows[r])->w)
                sum += (uint64_t)vector_at(l, &layer_rows[r])->t->cols * sizeof(float);
        }
    return sum;
}

/* ---- replacing one tensor ---- */

static bool same_shape(const struct tensor *a, const struct tensor *b)
{
    return a->rows == b->rows && a->cols == b->cols && a->mats == b->mats;
}

static bool matrix_swap(struct engine *e, struct matrix *w, const struct tensor *t, struct error *err)
{
    struct matrix fresh = { 0 };
    if (!matrix_load(e, &fresh, t, false, err))
        return false;
    matrix_close(w);
    *w = fresh;
    return true;
}

static bool swap_in_layer(struct engine *e, struct layer *l, const struct tensor *t, int *found, struct error *err)
{
    for (size_t r = 0; r < ARRAY_LEN(layer_rows); r++) {
        const struct weight_row *row = &layer_rows[r];
        const struct tensor *old = row->kind == VECTOR ? vector_at(l, row)->t : matrix_at(l, row)->t;
        if (!old || strcmp(old->name, t->name) != 0)
            continue;
        ++*found;
        if (row->kind != VECTOR)
            return matrix_swap(e, matrix_at(l, row), t, err);
        if (!vector_load(vector_at(l, row), t, err))
            return false;
        if (row->at == AT(router_scale))
            router_prepare(l, e->c->hidden);
        return true;
    }
    return true;
}

static bool swap_global(struct engine *e, const struct tensor *t, int *found, struct error *err)
{
    struct global_weights *g = &e->g;
    const struct tensor **tables[] = { &g->embed, &g->ple_embed };
    struct matrix *matrices[] = { &g->head, &g->ple_proj };
    struct vector *vectors[] = { &g->out_norm, &g->ple_norm };
    for (size_t i = 0; i < ARRAY_LEN(tables); i++) {
        bool table = *tables[i] && strcmp((*tables[i])->name, t->name) == 0;
        bool matrix = matrices[i]->t && strcmp(matrices[i]->t->name, t->name) == 0;
        bool vector = vectors[i]->t && strcmp(vectors[i]->t->name, t->name) == 0;
        *found += table + matrix + vector;
        if ((matrix && !matrix_swap(e, matrices[i], t, err)) || (vector && !vector_load(vectors[i], t, err)))
            return false;
        if (table)
            *tables[i] = t;
    }
    return true;
}

bool engine_replace(struct engine *e, const struct tensor *given, struct error *err)
{
    const struct tensor *old = model_find(e->m, given->name);
    if (!old)
        return fail(err, STATUS_INPUT, "%s: no such tensor to replace in %s", given->name, e->m->path);
    if (!same_shape(old, given))
        return fail(err, STATUS_INPUT, "%s: replacement is [%lld x %lld x %lld], expected [%lld x %lld x %lld]", given->name,
                    (long long)given->mats, (long long)given->rows, (long long)given->cols, (long long)old->mats,
                    (long long)old->rows, (long long)old->cols);
    if (!mem_grow(&e->replaced, &e->replaced_cap, e->n_replaced + 1, sizeof *e->replaced, err))
        return false;
    struct tensor *t = mem_new(1, sizeof *t, err);
    if (!t)
        return false;
    *t = *given;
    t->name = old->name;
    e->replaced[e->n_replaced++] = t;
    int found = 0;
    for (int i = 0; i < e->c->n_layers; i++)
        if (!swap_in_layer(e, &e->layers[i], t, &found, err))
            return false;
    if (!swap_global(e, t, &found, err))
        return false;
    return found || fail(err, STATUS_INPUT, "%s: the engine does not use this tensor", given->name);
}
