/* panel.c - rounding of activation rows into the panel. */
#include "panel.h"

#include <string.h>

/* Element order of the words: wide swaps the middle two of each four. */
static void place_block(const int16_t *codes, bool wide, uint8_t *to, int32_t sums[2])
{
    sums[0] = sums[1] = 0;
    for (int i = 0; i < 32; i++)
        sums[i / 16] += codes[i];
    for (int i = 0; i < 32; i += 4) {
        const int16_t w[4] = { codes[i], codes[i + 2], codes[i + 1], codes[i + 3] };
        if (wide)
            memcpy(to + 2 * i, w, sizeof w);
        for (int e = 0; e < 4 && !wide; e++)
            to[i + e] = (uint8_t)codes[i + e];
    }
}

static void put_block(const struct panel *a, const int16_t *codes, float scale, uint8_t *block, int T, int t)
{
    uint8_t *scales = block + (size_t)T * (a->wide ? 64 : 32), *starts = scales + (size_t)T * 4;
    int32_t sum[2];
    (a->ops->place ? a->ops->place : place_block)(codes, a->wide, block + (size_t)t * (a->wide ? 64 : 32), sum);
    if (a->subs == 1)
        sum[0] += sum[1];
    memcpy(scales + 4 * t, &scale, 4);
    for (int s = 0; s < a->subs; s++) {
        int32_t start = -a->layout->bias * sum[s];
        float fsum = (float)sum[s];
        size_t at = (size_t)(t * a->subs + s) * 4;
        memcpy(starts + at, &start, 4);
        memcpy(starts + (size_t)(T * a->subs) * 4 + at, &fsum, 4);
    }
}

const float *panel_row(const struct product *p, int i, int k0, int n, float *buffer)
{
    const float *x = p->a->f32 + (size_t)acts_row(p, i) * p->a->ld;
    const int32_t *perm = p->w->t->col_perm;
    if (!perm)
        return x + k0;
    for (int k = 0; k < n; k++)
        buffer[k] = x[perm[k0 + k]];
    return buffer;
}

/* Job i rounds the rows of one group (of the widest kernel; it may be several narrower ones). */
static void round_group(void *ctx, int job, int thread)
{
    const struct panel *a = ctx;
    int first = group_first(a->p->n, a->groups, job), end = group_first(a->p->n, a->groups, job + 1);
    (void)thread;
    for (int T; first < end; first += T) {
        T = width_of(a->ops->widths, end - first);
        for (int t = 0; t < T; t++)
            for (int c = 0; c * CHUNK_COLS < a->p->a->cols; c++) {
                int blocks = layout_blocks(a->p->a->cols, c);
                float buffer[CHUNK_COLS], scale[CHUNK_BLOCKS];
                int16_t codes[CHUNK_COLS];
                const float *x = panel_row(a->p, first + t, c * CHUNK_COLS, blocks * 32, buffer);
                a->ops->round(a->p->rounding, x, blocks * 32, codes, scale);
                uint8_t *to = panel_at(a, first, T, c * CHUNK_BLOCKS);
                for (int b = 0; b < blocks; b++)
                    put_block(a, codes + 32 * b, scale[b], to + (size_t)b * (size_t)T * a->unit, T, t);
            }
    }
}

void panel_fill(const struct panel *a, int group, int end, int block, const float *x)
{
    int n = a->p->n, first = group_first(n, a->groups, group), last = group_first(n, a->groups, end), begin = first;
    float scale[CHUNK_BLOCKS];
    int16_t codes[CHUNK_COLS];
    for (int g = group; g < end; g++)
        for (int T, next = group_first(n, a->groups, g + 1); first < next; first += T) {
            T = width_of(a->ops->widths, next - first);
            for (int t = 0; t < T; t++) {
                int at = first + t - begin, b = at % CHUNK_BLOCKS;
                if (!b)
                    a->ops->round(a->p->rounding, x + 32 * at, 32 * at_most(CHUNK_BLOCKS, last - begin - at), codes, scale);
                put_block(a, codes + 32 * b, scale[b], panel_at(a, first, T, block), T, t);
            }
        }
}

struct panel panel_to_fill(const struct product *p)
{
    const struct format *f = &formats[p->w->t->format];
    struct panel a = { .p = p, .ops = p->w->k->tile, .layout = layout_of(p->w->t->format), .sub = f->int_block,
                       .has_min = f->has_min };
    a.wide = p->rounding == ROUND_I16 || !a.ops->narrow;
    a.subs = 32 / a.sub;
    a.groups = groups_of(a.ops->group, p->n);
    a.unit = panel_unit(a.wide, a.sub);
    return a;
}

/* A panel serves every matrix with the same rounding, bias and sub-block; 0: this one alone. */
static int panel_kind(const struct product *p)
{
    enum format_id f = p->w->t->format;
    return p->row_list || p->w->t->col_perm ? 0 : (int)p->rounding << 16 | layout_of(f)->bias << 8 | formats[f].int_block;
}

bool panel_shared(const struct product *p, const struct product *q)
{
    return p->rounding != ROUND_NONE && q->rounding != ROUND_NONE && panel_kind(p) && panel_kind(p) == panel_kind(q);
}

void panel_filled(const struct panel *a)
{
    a->p->a->packed_kind = panel_kind(a->p);
    a->p->a->packed_n = a->p->n;
}

struct panel panel_of(const struct product *p)
{
    struct panel a = panel_to_fill(p);
    if (!panel_kind(p) || p->a->packed_kind != panel_kind(p) || p->a->packed_n != p->n) {
        pool_run(p->pool, a.groups, round_group, &a);
        panel_filled(&a);
    }
    return a;
}
