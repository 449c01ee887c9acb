/* job.h - inside of quantizers/: one run of quantize_model or convert_model, and the table of methods.
 *
 * A run makes a list of parts (output tensors, embeddings first, then layer by layer), lets the method choose
 * values where it wants to, and streams everything else through quantize_row while writing.  A method that goes layer
 * by layer has each written as soon as it is done, so a model larger than memory can be quantized. */
#ifndef QDELTA_QUANTIZERS_JOB_H
#define QDELTA_QUANTIZERS_JOB_H

#include "quantizers.h"
#include "recipes.h"

struct imatrix;
struct calibration;
struct job;

struct part {                   /* one tensor of the output */
    const struct tensor *source;
    enum format_id to;
    int layer;                  /* -1: outside the layers */
    bool matrix;                /* one of those that the recipe quantizes to its base format inside a layer */
    int head_size;              /* > 0: rows are re-ordered between the two rotary layouts while writing */
    bool to_adjacent;
    /* AWQ's folding: weight (r, c) is multiplied by col_scale[c] / row_scale[r]; NULL = 1. Owned. */
    float *col_scale, *row_scale;
    /* Blocks chosen by a method, rows in the source's order; NULL: quantize_row while writing. Owned. */
    uint8_t *data;
    const char *method;         /* for the report: "rtn", "gptq", "fallback cd", "copy" */
    double loss, rms;           /* NAN: not measured */
};

struct method {
    struct quantizer_info info;
    const char *default_format;
    bool (*load)(struct job *j, struct error *err);     /* what recipes depend on (an imatrix); may be NULL */
    /* Choose values before anything is written (calibration, whole-model searches).  May be NULL. */
    bool (*prepare)(struct job *j, struct error *err);
    /* Blocks of formats that the method rounds in a way of its own; false: quantize_row does it. */
    bool (*row)(const struct part *p, const float *x, void *out);
    const char *row_name;       /* what the report calls that, "lattice" */
    enum format_id row_format;
};
extern const struct method methods[];
extern const int n_methods;
extern const struct method *const method_convert;       /* values kept: convert_model */

struct job {
    const struct model *model;
    const struct quantize_options *o;
    const struct method *method;
    const struct recipe *recipe;
    const char *format;                 /* FORMAT of METHOD:FORMAT */
    struct pool *pool;
    struct part *parts;
    int n_parts;
    struct imatrix *imatrix;            /* NULL: none */
    struct calibration *calibration;    /* NULL: none was needed */
    struct text fallbacks;              /* "blk.0.ffn_down.weight: cd\n", for metadata */
    struct text notes;                  /* further provenance: "key=value\n" under qdelta.quantize. */
    struct quantize_report *report;
    const char *out_path;
    struct output *out;                 /* NULL: nothing was written yet */
    int written;                        /* parts that went to out */
};

/* Setting KEY, which is one of the method's rows or of those that all have; what was given has been checked before the method runs. */
double setting_number(const struct job *j, const char *key);
int setting_word(const struct job *j, const char *key);     /* index among the words of its row */

void job_warn(const struct job *j, const char *format, ...) __attribute__((format(printf, 2, 3)));
void job_progress(const struct job *j, const char *what, int done, int total);

/* Row r of matrix m of a part, float32, folding applied.  Not finite, or beyond what a scale of the part's format
 * holds: false, err names tensor and row. */
bool part_row(const struct part *p, int64_t m, int64_t r, float *out, struct error *err);
/* Every row of a part can be read like that. */
bool part_check(const struct job *j, const struct part *p, struct error *err);
/* Source row of output row r, when heads change between "pairs side by side" and "half a head apart". */
static inline int64_t part_source_row(const struct part *p, int64_t r)
{
    int64_t h = p->head_size;
    if (!h)
        return r;
    int64_t head = r / h * h, e = r % h;
    return head + (p->to_adjacent ? e % 2 * (h / 2) + e / 2 : 2 * (e % (h / 2)) + e / (h / 2));
}
/* The part that writes tensor name, or NULL. */
struct part *job_part(const struct job *j, const char *name);
/* All rows of matrix m as float32 [rows][cols] in out, read with the pool. */
bool part_matrix(const struct job *j, const struct part *p, int64_t m, float *out, struct error *err);

/* ---- output ---- */
/* Metadata of the output: the source's, less what does not hold any more, plus ours. */
struct kv_list {
    struct gguf_kv *kv;
    int n;
    size_t cap;
    struct arena arena;
};
bool kv_list_make(struct kv_list *l, const struct job *j, struct error *err);
void kv_list_free(struct kv_list *l);

/* A file or folder in the making: parts in their order, then commit, which makes it appear under its name with the
 * metadata that the job has by then; discard removes what there is.  Both free it. */
struct output {
    struct job *job;
    bool (*part)(struct output *o, struct part *p, struct error *err);
    bool (*commit)(struct output *o, struct error *err);
    void (*discard)(struct output *o);
};
struct output *gguf_output(struct job *j, const char *path, struct error *err);
struct output *folder_output(struct job *j, const char *path, struct error *err);
/* Write what was not written yet of the parts up to this layer; blocks that a method chose are freed. */
bool job_write(struct job *j, int layer, struct error *err);

/* Peak resident memory of this process so far. */
uint64_t peak_rss(void);

#endif
