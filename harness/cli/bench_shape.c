/* bench --shape: random weights in memory for a published model's shape, whole or cut to its first layers. */
#include "cli/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATTERN_ROWS = 16 };

/* Roughly normal, deterministic: the sum of four uniforms. */
static float noise(uint64_t seed, uint64_t i)
{
    double sum = 0;
    for (uint64_t k = 0; k < 4; k++)
        sum += random_unit_at(seed, 4 * i + k);
    return (float)((sum - 2) * 0.04);
}

/* A few quantized rows repeated over the tensor: right block contents, distinct memory for every tensor. */
static bool fill_tensor(struct tensor *t, uint64_t seed, struct error *err)
{
    int64_t row_bytes = format_row_bytes(t->format, t->cols), rows = t->rows * t->mats;
    float *x = mem_new((size_t)t->cols, sizeof *x, err);
    char *data = x ? mem_new_aligned((size_t)rows, (size_t)row_bytes, err) : NULL;
    bool ok = data != NULL, norm = t->rows == 1;
    for (int64_t r = 0; ok && r < rows; r++) {
        if (r >= PATTERN_ROWS) {
            memcpy(data + r * row_bytes, data + r % PATTERN_ROWS * row_bytes, (size_t)row_bytes);
            continue;
        }
        for (int64_t i = 0; i < t->cols; i++)
            x[i] = norm ? 1 + noise(seed, (uint64_t)i) : noise(seed + (uint64_t)r, (uint64_t)i);
        ok = quantize_row(t->format, x, NULL, data + r * row_bytes, t->cols) ||
             fail(err, STATUS_UNSUPPORTED, "--shape: no weights can be made in format %s", formats[t->format].name);
    }
    free(x);
    t->data = data;
    return ok;
}

void bench_shape_close(struct model *m)
{
    for (int i = 0; i < m->n_tensors; i++) {
        free((void *)(uintptr_t)m->tensors[i].data);
        m->tensors[i].data = NULL;
    }
    model_close(m);
}

/* Layer of "blk.12.attn_q.weight", or -1. */
static int layer_of(const char *tensor)
{
    int layer;
    return sscanf(tensor, "blk.%d.", &layer) == 1 ? layer : -1;
}

/* Tensors with a part for every layer follow a cut. */
static void cut_tensor(const struct model_config *c, struct tensor *t)
{
    int64_t wide = (int64_t)c->n_layers * c->ple_size;
    if (strcmp(t->name, "per_layer_token_embd.weight") == 0)
        t->cols = wide;
    else if (strcmp(t->name, "per_layer_model_proj.weight") == 0)
        t->rows = wide;
    else
        return;
    t->bytes = (uint64_t)t->rows * (uint64_t)format_row_bytes(t->format, t->cols);
}

bool bench_shape_open(struct model *m, const struct settings *s, struct error *err)
{
    char *name = str_dup(s->shape, err), *colon = name ? strchr(name, ':') : NULL;
    if (colon)
        *colon = '\0';
    bool ok = name && model_shape(m, name, colon ? colon + 1 : "google-q4_0", err);
    if (ok && s->layers && s->layers < m->config.n_layers)
        m->config.n_layers = (int)s->layers;
    for (int i = 0; ok && i < m->n_tensors; i++)
        cut_tensor(&m->config, &m->tensors[i]);
    for (int i = 0; ok && i < m->n_tensors; i++)
        if (layer_of(m->tensors[i].name) < m->config.n_layers)
            ok = fill_tensor(&m->tensors[i], 1000 * (uint64_t)i, err);
    free(name);
    return ok;
}
