/* methods.c - quantizers[]: a row a method. */
#include "awq.h"
#include "gptq.h"
#include "hqq.h"
#include "imatrix.h"
#include "job.h"
#include "lattice.h"

static const char *const file_recipes[] = {
    "q4_0", "q8_0", "q4_k_m", "q4_k_s", "q5_k_m", "q5_k_s", "q6_k", "q4_1", "q5_0", "q5_1", "iq4_nl", "iq4_xs", "q3_k_l",
    "q3_k_m", "q3_k_s", "q2_k", "google-q4_0", "q4_0-q8_0", "bf16", "f16", "f32", "q4_k", "q5_k", "q3_k", NULL,
};
static const char *const solved_recipes[] = { "q4_0", "q4_1", "q4_k_s", "q4_k_m", "iq4_nl", "google-q4_0", "q4_0-q8_0", "q4_k", "int4-g128", "int4-g128-asym",
                                              "int4-g32", NULL };
static const char *const awq_formats[] = { "q4_0", "q4_1", "google-q4_0", "q4_0-q8_0", "int4-g128-asym", "int4-g32-asym", NULL };
static const char *const hqq_formats[] = { "q4_1", NULL };
static const char *const nf4_formats[] = { "nf4", "nf4-double", NULL }, *const fp4_formats[] = { "fp4", "fp4-double", NULL };
static const char *const q4_0_recipes[] = { "q4_0", "google-q4_0", "q4_0-q8_0", NULL };

static const struct quantizer_setting gptq_settings[] = {
    { "algorithm", "gptq", "cd: coordinate descent alone; rtn: scales by diag(H), no compensation", "gptq|cd|rtn", 0, 0 },
    { "order", "act", "columns by diag(H), or left to right", "act|natural", 0, 0 },
    { "damp", "0.5", "added to H, relative to its mean diagonal", NULL, 1e-6, 1000 },
    { "shrink", "0", "share taken off H's off-diagonal entries", NULL, 0, 1 },
    { "drift", "auto", "make up for the inputs' drift, by a second stream; auto: where that is quick", "auto|1|0", 0, 0 },
    { "cd", "4", "passes of coordinate descent after the sweep", NULL, 0, 100 },
    { "search", "2", "rounds of choosing scale and codes of a block together after that (grids with a scale a block)", NULL, 0, 100 },
    { "memory", "2048", "MiB of Hessians in one calibration pass", NULL, 1, 1e7 },
    { 0 },
};
static const struct quantizer_setting awq_settings[] = {
    { "grid", "20", "scale candidates beside the identity", NULL, 1, 1000 },
    { "clip", "1", "search the largest weight kept per row and group; 0: none", NULL, 0, 1 },
    { "damp", "0.5", "added to the second moments that judge scales and clips", NULL, 0, 1000 },
    { 0 },
};

static bool keep_lattice(const struct part *p, const float *x, void *out)
{
    if (p->to != FORMAT_Q4_0)
        return false;
    lattice_row_q4_0(x, p->source->format, out, p->source->cols);
    return true;
}

const struct method methods[] = {
    { .info = { "rtn", "rounding by the format's own rule (with --imatrix: weighted search)", file_recipes, false, NULL },
      .default_format = "q4_0", .load = imatrix_load },
    { .info = { "imatrix", "rounding weighted by how large each column's input is, from a calibration pass", file_recipes, true, NULL },
      .default_format = "q4_0", .load = imatrix_load },
    { .info = { "lattice", "QAT checkpoints: blocks already on a Q4_0 grid keep their codes, the rest is rounded", q4_0_recipes, false, NULL },
      .default_format = "q4_0", .row = keep_lattice, .row_name = "lattice", .row_format = FORMAT_Q4_0 },
    { .info = { "gptq", "rounding that makes up for each column's error in the later ones, against calibration inputs", solved_recipes, true, gptq_settings },
      .default_format = "q4_0", .prepare = gptq_prepare },
    { .info = { "awq", "columns with large inputs made larger before rounding, folded into norms and up", awq_formats, true, awq_settings },
      .default_format = "q4_0", .prepare = awq_prepare },
    { .info = { "hqq", "the min of each block by half-quadratic search of a 0.7-norm error; no data", hqq_formats, false, NULL },
      .default_format = "q4_1", .row = hqq_row, .row_name = "hqq", .row_format = FORMAT_Q4_1 },
    { .info = { "nf4", "bitsandbytes NF4, blocks of 64, as a Hugging Face folder", nf4_formats, false, NULL }, .default_format = "nf4" },
    { .info = { "fp4", "bitsandbytes FP4, blocks of 64, as a Hugging Face folder", fp4_formats, false, NULL }, .default_format = "fp4" },
};
const int n_methods = (int)ARRAY_LEN(methods);

static const struct method convert = {
    .info = { "convert", "values kept", NULL, false, NULL }, .row = keep_lattice, .row_name = "lattice", .row_format = FORMAT_Q4_0,
};
const struct method *const method_convert = &convert;

const struct quantizer_info *quantizer_list(int *n)
{
    static struct quantizer_info list[ARRAY_LEN(methods)];
    *n = n_methods;
    for (int i = 0; i < n_methods; i++)
        list[i] = methods[i].info;
    return list;
}
