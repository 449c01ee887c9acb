/* experts.c - mixture of experts: the router picks experts for each row, rows are gathered by expert, so each
 * expert's weights are read once for all rows that chose it.  A row's sum takes its experts in ascending order,
 * whatever else is in the batch. */
#include <math.h>
#include <string.h>

#include "internal.h"

/* e^x for x <= 0, in double: ours, because libm's may differ from machine to machine.  Error < 1e-15. */
static double exp_down(double x)
{
    if (x < -700)
        return 0;
    double n = floor(x * 1.4426950408889634 + 0.5);
    double r = x - n * 0.693147180369123816490 - n * 1.90821492927058770002e-10, sum = 1;
    for (int i = 13; i >= 1; i--)
        sum = 1 + sum * r / i;
    uint64_t bits = (uint64_t)(1023 + (int64_t)n) << 52;
    double scale;
    memcpy(&scale, &bits, sizeof scale);
    return sum * scale;
}

/* The used largest logits, ties to the lowest expert; out sorted by expert. */
static void pick(const float *logits, int n, int used, int *out)
{
    int have = 0;
    for (int j = 0; j < n; j++) {
        int at = have < used ? have++ : used;
        for (; at > 0 && logits[j] > logits[out[at - 1]]; at--)
            if (at < used)
                out[at] = out[at - 1];
        if (at < used)
            out[at] = j;
    }
    for (int i = 1; i < used; i++)
        for (int j = i; j > 0 && out[j - 1] > out[j]; j--) {
            int t = out[j];
            out[j] = out[j - 1];
            out[j - 1] = t;
        }
}

static void row_route(struct engine *e, int row, int thread)
{
    (void)thread;
    const struct layer *l = e->batch.layer;
    int n = l->c->n_experts, used = l->c->n_experts_used;
    const float *logits = e->b.router + (size_t)row * (size_t)n;
    int *chosen = e->b.chosen + (size_t)row * (size_t)used;
    float *weight = e->b.chosen_weight + (size_t)row * (size_t)used;
    double top = logits[0], sum = 0;
    for (int i = 1; i < n; i++)
        top = logits[i] > top ? logits[i] : top;
    pick(logits, n, used, chosen);
    bool among_chosen = e->c->norm_topk || l->c->moe == MOE_GEMMA4;
    for (int i = 0; i < (among_chosen ? used : n); i++)
        sum += exp_down((double)logits[among_chosen ? chosen[i] : i] - top);
    for (int i = 0; i < used; i++) {
        weight[i] = (float)(exp_down((double)logits[chosen[i]] - top) / sum);
        if (l->expert_scale.w)
            weight[i] *= l->expert_scale.w[chosen[i]];
    }
}

/* expert_rows: for each expert the rows that chose it, ascending. */
static void gather(struct engine *e)
{
    const struct layer *l = e->batch.layer;
    struct buffers *b = &e->b;
    int n = l->c->n_experts, picks = e->batch.n * l->c->n_experts_used;
    memset(b->expert_first, 0, (size_t)(n + 1) * sizeof(int));
    for (int i = 0; i < picks; i++)
        b->expert_first[b->chosen[i] + 1]++;
    for (int i = 0; i < n; i++)
        b->expert_first[i + 1] += b->expert_first[i];
    for (int i = 0; i < picks; i++) {
        int at = b->expert_first[b->chosen[i]]++;
        b->expert_rows[at] = i / l->c->n_experts_used;
        b->expert_weights[at] = b->chosen_weight[i];
    }
    memmove(b->expert_first + 1, b->expert_first, (size_t)n * sizeof(int));
    b->expert_first[0] = 0;
}

static void row_glu(struct engine *e, int row, int thread)
{
    (void)thread;
    int f = e->batch.layer->c->expert_ffn_size;
    float *gate = e->b.gate + (size_t)row * 2 * (size_t)f;
    vec_glu(e->k, e->c->activation, gate, gate + f, gate, f);
}

static void row_sum(struct engine *e, int row, int thread)
{
    (void)thread;
    size_t d = (size_t)e->c->hidden;
    int at = e->b.expert_first[e->batch.expert] + row;
    float *y = e->b.y + (size_t)row * d;
    vec_scale(e->k, y, e->b.expert_weights[at], (int)d);
    vec_add(e->k, e->b.acc + (size_t)e->b.expert_rows[at] * d, y, (int)d);
}

static void expert_run(struct engine *e, int expert)
{
    const struct layer *l = e->batch.layer;
    int f = l->c->expert_ffn_size, first = e->b.expert_first[expert], n = e->b.expert_first[expert + 1] - first;
    const int *rows = e->b.expert_rows + first;
    size_t wide = 2 * (size_t)f;
    if (n == 0)
        return;
    if (e->batch.part->to == STEP_FFN) {
        show(e, l->gate_up_exps.t ? &l->gate_up_exps : &l->gate_exps, expert, &e->a_in, rows, n);
        return;
    }
    if (l->gate_up_exps.t) {
        apply(e, &l->gate_up_exps, expert, &e->a_in, rows, n, e->b.gate, wide);
    } else {
        apply(e, &l->gate_exps, expert, &e->a_in, rows, n, e->b.gate, wide);
        apply(e, &l->up_exps, expert, &e->a_in, rows, n, e->b.gate + f, wide);
    }
    rows_run(e, n, (size_t)f * 8, row_glu);
    acts_set(&e->a_mid, e->b.gate, wide, n, f);
    if (e->batch.part->to == STEP_DOWN) {
        show(e, &l->down_exps, expert, &e->a_mid, NULL, n);
        return;
    }
    apply(e, &l->down_exps, expert, &e->a_mid, NULL, n, e->b.y, (size_t)e->c->hidden);
    e->batch.expert = expert;
    rows_run(e, n, 2 * (size_t)e->c->hidden, row_sum);
}

void experts_run(struct engine *e, const float *router_in, const float *expert_in, float *out)
{
    const struct layer *l = e->batch.layer;
    int n = e->batch.n, d = e->c->hidden;
    acts_set(&e->a_in, router_in, (size_t)d, n, d);
    apply(e, &l->router, 0, &e->a_in, NULL, n, e->b.router, (size_t)l->c->n_experts);
    rows_run(e, n, (size_t)l->c->n_experts * 16, row_route);
    gather(e);
    memset(out, 0, (size_t)n * (size_t)d * sizeof *out);
    acts_set(&e->a_in, expert_in, (size_t)d, n, d);
    for (int i = 0; i < l->c->n_experts; i++)
        expert_run(e, i);
}
