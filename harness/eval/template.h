/* template.h - texts with holes: "Question: {question|strip}\nAnswer:" filled from a record.
 *
 * A hole names a field ("a", "a.b" inside an object, "a.0" in a list) and filters that run left to right.
 * Names that the task adds (group, row, context ...) are looked up before the record's own. */
#ifndef QDELTA_EVAL_TEMPLATE_H
#define QDELTA_EVAL_TEMPLATE_H

#include "base/base.h"

struct template;

/* where names the text in messages ("tasks/mmlu/task.json: prompt"). */
bool template_new(struct template **out, const char *text, const char *where, struct error *err);
/* Run a filter over the whole text after it is filled. */
bool template_filter(struct template *t, const char *filter, struct error *err);
void template_free(struct template *t);             /* fine on NULL */

struct scope_name {
    const char *name, *value;       /* value NULL: not there */
};
struct scope {
    const struct scope_name *names; /* ended by a NULL name; may be NULL */
    const cJSON *element;           /* the choice at hand: {item}, {key}, {value}, an object's fields; may be NULL */
    const cJSON *record;
};
/* Append; the error names the hole and the nearest field that there is. */
bool template_render(const struct template *t, const struct scope *s, struct text *out, struct error *err);

/* The value at a dotted path ("question.choices", "list.0"), or NULL. */
const cJSON *field_find(const cJSON *record, const char *path);
/* A text, number or truth value as text; false for anything else. */
bool field_text(const cJSON *value, struct text *out);

/* White space as Python's str.strip sees it. */
bool is_space(uint32_t code);
/* The part of s[0..len) without outer white space. */
void strip_space(const char **s, size_t *len);
/* Bytes of white space at the end of s[0..len). */
size_t trailing_space(const char *s, size_t len);
void text_lower(struct text *t);                    /* Unicode lower case, in place */

#endif
