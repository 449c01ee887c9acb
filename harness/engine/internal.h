/* internal.h - what the files of engine/ share.  Private to the room.
 *
 *   engine.c     open, close, options, buffers, memory count
 *   weights.c    which tensors a layer has, by the switches of model_config; replacing one
 *   sequence.c   sequences, their K/V blocks, truncation
 *   batch.c      spans -> micro-batches -> layers -> head
 *   layer.c      one layer over one micro-batch
 *   attention.c  jobs over (piece of a sequence, head)
 *   experts.c    mixture of experts, tokens batched by expert
 *   generate.c   continuous batching, greedy
 *   stream.c     layer by layer without a cache, for quantizers
 *   kernels/     arithmetic; logits -> numbers */
#ifndef QDELTA_ENGINE_INTERNAL_H
#define QDELTA_ENGINE_INTERNAL_H

#include "engine/engine.h"
#include "engine/kernels/kernels.h"

enum {
    KV_BLOCK = 16,              /* positions a K/V block holds; divides ATTENTION_TILE */
    KV_KEEP = 256,              /* positions kept behind a sliding window, so that short truncations cost nothing */
    DEFAULT_BATCH_TOKENS = 512,
    STREAM_BATCH_TOKENS = 2048, /* where the weights do not fit in memory */
    DEFAULT_WIDTH = 16,
    QUERIES_A_JOB = 16,         /* tokens an attention job takes */
    HEAD_ROWS = 32,             /* rows of logits that generation holds at once */
};

/* ---- weights ---- */

struct vector {                 /* a 1-D tensor as floats, its .add applied */
    float *w;
    const struct tensor *t;
};

struct layer {
    const struct layer_config *c;
    int index;
    bool owns_kv, is_donor;     /* is_donor: a later layer reads its K/V */
    int kv_slot;                /* index of the K/V it reads among the layers that own K/V */
    struct matrix q, k, v, o, gate, up, down;
    struct matrix router, gate_up_exps, gate_exps, up_exps, down_exps;
    struct matrix ple_gate, ple_proj;
    struct vector attn_norm, post_attn_norm, ffn_norm, post_ffn_norm, q_norm, k_norm, q_bias, k_bias, v_bias;
    struct vector router_scale, expert_scale, pre_ffn_norm_2, post_ffn_norm_1, post_ffn_norm_2;
    struct vector ple_norm, out_scale;
};

struct global_weights {
    const struct tensor *embed, *ple_embed;
    struct matrix head, ple_proj;
    struct vector out_norm, ple_norm;
};

/* ---- K/V ---- */

struct kv_slot {                /* one layer that owns K/V */
    int layer, n_kv_heads, head_size;
    bool sliding;
    size_t block_floats;        /* K [heads][KV_BLOCK][h], then V the same */
    int size_class;
};

struct kv_free {                /* free blocks of one size; the first bytes of a block link to the next */
    size_t block_floats;
    void *first;
};

struct seq {
    struct engine *e;
    struct seq *prefix;
    int base;                   /* prefix length */
    int length;                 /* prefix included */
    int computed;               /* K/V exist for [base, computed); less than length only after a far truncation */
    int n_children;
    int32_t *ids;               /* own tokens, [length - base] */
    size_t ids_cap;
    float **blocks;             /* [n_blocks][n_slots]; NULL: not there */
    size_t blocks_cap;
    int first_block, n_blocks;  /* block b holds positions [b * KV_BLOCK, (b + 1) * KV_BLOCK) */
    int sliding_from;           /* sliding layers have blocks from here on */
    unsigned long mark;         /* the last call that named it: each sequence at most once a call */
};

/* ---- one micro-batch ---- */

struct piece {                  /* consecutive tokens of one sequence */
    struct seq *s;
    int first, n;               /* positions [first, first + n) */
    int row;                    /* of its first token */
};

struct chunk {                  /* at most QUERIES_A_JOB consecutive tokens of a piece */
    int piece, first, n;        /* first: row within the piece */
};

struct unit {                   /* chunks that one attention job takes */
    int first, n;
};

struct batch {
    int n;                      /* rows */
    struct piece *pieces;
    int n_pieces;
    int *position;              /* [n] */
    int *piece_of;              /* [n] */
    int32_t *ids;               /* [n] */
    struct chunk *chunks;
    int n_chunks;
    struct unit *units;
    int n_units;
    bool rope_ready[64];        /* cos and sin of table i are filled for these positions */
    float *x;                   /* [n][hidden] residual stream */
    const float *ple;           /* [n][n_layers * ple_size] or NULL */
    struct layer *layer;
    const struct layer_part *part;      /* what of the layer is run */
    int expert;                 /* whose rows are being summed */
    float *logits;              /* rows that get the final softcap */
    struct top2 *tops;          /* of the rows of b.logits */
};

struct buffers {                /* [batch_tokens][...] each */
    float *x, *u, *u2, *y, *acc, *f;            /* [hidden] */
    float *q, *o;                               /* [most heads * h] */
    float *k, *v;                               /* [most kv heads * h] */
    float *gate, *up;                           /* [widest ffn] */
    float *ple;                                 /* [n_layers * ple_size] */
    float *router;                              /* [experts] */
    int *chosen;                                /* [experts used] */
    float *chosen_weight;
    int *expert_rows;                           /* rows of one expert after the other */
    float *expert_weights;                      /* beside expert_rows */
    int *expert_first;                          /* [experts + 1] */
    float *wanted;                              /* [hidden], normed rows for the head */
    float *logits;                              /* [HEAD_ROWS][vocab], only when generating */
    float *cos_sin;                             /* every rope table: [rows][h / 2] cos, then sin */
    size_t rope_at[64];                         /* where table i begins in cos_sin */
};

struct scratch {                /* one a thread */
    float *f;                   /* [most head size] */
    struct attention_query *queries;    /* [QUERIES_A_JOB * heads] */
    float *wide;                /* [n_layers * ple_size] */
    struct kv_run *runs;
    size_t runs_cap;
};

struct stream_group {           /* sequences that quantizers take layer by layer */
    int group, n_seqs, n;
    struct seq **seqs;
};

struct engine {
    const struct model *m;
    const struct model_config *c;
    const struct kernels *k;
    enum act_mode act;
    bool in_place;
    int batch_tokens;
    struct pool *pool;
    struct layer *layers;
    struct global_weights g;
    struct tensor **replaced;   /* copies of the tensors given to engine_replace */
    size_t n_replaced, replaced_cap;
    struct kv_slot *slots;
    int n_slots;
    struct kv_free *free_blocks;
    int n_classes;
    int window_max;             /* widest sliding window; 0: no sliding layers */
    struct acts a_in, a_mid;
    struct buffers b;
    struct batch batch;
    struct scratch *scratch;    /* [n_scratch], one a thread */
    int n_scratch;
    uint64_t buffer_bytes, kv_bytes;
    unsigned long calls;
    const struct engine_tap *tap;
    struct stream_group *groups;
    size_t n_groups, groups_cap;
    int group;
};

/* weights.c */
bool weights_open(struct engine *e, struct error *err);
void weights_close(struct engine *e);
/* Is what token id reads of the embeddings finite?  (Whole matrices are looked at when they are opened.) */
bool embedding_check(const struct engine *e, int32_t id, struct error *err);
uint64_t weights_bytes(const struct engine *e);

/* engine.c */
bool scratch_runs(struct engine *e, size_t n, struct error *err);   /* room for n runs in every thread's scratch */
struct pool *pool_for(const struct engine *e, double multiplications);      /* NULL: not worth the others' time */
/* Show the tap, if there is one, what is about to be multiplied. */
void show(struct engine *e, const struct matrix *w, int mat, const struct acts *a, const int *rows, int n);
/* The same, unless only the inputs of a later step are asked for, and multiply. */
void apply(struct engine *e, const struct matrix *w, int mat, struct acts *a, const int *rows, int n, float *y,
           size_t ldy);
/* The same for several matrices of the same rows. */
void apply_each(struct engine *e, const struct matrix_out *out, int n_out, struct acts *a, int n);
/* job(e, row, thread) for rows [0, n); work: floats touched a row, so that small things stay on one thread. */
void rows_run(struct engine *e, int n, size_t work, void (*job)(struct engine *e, int row, int thread));

/* sequence.c */
bool seq_ids_add(struct seq *s, const int32_t *ids, int n, struct error *err);
/* Blocks for positions up to end; layers: only this slot, or all when slot < 0. */
bool seq_reserve(struct seq *s, int end, int slot, struct error *err);
void seq_drop_slot(struct seq *s, int slot);            /* give back every block of one slot */
bool seq_has_slot(const struct seq *s, int slot);
void seq_advance(struct seq *s, int computed);          /* K/V exist up to here; drops what no window can see */
int seq_depth(const struct seq *s);                     /* ancestors and itself */
/* Runs of K/V of head kv_head that intersect positions [from, to), prefixes first. Returns their number. */
int seq_runs(const struct seq *s, int slot, int kv_head, int from, int to, struct kv_run *runs);
size_t seq_runs_most(const struct seq *s, int to);      /* bound for seq_runs */
float *seq_k(const struct seq *s, int slot, int position, int kv_head);
float *seq_v(const struct seq *s, int slot, int position, int kv_head);
void kv_free_all(struct engine *e);

/* batch.c */
struct work {                   /* what of a sequence is still to be computed, and which logits are wanted */
    struct seq *s;
    int first_logits;           /* position from which on logits are wanted */
};
/* Takes normed rows [n][hidden] of one micro-batch. */
struct logits_sink {
    bool (*take)(void *ctx, struct engine *e, int n, struct error *err);
    void *ctx;
};
bool batch_open(struct engine *e, struct error *err);
void batch_close(struct engine *e);
/* Run every sequence from computed to length; the sink sees the wanted rows in order, in e->b.wanted. */
bool batch_run(struct engine *e, const struct work *w, int n, const struct logits_sink *sink, struct error *err);
void batch_begin(struct engine *e);
void batch_add(struct engine *e, struct seq *s, int first, int n);
/* K/V blocks (of one slot, or of all when slot < 0), room for runs, attention chunks. */
bool batch_ready(struct engine *e, int slot, struct error *err);
void head_rows(struct engine *e, const float *x, int n, float *logits);
void embed_rows(struct engine *e);      /* batch.ids -> b.x and b.ple */
/* May n more tokens of these ids be appended to s? */
bool append_check(const struct seq *s, const int32_t *ids, int n, struct error *err);

/* layer.c, attention.c, experts.c */
extern const struct layer_part layer_whole;
void layer_run(struct engine *e, int layer, const struct layer_part *part, float *x, const float *ple);
void attention_run(struct engine *e);
/* out (b.acc): the chosen experts' weighted sum for every row. router_in may be out. */
void experts_run(struct engine *e, const float *router_in, const float *expert_in, float *out);

/* stream.c */
void stream_close(struct engine *e);

#endif
