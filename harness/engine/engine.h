/* engine.h - the door of engine/: token ids -> logits, the same bits every time.
 *
 * One ragged forward pass: spans of many sequences side by side, each with its own positions, each
 * attending to a shared read-only prefix (computed once) plus its own tail.  Logits do not depend on
 * threads, on how tokens are split into spans, calls or batches, on what else runs in the batch, on
 * prefix reuse, nor on the kernel set.  How: every float sum has one fixed order (see kernels.h), every
 * token's arithmetic touches only its own row and its own sequence, own exp/tanh/gelu.
 *
 * An engine is used by one thread at a time; it owns a pool of its own. */
#ifndef QDELTA_ENGINE_H
#define QDELTA_ENGINE_H

#include "base/base.h"
#include "model/model.h"

enum act_mode {
    ACT_I16,    /* default: activations rounded per 32-block to int16 against integer weights; f32 else */
    ACT_F32,    /* float everywhere: the slow reference */
    ACT_Q8,     /* llama.cpp's Q8_0 / Q8_K rounding of activations: "as deployed" */
    ACT_COUNT
};
extern const char *const act_mode_names[ACT_COUNT];     /* "i16", "f32", "q8" */

struct engine_options {
    enum act_mode act;
    int threads;                /* 0 = all CPUs */
    const char *kernels;        /* "generic", "avx2", "neon" ..; NULL = fastest this CPU runs */
    bool in_place;              /* never repack the model's weights: multiply from the mapping; so it is anyway where memory lacks */
    int batch_tokens;           /* tokens taken through the layers at once; 0 = default: 512, 2048 where the weights do not
                                   fit in memory and are read again for each batch. Changes speed, not bits. */
};

struct engine;
struct seq;

bool engine_open(struct engine **out, const struct model *m, const struct engine_options *o, struct error *err);
void engine_close(struct engine *e);                    /* fine on NULL; close its sequences first */
const char *engine_kernels(const struct engine *e);     /* name of the set in use */
int engine_threads(const struct engine *e);
void engine_use_threads(struct engine *e, int n);       /* from now on n >= 1 of the threads it was opened with */
uint64_t engine_bytes(const struct engine *e);          /* repacked weights, buffers, caches allocated now */

/* A sequence: its K/V cache and length.  prefix (may be NULL) is borrowed read-only and must outlive the
 * child; the child's first token has position prefix length.  Prefixes may nest (a tree).  A sequence that
 * has children must not grow. */
bool seq_open(struct seq **out, struct engine *e, struct seq *prefix, struct error *err);
void seq_close(struct seq *s);                          /* fine on NULL */
int seq_length(const struct seq *s);                    /* tokens, prefix included */
/* Forget own tokens from position length on (not below the prefix's length). */
void seq_truncate(struct seq *s, int length);

struct span {
    struct seq *seq;            /* each sequence at most once a call */
    const int32_t *ids;         /* appended to the sequence */
    int n;
    int first_logits;           /* logits are wanted for ids[first_logits .. n); n = none, n - 1 = last only */
};
/* Append the spans and write the wanted logits, rows in span order then position order, each [vocab] float32
 * after the final softcap.  Ids out of range, or a sequence beyond the model's context, are errors and leave
 * every sequence as it was. */
bool engine_forward(struct engine *e, const struct span *spans, int n, float *logits, struct error *err);

/* ---- greedy generation, many sequences at once (continuous batching) ---- */

struct generation {             /* one request; zero-initialise outputs */
    struct seq *prefix;         /* may be NULL */
    const int32_t *prompt;      /* >= 1 token */
    int n_prompt;
    int max_new;
    struct ids out;             /* generated ids; a stop id is not included. Caller frees. */
    enum { FINISH_NONE, FINISH_EOS, FINISH_STOP, FINISH_LENGTH } finish;
    double least_margin;        /* smallest top-1 minus top-2 log-probability over the generated tokens */
    int64_t elapsed_ns;         /* share of batch time */
    /* Called after each token; return true to stop (the finish is then FINISH_STOP). May be NULL. */
    bool (*stop)(void *ctx, const struct generation *g);
    void *ctx;
};
/* Pull requests with next(ctx) (NULL when there are no more), run up to width at a time, give each back
 * with done(ctx, g) (false from done: stop, error in err is the caller's).  Ties go to the lowest id.
 * stop ids are the model's. */
struct generation_feed {
    struct generation *(*next)(void *ctx);
    bool (*done)(void *ctx, struct generation *g, struct error *err);
    void *ctx;
    int width;                  /* sequences at once; 0 = default */
};
bool engine_generate(struct engine *e, const struct generation_feed *feed, struct error *err);

/* ---- for quantizers: see every matrix's input; go layer by layer; replace weights ---- */

/* Called with the rows that are about to be multiplied by the weight called name (expert >= 0 for one
 * matrix of a stack): x[n][ld], cols used. From the calling thread only. */
struct engine_tap {
    void (*see)(void *ctx, const char *name, int expert, const float *x, int n, int64_t cols, size_t ld);
    void *ctx;
};
void engine_set_tap(struct engine *e, const struct engine_tap *tap);    /* NULL: none; borrowed */

/* The residual stream, whole sequences of n tokens each, taken one layer at a time without a cache:
 * x is [n_seqs * n][hidden].  ple is Gemma 4 E's per-layer input, [n_seqs * n][n_layers * ple_size], or NULL. */
bool engine_stream_embed(struct engine *e, const int32_t *ids, int n_seqs, int n, float *x, float *ple, struct error *err);
bool engine_stream_layer(struct engine *e, int layer, int n_seqs, int n, float *x, const float *ple, struct error *err);
/* Logits of n rows of the stream behind the last layer: [n][vocab]. */
bool engine_stream_logits(struct engine *e, int n, const float *x, float *logits, struct error *err);
/* A layer's matrices in the order in which they meet their inputs. */
enum layer_step { STEP_QKV, STEP_O, STEP_FFN /* router, gate and up, of experts too */, STEP_DOWN, STEP_PLE_GATE, STEP_PLE_PROJ, STEP_END };
/* A stretch of a layer, for quantizers that round its matrices one step after another.  The tap sees the inputs of
 * step to, whose matrices are not multiplied.  x is the stream as step QKV, FFN or PLE_GATE finds it and moves on
 * where a later one of these, or the end, is reached.  From O, and from DOWN where there are no experts, the part goes
 * on with inputs, [n_seqs * n][cols of that matrix], as the tap was shown them. */
struct layer_part {
    enum layer_step from, to;
    const float *inputs;
};
bool engine_stream_part(struct engine *e, int layer, const struct layer_part *part, int n_seqs, int n, float *x, const float *ple,
                        struct error *err);
/* A layer that is not needed any more: its repacked weights are freed. */
void engine_drop_layer(struct engine *e, int layer);
/* Layers that read an earlier layer's K/V (Gemma 4 E) find those of the same sequences: when a layer is called
 * several times for different sequences, say which ones are meant by a group number first (0 until told). */
void engine_stream_group(struct engine *e, int group);
void engine_stream_end(struct engine *e);               /* forget the K/V kept for later layers */
/* Use t instead of the model's tensor of the same name from now on (bytes borrowed until engine_close). */
bool engine_replace(struct engine *e, const struct tensor *t, struct error *err);
/* ---- scoring of logits, the same bits everywhere ---- */

/* ln sum exp(x[0..n)), fixed order, double accumulation. */
double logits_log_sum(const float *x, int n);
/* Index of the largest (lowest index on ties) and the second largest value. */
int logits_top(const float *x, int n, float *first, float *second);

/* ---- what this CPU can do ---- */
const char *const *engine_kernel_sets(void);            /* every set compiled in, fastest first; NULL ends */
bool engine_kernel_supported(const char *name);

/* ---- what this machine reaches at best (peaks.c) ---- */

enum peak { PEAK_INT8, PEAK_INT16, PEAK_F32, PEAK_READ, PEAK_COUNT };
extern const char *const peak_names[PEAK_COUNT];        /* "int8", "int16", "f32", "read" */
struct peak_meter;
/* threads 0 = all CPUs; kernels NULL = fastest.  Holds half a GiB to read from. */
bool peak_open(struct peak_meter **out, int threads, const char *kernels, struct error *err);
/* Best of some windows, each a fraction of a millisecond, of the set's own instructions on threads threads (0 = all): 10^9
 * operations (a multiplication and an addition are two) or bytes a second.  Machines change under us: measure beside the work. */
double peak_rate(struct peak_meter *m, enum peak what, int threads, int windows);
void peak_close(struct peak_meter *m);                  /* fine on NULL */

#endif
