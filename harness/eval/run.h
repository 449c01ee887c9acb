/* run.h - inside eval/: items as tokens, and what the kinds share while a task is asked.
 *
 * encode.c turns a rendered item into token sequences, schedule.c groups items by shared prefix and calls the
 * kind, choose.c and generate.c ask the engine and hand rows to writer.c, which hands them to the sink. */
#ifndef QDELTA_EVAL_RUN_H
#define QDELTA_EVAL_RUN_H

#include "kinds.h"

/* ---- encode.c ---- */

struct token_seq {                  /* what the model reads: context, then a continuation to score (generate: none) */
    int32_t *ids;
    int n, n_context;
};
struct request {                    /* one item as tokens; everything lives in the arena given */
    struct item_text text;
    struct token_seq *seqs;
    int n_seqs;
    char prompt_hash[65];
    bool too_long;                  /* does not fit the model's context; never cut, never asked */
    bool crossed;                   /* a token spans the border of context and continuation */
};
struct encoder {
    const struct task *task;
    const struct model *model;
    enum chat_family chat;          /* CHAT_NONE: plain text */
};
bool request_encode(const struct encoder *c, int item, struct arena *a, struct request *out, struct error *err);

/* ---- schedule.c ---- */

struct family {                     /* requests that begin with the same tokens */
    int first, n;                   /* in the portion */
    int n_prefix;                   /* tokens computed once for all; 0 = none */
    struct seq *prefix;             /* NULL until it is needed */
    int left;                       /* requests not answered yet */
};
struct portion {                    /* requests that are encoded, and scheduled, together */
    struct arena arena;
    struct request *requests;
    int *family_of;
    int n;
    struct family *families;
    int n_families;
};
struct run {
    struct engine *engine;
    const struct model *model;
    const struct task *task;
    const struct eval_options *options;
    const struct eval_sink *sink;
    struct row_writer *writer;
    struct encoder encoder;
    int done, total;
    int64_t prompt_tokens, new_tokens;      /* computed: a shared prefix counts once */
    int n_crossed, n_too_long;
};
/* Compute the prefixes of the families in requests [first, first + n) that lack them. */
bool prefixes_open(struct run *r, struct portion *p, int first, int n, struct error *err);
/* One request of the family is answered; its prefix is closed with the last. */
void family_done(struct family *f);
bool run_cancelled(const struct run *r);
/* Hand the row on and count it. */
bool run_put(struct run *r, const struct request *q, struct item_row *row, struct error *err);

/* ---- writer.c: rows to the sink, from a thread of their own ---- */

bool writer_open(struct row_writer **out, const struct eval_sink *sink, struct error *err);     /* close it also after a failure */
bool writer_put(struct row_writer *w, const struct item_row *row, struct error *err);           /* copies the row */
bool writer_close(struct row_writer *w, struct error *err);     /* writes what waits; false: a row could not be written */

/* ---- the kinds ---- */

bool choose_portion(struct run *r, struct portion *p, struct error *err);       /* choose.c: choice, partial */
bool generate_portion(struct run *r, struct portion *p, struct error *err);     /* generate.c */

#endif
