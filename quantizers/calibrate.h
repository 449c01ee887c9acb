/* calibrate.h - calibration tokens, and the layer-by-layer pass that shows every matrix its inputs. */
#ifndef QDELTA_QUANTIZERS_CALIBRATE_H
#define QDELTA_QUANTIZERS_CALIBRATE_H

#include "job.h"

struct calibration {
    int32_t *ids;               /* [rows][tokens] */
    int rows, tokens;
    char sha256[65];            /* of the ids as int32 little-endian */
    char *name;                 /* file, or "built-in" */
};
/* Windows of tokens from o->calib (text, .jsonl of chats, .i32 of ids) or the built-in text; BOS first in each. */
bool calibration_load(struct job *j, struct error *err);
void calibration_free(struct calibration *c);

/* The built-in text, from nothing but the seed: simple English, arithmetic, code.  Appends about bytes bytes. */
void calibration_text(struct text *out, uint64_t seed, size_t bytes);

/* ---- the stream of all windows through the layers ---- */
struct pass {
    struct job *job;
    struct engine *engine;
    float *x, *ple;             /* [rows * tokens][hidden], [..][n_layers * ple_size] or NULL */
    float *scratch;             /* one group's x */
    int group_rows, groups;     /* sequences that go through a layer at once */
    enum layer_step stream;     /* where in the layer x stands, for pass_step */
    uint64_t memory;            /* bytes that kept inputs may take; 0: none are kept */
    float *kept;                /* [rows * tokens][kept_cols]: inputs of kept_step, the step shown last */
    enum layer_step kept_step;  /* STEP_END: none */
    size_t kept_cols, kept_room;
    const struct engine_tap *tap;       /* of the step at hand, and its next row */
    size_t row;
    enum layer_step from, to;           /* the step at hand goes on from there */
    size_t next_cols;
};
bool pass_open(struct pass *s, struct job *j, struct error *err);
void pass_close(struct pass *s);
/* Run layer over all windows with the tap on; keep: the stream moves on, else it stays before the layer. */
bool pass_layer(struct pass *s, int layer, const struct engine_tap *tap, bool keep, const char *what, struct error *err);
/* The layer's mapped weights need not stay in memory. */
void pass_forget(const struct pass *s, int layer);
/* Show the tap the inputs of a step's matrices, which are not multiplied; STEP_END runs the rest of the layer.  The
 * steps of a layer are to be asked for in order; what lies before is multiplied with the weights of that moment, once
 * where the inputs of the step before fit into memory. */
bool pass_step(struct pass *s, int layer, enum layer_step step, const struct engine_tap *tap, struct error *err);
/* The same by group: begin, group 0, 1 .. s->groups - 1, end.  So two passes can go through a step side by side. */
bool pass_step_begin(struct pass *s, int layer, enum layer_step step, const struct engine_tap *tap, struct error *err);
bool pass_step_group(struct pass *s, int layer, int group, struct error *err);
void pass_step_end(struct pass *s);
/* The stream holds finite numbers, or the layer's name is in err. */
bool pass_check(const struct pass *s, int layer, struct error *err);

#endif
