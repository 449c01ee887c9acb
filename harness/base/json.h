/* json.h - cJSON with errors that name the file and the key. */
#ifndef QDELTA_JSON_H
#define QDELTA_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "error.h"
#include "text.h"

/* Parse; where names the source in errors ("tasks/x/task.json").  NULL with err filled (line and column). */
cJSON *json_parse(const char *text, size_t len, const char *where, struct error *err);
cJSON *json_parse_file(const char *path, size_t max_bytes, struct error *err);

/* Required members: the error says what stood there instead. */
bool json_str(const cJSON *o, const char *key, const char **out, const char *where, struct error *err);
bool json_int(const cJSON *o, const char *key, int64_t *out, const char *where, struct error *err);
bool json_num(const cJSON *o, const char *key, double *out, const char *where, struct error *err);
bool json_bool(const cJSON *o, const char *key, bool *out, const char *where, struct error *err);
bool json_array(const cJSON *o, const char *key, const cJSON **out, const char *where, struct error *err);
bool json_object(const cJSON *o, const char *key, const cJSON **out, const char *where, struct error *err);
/* Member or NULL; a JSON null counts as absent. */
const cJSON *json_get(const cJSON *o, const char *key);

/* Append s[0..len) as a JSON string; what is not valid UTF-8 goes through as it is. */
void json_quote(struct text *out, const char *s, size_t len);

#endif
