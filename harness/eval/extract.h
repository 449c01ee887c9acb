/* extract.h - answers out of generated text: regular expressions, normalisation, equality.
 *
 * The rules are lm-evaluation-harness's: findall, pick the first or last match, its first group that is not
 * empty, strip; then delete patterns, fold case, drop ASCII punctuation, on value and reference alike. */
#ifndef QDELTA_EVAL_EXTRACT_H
#define QDELTA_EVAL_EXTRACT_H

#include "base/base.h"

struct extractor;

/* rules: list of {name, regex, pick} or NULL (the whole output, rule "none"); normalise: object or NULL. */
bool extractor_new(struct extractor **out, const cJSON *rules, const cJSON *normalise, const char *where, struct error *err);
void extractor_free(struct extractor *e);       /* fine on NULL */
int extractor_rules(const struct extractor *e);
const char *extractor_rule_name(const struct extractor *e, int rule);
/* Append what rule finds in output, normalised; *found false: nothing (out untouched). */
bool extractor_apply(const struct extractor *e, int rule, const char *output, size_t len, struct text *out, bool *found,
                     struct error *err);
bool extractor_normalise(const struct extractor *e, const char *s, size_t len, struct text *out, struct error *err);
/* Append s with each byte that is not valid UTF-8 as U+FFFD. */
void text_add_valid(struct text *out, const char *s, size_t len);

#endif
