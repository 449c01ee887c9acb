#include "json.h"

#include <math.h>
#include <string.h>

#include "file.h"

cJSON *json_parse(const char *text, size_t len, const char *where, struct error *err)
{
    const char *end = NULL;
    cJSON *root = cJSON_ParseWithLengthOpts(text, len, &end, false);
    size_t stop = end && end >= text && end <= text + len ? (size_t)(end - text) : 0;
    if (root) {
        while (stop < len && (text[stop] == '\0' || strchr(" \t\r\n", text[stop])))
            stop++;
        if (stop == len)
            return root;
        cJSON_Delete(root);
    }
    size_t line = 1, column = 1;
    for (size_t i = 0; i < stop; i++) {
        column = text[i] == '\n' ? 1 : column + 1;
        line += text[i] == '\n';
    }
    fail(err, STATUS_FORMAT, "%s: line %zu, column %zu: %s", where, line, column,
         root ? "something follows the JSON value, expected the end" : "not valid JSON");
    return NULL;
}

cJSON *json_parse_file(const char *path, size_t max_bytes, struct error *err)
{
    struct text t = { 0 };
    cJSON *root = NULL;
    if (file_read(path, max_bytes, &t, err))
        root = json_parse(text_str(&t), t.len, path, err);
    text_free(&t);
    return root;
}

const cJSON *json_get(const cJSON *o, const char *key)
{
    const cJSON *v = cJSON_IsObject(o) ? cJSON_GetObjectItemCaseSensitive(o, key) : NULL;
    return v && !cJSON_IsNull(v) ? v : NULL;
}

static const char *kind_of(const cJSON *v)
{
    return !v ? "nothing" : cJSON_IsString(v) ? "a string" : cJSON_IsNumber(v) ? "a number"
         : cJSON_IsBool(v) ? "true or false" : cJSON_IsArray(v) ? "an array"
         : cJSON_IsObject(v) ? "an object" : "null";
}

static bool wrong(const cJSON *v, const char *key, const char *want, const char *where, struct error *err)
{
    return fail(err, STATUS_FORMAT, "%s: \"%s\" is %s, expected %s", where, key, kind_of(v), want);
}

bool json_str(const cJSON *o, const char *key, const char **out, const char *where, struct error *err)
{
    const cJSON *v = json_get(o, key);
    if (!cJSON_IsString(v))
        return wrong(v, key, "a string", where, err);
    *out = v->valuestring;
    return true;
}

bool json_int(const cJSON *o, const char *key, int64_t *out, const char *where, struct error *err)
{
    const cJSON *v = json_get(o, key);
    if (!cJSON_IsNumber(v) || v->valuedouble != floor(v->valuedouble) || fabs(v->valuedouble) > 9e15)
        return wrong(v, key, "a whole number", where, err);
    *out = (int64_t)v->valuedouble;
    return true;
}

bool json_num(const cJSON *o, const char *key, double *out, const char *where, struct error *err)
{
    const cJSON *v = json_get(o, key);
    if (!cJSON_IsNumber(v))
        return wrong(v, key, "a number", where, err);
    *out = v->valuedouble;
    return true;
}

bool json_bool(const cJSON *o, const char *key, bool *out, const char *where, struct error *err)
{
    const cJSON *v = json_get(o, key);
    if (!cJSON_IsBool(v))
        return wrong(v, key, "true or false", where, err);
    *out = cJSON_IsTrue(v);
    return true;
}

bool json_array(const cJSON *o, const char *key, const cJSON **out, const char *where, struct error *err)
{
    const cJSON *v = json_get(o, key);
    if (!cJSON_IsArray(v))
        return wrong(v, key, "an array", where, err);
    *out = v;
    return true;
}

bool json_object(const cJSON *o, const char *key, const cJSON **out, const char *where, struct error *err)
{
    const cJSON *v = json_get(o, key);
    if (!cJSON_IsObject(v))
        return wrong(v, key, "an object", where, err);
    *out = v;
    return true;
}

void json_quote(struct text *out, const char *s, size_t len)
{
    text_putc(out, '"');
    for (const char *end = s + len; s < end; s++)
        if (*s == '"' || *s == '\\')
            text_printf(out, "\\%c", *s);
        else if ((unsigned char)*s < 0x20)
            text_printf(out, "\\u%04x", (unsigned char)*s);
        else
            text_putc(out, *s);
    text_putc(out, '"');
}
