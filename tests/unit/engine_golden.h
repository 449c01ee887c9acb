/* engine_golden.h - opening the ten small checkpoints with independent logits, and engines over them. */
#ifndef QDELTA_TEST_ENGINE_GOLDEN_H
#define QDELTA_TEST_ENGINE_GOLDEN_H

#include "check.h"
#include "engine/engine.h"

enum { SEQS = 2, TOKENS = 80, GOLDEN_COUNT = 10 };

static const char *const golden_names[GOLDEN_COUNT] = { "gemma4_dense", "gemma4_e", "gemma4_moe", "gemma3",    "gemma2",
                                                        "llama3",       "qwen2",    "qwen3",      "qwen3_moe", "smollm3" };
static struct error err;

struct golden {
    struct model m;
    int32_t ids[SEQS][TOKENS];
    float *logits;              /* [SEQS][TOKENS][vocab] */
    size_t floats;
};

static inline void read_into(const char *path, void *out, size_t bytes)
{
    struct text t = { 0 };
    MUST(file_read(path, 0, &t, &err));
    CHECK(t.len >= bytes, "%s: %zu bytes, expected %zu", path, t.len, bytes);
    memcpy(out, t.data, bytes);
    text_free(&t);
}

static inline const char *golden_path(const char *name, const char *file)
{
    char path[512];
    snprintf(path, sizeof path, "models/tiny_golden/%s/%s", name, file);
    return shared_data(path);
}

/* False: the shared data is not here. */
static inline bool golden_open(struct golden *g, const char *name)
{
    const char *dir = golden_path(name, "config.json"), *ids = golden_path(name, "ids.i32");
    const char *logits = golden_path(name, "logits.f32");
    if (!dir || !ids || !logits)
        return false;
    char folder[1024];
    folder_of(dir, folder);
    MUST(model_open(&g->m, folder, false, &err));
    g->floats = (size_t)SEQS * TOKENS * (size_t)g->m.config.vocab;
    g->logits = mem_new(g->floats, sizeof *g->logits, &err);
    read_into(ids, g->ids, sizeof g->ids);
    read_into(logits, g->logits, g->floats * sizeof *g->logits);
    return true;
}

static inline void golden_close(struct golden *g)
{
    free(g->logits);
    model_close(&g->m);
}

static inline struct engine *engine_with(const struct model *m, enum act_mode act, int threads, int batch_tokens)
{
    struct engine_options o = { .act = act, .threads = threads, .batch_tokens = batch_tokens };
    struct engine *e;
    MUST(engine_open(&e, m, &o, &err));
    return e;
}

static inline struct seq *seq_with(struct engine *e, struct seq *prefix)
{
    struct seq *s;
    MUST(seq_open(&s, e, prefix, &err));
    return s;
}

/* All logits of ids[0..n) after what s holds. */
static inline void feed_all(struct engine *e, struct seq *s, const int32_t *ids, int n, float *logits)
{
    struct span p = { s, ids, n, 0 };
    MUST(engine_forward(e, &p, 1, logits, &err));
}

static inline double worst_difference(const float *a, const float *b, size_t n)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        worst = d <= worst ? worst : d;         /* NaN wins */
    }
    return worst;
}

#endif
