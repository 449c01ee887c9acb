/* layer.c - one layer over the rows of one micro-batch.  Which parts there are follows from the switches;
 * row jobs touch only their own row, matrices are multiplied for all rows at once. */
#include <string.h>

#include "internal.h"

static float *row_of(float *base, int row, size_t ld)
{
    return base + (size_t)row * ld;
}

static size_t hidden(const struct engine *e)
{
    return (size_t)e->c->hidden;
}

static void norm(const struct engine *e, const float *x, const struct vector *w, float *y, int n)
{
    vec_rms_norm(e->k, x, w ? w->w : NULL, e->c->eps, y, n);
}

/* ---- attention side ---- */

static void row_attn_norm(struct engine *e, int row, int thread)
{
    (void)thread;
    norm(e, row_of(e->batch.x, row, hidden(e)), &e->batch.layer->attn_norm, row_of(e->b.u, row, hidden(e)), e->c->hidden);
}

static void rope_fill_row(struct engine *e, int row, int thread)
{
    (void)thread;
    int table = e->batch.layer->c->rope_table;
    const struct rope_table *t = &e->c->rope[table];
    float *cos_out = row_of(e->b.cos_sin + e->b.rope_at[table], row, (size_t)t->head_size);
    rope_row(t->inv_freq, t->head_size / 2, e->batch.position[row], cos_out, cos_out + t->head_size / 2);
}

/* Rows stored for rotation of neighbours (2i, 2i + 1): put halves (i, i + h/2) instead, so that whatever
 * the file, heads look alike from here on. */
static void part_pairs(float *x, int h, float *scratch)
{
    for (int i = 0; i < h / 2; i++) {
        scratch[i] = x[2 * i];
        scratch[i + h / 2] = x[2 * i + 1];
    }
    memcpy(x, scratch, (size_t)h * sizeof *x);
}

static void finish_head(struct engine *e, int row, int thread, float *x, const struct vector *w)
{
    const struct layer_config *l = e->batch.layer->c;
    int h = l->head_size;
    if (e->c->rope_pairs_adjacent)
        part_pairs(x, h, e->scratch[thread].f);
    if (e->c->qk_norm)
        norm(e, x, w, x, h);
    if (!l->rope)
        return;
    const float *cos_t = row_of(e->b.cos_sin + e->b.rope_at[l->rope_table], row, (size_t)h);
    vec_rope(e->k, x, cos_t, cos_t + h / 2, h);
}

static void store_kv(struct engine *e, int row, int thread)
{
    struct layer *l = e->batch.layer;
    const struct seq *s = e->batch.pieces[e->batch.piece_of[row]].s;
    int h = l->c->head_size, heads = l->c->n_kv_heads, p = e->batch.position[row];
    size_t ld = (size_t)h * (size_t)heads;
    float *k = row_of(e->b.k, row, ld), *v = l->c->v_from_k ? k : row_of(e->b.v, row, ld);
    if (l->k_bias.w)
        vec_add(e->k, k, l->k_bias.w, (int)ld);
    if (l->v_bias.w)
        vec_add(e->k, v, l->v_bias.w, (int)ld);
    for (int i = 0; i < heads; i++, k += h, v += h) {
        float *v_out = seq_v(s, l->kv_slot, p, i);
        if (e->c->v_norm)
            norm(e, v, NULL, v_out, h);
        else
            memcpy(v_out, v, (size_t)h * sizeof *v);
        finish_head(e, row, thread, k, &l->k_norm);
        memcpy(seq_k(s, l->kv_slot, p, i), k, (size_t)h * sizeof *k);
    }
}

static void row_qkv(struct engine *e, int row, int thread)
{
    struct layer *l = e->batch.layer;
    int h = l->c->head_size, wide = e->c->n_heads * h;
    float *q = row_of(e->b.q, row, (size_t)wide);
    if (l->q_bias.w)
        vec_add(e->k, q, l->q_bias.w, wide);
    for (int i = 0; i < e->c->n_heads; i++)
        finish_head(e, row, thread, q + i * h, &l->q_norm);
    if (l->owns_kv)
        store_kv(e, row, thread);
}

/* Does the part of the layer that is run end before the products of this step? */
static bool ends_at(const struct engine *e, enum layer_step step)
{
    return e->batch.part->to == step;
}

static void attention_in(struct engine *e)
{
    struct layer *l = e->batch.layer;
    int n = e->batch.n, h = l->c->head_size;
    size_t q_wide = (size_t)e->c->n_heads * (size_t)h, kv_wide = (size_t)l->c->n_kv_heads * (size_t)h;
    if (l->c->rope && !e->batch.rope_ready[l->c->rope_table]) {
        rows_run(e, n, (size_t)h * 8, rope_fill_row);
        e->batch.rope_ready[l->c->rope_table] = true;
    }
    rows_run(e, n, hidden(e), row_attn_norm);
    acts_set(&e->a_in, e->b.u, hidden(e), n, e->c->hidden);
    if (ends_at(e, STEP_QKV)) {
        show(e, &l->q, 0, &e->a_in, NULL, n);
        return;
    }
    const struct matrix_out out[] = { { &l->q, e->b.q, q_wide }, { &l->k, e->b.k, kv_wide }, { &l->v, e->b.v, kv_wide } };
    apply_each(e, out, !l->owns_kv ? 1 : l->c->v_from_k ? 2 : 3, &e->a_in, n);
    rows_run(e, n, q_wide + 2 * kv_wide, row_qkv);
}

/* ---- feed-forward side ---- */

static void row_ffn_norm(struct engine *e, int row, int thread)
{
    (void)thread;
    struct layer *l = e->batch.layer;
    float *x = row_of(e->batch.x, row, hidden(e));
    int d = e->c->hidden;
    norm(e, x, &l->ffn_norm, row_of(e->b.u, row, hidden(e)), d);
    if (l->c->moe == MOE_GEMMA4) {
        norm(e, x, &l->pre_ffn_norm_2, row_of(e->b.u2, row, hidden(e)), d);
        norm(e, x, &l->router_scale, row_of(e->b.acc, row, hidden(e)), d);
    }
}

static void row_after_attention(struct engine *e, int row, int thread)
{
    float *x = row_of(e->batch.x, row, hidden(e)), *y = row_of(e->b.y, row, hidden(e));
    int d = e->c->hidden;
    if (e->c->sandwich_norms)
        norm(e, y, &e->batch.layer->post_attn_norm, y, d);
    vec_add(e->k, x, y, d);
    row_ffn_norm(e, row, thread);
}

/* x moves on past the attention, unless the part ends before. */
static void attention_part(struct engine *e, enum layer_step from)
{
    int n = e->batch.n, wide = e->c->n_heads * e->batch.layer->c->head_size;
    const float *inputs = from == STEP_O ? e->batch.part->inputs : e->b.o;
    if (from == STEP_QKV)
        attention_in(e);
    if (ends_at(e, STEP_QKV))
        return;
    if (from == STEP_QKV)
        attention_run(e);
    acts_set(&e->a_in, inputs, (size_t)wide, n, wide);
    if (ends_at(e, STEP_O)) {
        show(e, &e->batch.layer->o, 0, &e->a_in, NULL, n);
        return;
    }
    apply(e, &e->batch.layer->o, 0, &e->a_in, NULL, n, e->b.y, hidden(e));
    rows_run(e, n, 4 * hidden(e), row_after_attention);
}

static void row_glu(struct engine *e, int row, int thread)
{
    (void)thread;
    int n = e->batch.layer->c->ffn_size;
    float *gate = row_of(e->b.gate, row, (size_t)n);
    vec_glu(e->k, e->c->activation, gate, row_of(e->b.up, row, (size_t)n), gate, n);
}

/* act(gate) * up of every row, ready for the last product. */
static void dense_glu(struct engine *e)
{
    struct layer *l = e->batch.layer;
    int n = e->batch.n, f = l->c->ffn_size;
    struct pool *pool = pool_for(e, 2.0 * n * f * e->c->hidden);
    if (!e->tap && matrix_apply_glu(&l->gate, &l->up, &e->a_in, n, e->c->activation, &l->down, &e->a_mid, pool))
        return;
    const struct matrix_out out[] = { { &l->gate, e->b.gate, (size_t)f }, { &l->up, e->b.up, (size_t)f } };
    apply_each(e, out, 2, &e->a_in, n);
    rows_run(e, n, (size_t)f * 8, row_glu);
    acts_set(&e->a_mid, e->b.gate, (size_t)f, n, f);
}

static void dense_run(struct engine *e, enum layer_step from)
{
    struct layer *l = e->batch.layer;
    int n = e->batch.n, f = l->c->ffn_size;
    acts_set(&e->a_in, e->b.u, hidden(e), n, e->c->hidden);
    if (ends_at(e, STEP_FFN)) {
        show(e, &l->gate, 0, &e->a_in, NULL, n);
        return;
    }
    if (from == STEP_DOWN)
        acts_set(&e->a_mid, e->batch.part->inputs, (size_t)f, n, f);
    else
        dense_glu(e);
    if (ends_at(e, STEP_DOWN)) {
        show(e, &l->down, 0, &e->a_mid, NULL, n);
        return;
    }
    apply(e, &l->down, 0, &e->a_mid, NULL, n, e->b.y, hidden(e));
}

static void row_dense_branch(struct engine *e, int row, int thread)
{
    (void)thread;
    norm(e, row_of(e->b.y, row, hidden(e)), &e->batch.layer->post_ffn_norm_1, row_of(e->b.f, row, hidden(e)), e->c->hidden);
}

/* The branch's sum for this row: dense output, the experts' sum, or both (Gemma 4). */
static float *ffn_sum(struct engine *e, int row)
{
    struct layer *l = e->batch.layer;
    if (l->c->moe == MOE_NONE)
        return row_of(e->b.y, row, hidden(e));
    float *sum = row_of(e->b.acc, row, hidden(e));
    if (l->c->moe != MOE_GEMMA4)
        return sum;
    norm(e, sum, &l->post_ffn_norm_2, sum, e->c->hidden);
    if (l->c->ffn_size)
        vec_add(e->k, sum, row_of(e->b.f, row, hidden(e)), e->c->hidden);
    return sum;
}

static void scale_out(struct engine *e, float *x)
{
    if (e->batch.layer->out_scale.w)
        vec_scale(e->k, x, e->batch.layer->out_scale.w[0], e->c->hidden);
}

static void row_after_ffn(struct engine *e, int row, int thread)
{
    (void)thread;
    float *x = row_of(e->batch.x, row, hidden(e)), *f = ffn_sum(e, row);
    if (e->c->sandwich_norms)
        norm(e, f, &e->batch.layer->post_ffn_norm, f, e->c->hidden);
    vec_add(e->k, x, f, e->c->hidden);
    if (!e->c->ple_size)
        scale_out(e, x);
}

/* x moves on past the feed-forward, unless the part ends before. */
static void ffn_part(struct engine *e, enum layer_step from)
{
    struct layer *l = e->batch.layer;
    bool stops = ends_at(e, STEP_FFN) || ends_at(e, STEP_DOWN);
    if (from == STEP_FFN)
        rows_run(e, e->batch.n, 2 * hidden(e), row_ffn_norm);
    if (l->c->ffn_size)
        dense_run(e, from);
    if (l->c->moe == MOE_GEMMA4 && l->c->ffn_size && !stops)
        rows_run(e, e->batch.n, hidden(e), row_dense_branch);
    if (l->c->moe == MOE_GEMMA4)
        experts_run(e, e->b.acc, e->b.u2, e->b.acc);
    else if (l->c->moe != MOE_NONE)
        experts_run(e, e->b.u, e->b.u, e->b.acc);
    if (!stops)
        rows_run(e, e->batch.n, 3 * hidden(e), row_after_ffn);
}

/* ---- per-layer embeddings ---- */

static void row_ple_gate(struct engine *e, int row, int thread)
{
    (void)thread;
    size_t p = (size_t)e->c->ple_size;
    const float *own = e->batch.ple + ((size_t)row * (size_t)e->c->n_layers + (size_t)e->batch.layer->index) * p;
    float *gate = row_of(e->b.gate, row, p);
    vec_glu(e->k, e->c->activation, gate, own, gate, (int)p);
}

static void row_after_ple(struct engine *e, int row, int thread)
{
    (void)thread;
    float *x = row_of(e->batch.x, row, hidden(e)), *y = row_of(e->b.y, row, hidden(e));
    norm(e, y, &e->batch.layer->ple_norm, y, e->c->hidden);
    vec_add(e->k, x, y, e->c->hidden);
    scale_out(e, x);
}

static void ple_part(struct engine *e)
{
    struct layer *l = e->batch.layer;
    int n = e->batch.n, p = e->c->ple_size;
    acts_set(&e->a_in, e->batch.x, hidden(e), n, e->c->hidden);
    if (ends_at(e, STEP_PLE_GATE)) {
        show(e, &l->ple_gate, 0, &e->a_in, NULL, n);
        return;
    }
    apply(e, &l->ple_gate, 0, &e->a_in, NULL, n, e->b.gate, (size_t)p);
    rows_run(e, n, (size_t)p * 8, row_ple_gate);
    acts_set(&e->a_mid, e->b.gate, (size_t)p, n, p);
    if (ends_at(e, STEP_PLE_PROJ)) {
        show(e, &l->ple_proj, 0, &e->a_mid, NULL, n);
        return;
    }
    apply(e, &l->ple_proj, 0, &e->a_mid, NULL, n, e->b.y, hidden(e));
    rows_run(e, n, 3 * hidden(e), row_after_ple);
}

const struct layer_part layer_whole = { STEP_QKV, STEP_END, NULL };

void layer_run(struct engine *e, int layer, const struct layer_part *part, float *x, const float *ple)
{
    e->batch.layer = &e->layers[layer];
    e->batch.part = part;
    e->batch.x = x;
    e->batch.ple = ple;
    if (part->from <= STEP_O)
        attention_part(e, part->from);
    if (part->from <= STEP_DOWN && part->to >= STEP_FFN)
        ffn_part(e, part->from);
    if (ple && part->to >= STEP_PLE_GATE)
        ple_part(e);
    e->batch.part = &layer_whole;
}
