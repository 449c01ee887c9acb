/* quantizers.h - the door of quantizers/: bf16 tensors -> blocks, model file -> smaller model file.
 *
 * A method (rtn, gptq, awq ...) chooses values, a format holds them: `-q METHOD:FORMAT`.  quantizers[] has a
 * row a method, recipes[] a row a whole-file layout (which tensor gets which type).  The result does not
 * depend on threads.  The output appears under its name only when whole, and its metadata names method,
 * options, calibration hash and program version. */
#ifndef QDELTA_QUANTIZERS_H
#define QDELTA_QUANTIZERS_H

#include "base/base.h"
#include "engine/engine.h"
#include "model/model.h"

struct quantize_options {
    const char *method;         /* "rtn:q4_0", "gptq:q4_0", "rtn:q4_k_m", "nf4", ... */
    const char *calib;          /* text or JSONL of chats; NULL: the built-in text, with a warning */
    int calib_rows, calib_tokens;       /* 0 = 128 x 1024 */
    const char *imatrix_in, *imatrix_out;
    uint64_t seed;
    int threads;
    bool requantize;            /* allow a source that is quantized already */
    const char *program_version;
    const char *const *settings;        /* "damp=0.05", "order=act" ..., NULL-terminated or NULL */
    void (*progress)(void *ctx, const char *what, int done, int total);
    void (*warn)(void *ctx, const char *text);
    void *ctx;
};
struct quantize_row {           /* one tensor of the output, for the table */
    char *name;
    enum format_id from, to;
    const char *method;         /* what was really done: "gptq", "fallback cd", "copy" */
    double loss, relative_rms;  /* NAN when not measured */
};
struct quantize_report {
    struct quantize_row *rows;
    int n;
    double bits_per_weight, seconds;
    uint64_t bytes_in, bytes_out, peak_bytes;
};
/* out ends in ".gguf": GGUF; else a Hugging Face folder (methods that have one). */
bool quantize_model(const struct model *m, const char *out, const struct quantize_options *o,
                    struct quantize_report *report, struct error *err);
void quantize_report_free(struct quantize_report *r);

/* File format to file format without changing a value. recipe NULL keeps every type; lattice: blocks that lie
 * on a Q4_0 grid keep their codes. */
bool convert_model(const struct model *m, const char *out, const char *recipe, const struct quantize_options *o,
                   struct quantize_report *report, struct error *err);

struct quantizer_setting {      /* of --set KEY=VALUE */
    const char *key, *def;      /* default, as text */
    const char *help;
    const char *words;          /* "act|natural"; NULL: a number from lo to hi */
    double lo, hi;
};
struct quantizer_info {
    const char *name, *summary;
    const char *const *formats; /* NULL-terminated */
    bool needs_calibration;
    const struct quantizer_setting *settings;   /* ends with a NULL key; NULL: none */
};
const struct quantizer_info *quantizer_list(int *n);
const struct quantizer_setting *quantizer_common_settings(void);        /* those that every method has; a NULL key ends */

/* One row of weights to blocks by the reference rule of the format (ggml's), weights (importance) may be NULL.
 * n is a multiple of the format's block.  False when the format cannot be written. */
bool quantize_row(enum format_id f, const float *x, const float *importance, void *out, int64_t n);

/* ---- lattice audit ---- */
struct lattice_row {            /* a tensor class, or one tensor */
    char *name;
    int64_t blocks, zero, on_grid;
    int64_t by_k[16];           /* on-grid blocks by the code of the extremum: index k + 8, k in -8..7 */
    int64_t scale_bf16, scale_f16, subnormal;
    double stock_rms, stock_changed;    /* what reference Q4_0 rounding would lose: relative RMS, share of changed blocks */
    double lattice_rms;
};
bool lattice_audit(const struct model *m, const struct model *against /* may be NULL */, int threads,
                   struct lattice_row **rows, int *n, struct error *err);
void lattice_free(struct lattice_row *rows, int n);

#endif
