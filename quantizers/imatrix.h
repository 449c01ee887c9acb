/* imatrix.h - importance of every weight column: the mean square of its input over the calibration tokens.
 *
 * Read from and written to llama.cpp's imatrix GGUF (and read from its old .dat), or collected by our own
 * calibration pass. */
#ifndef QDELTA_QUANTIZERS_IMATRIX_H
#define QDELTA_QUANTIZERS_IMATRIX_H

#include "job.h"

struct imatrix_entry {
    char *name;                 /* "blk.0.attn_q.weight" */
    int64_t cols, mats;
    float *sum2;                /* [mats][cols] */
    float *counts;              /* [mats] tokens seen */
    float *mean;                /* [mats][cols] sum2 / counts, 1 where nothing was seen */
};
struct imatrix {
    struct imatrix_entry *entries;
    int n;
    size_t cap;
    char *source;               /* file, or "calibration" */
    int64_t chunks, chunk_size;
};

bool imatrix_read(struct imatrix **out, const char *path, struct error *err);
bool imatrix_write(const struct imatrix *im, const char *path, const char *dataset, struct error *err);
bool imatrix_new(struct imatrix **out, const char *source, struct error *err);
/* The entry called name, made with zero sums when missing; NULL on error. */
struct imatrix_entry *imatrix_entry(struct imatrix *im, const char *name, int64_t cols, int64_t mats, struct error *err);
bool imatrix_finish(struct imatrix *im, struct error *err);     /* fills mean */
void imatrix_free(struct imatrix *im);

/* [mats][cols] for tensor t, or NULL: no imatrix, no entry, or a token table. */
const float *imatrix_importance(const struct imatrix *im, const struct tensor *t);

/* One pass of the calibration tokens through the model, taps on every matrix. */
bool imatrix_collect(struct job *j, struct imatrix **out, struct error *err);
/* Load o->imatrix_in, or collect; write o->imatrix_out; notes for the metadata. */
bool imatrix_load(struct job *j, struct error *err);

#endif
