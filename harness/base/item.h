/* item.h - one answered item: what evaluation measures and the store keeps.
 *
 * The item row is the product; whatever a report says is derived from these rows.  Strings and
 * arrays are borrowed from whoever filled the row and die with the call that hands it on. */
#ifndef QDELTA_ITEM_H
#define QDELTA_ITEM_H

#include <stdint.h>

struct item_choice {
    double logprob;             /* sum over the choice's tokens, natural log */
    int tokens;
    int chars, bytes;           /* of the choice text without the delimiter: for acc_norm, acc_bytes */
};
struct item_extraction {
    const char *rule;           /* "strict-match" */
    const char *value;          /* extracted text after normalisation; NULL: nothing found (invalid) */
};
struct item_score {
    const char *metric;         /* "acc", "exact_match,strict-match" */
    double value;               /* 0 or 1, or a fraction */
};

struct item_row {
    const char *id;             /* unique in the task: "abstract_algebra/17" */
    const char *group;          /* subject, "" when the task has none */
    char prompt_hash[65];       /* SHA-256 of the int32 little-endian token ids of the prompt, hex */
    int prompt_tokens;          /* with shared prefix */
    const char *gold;           /* "B", "18" */
    const char *answer;         /* chosen letter or main extraction; NULL: invalid */
    const char *output;         /* generated text; NULL for choices */
    const char *finish;         /* "choice", "eos", "stop", "length"; "too-long": the prompt does not fit the
                                   context, scored 0, never cut */
    int output_tokens;
    double margin;              /* top-1 minus top-2 log-probability (choices: between choices;
                                   generation: the smallest over the generated tokens); NAN if unknown */
    int64_t elapsed_ns;         /* compute time charged to this item */
    const struct item_choice *choices;
    int n_choices;
    const struct item_extraction *extractions;
    int n_extractions;
    const struct item_score *scores;
    int n_scores;
};

#endif
