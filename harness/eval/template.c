#include "template.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <utf8proc.h>

/* ---- Python's text rules ---- */

bool is_space(uint32_t c)
{
    return (c >= 0x09 && c <= 0x0D) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

size_t trailing_space(const char *s, size_t len)
{
    size_t end = len;
    while (end) {
        size_t start = end - 1;
        while (start && ((unsigned char)s[start] & 0xC0) == 0x80 && end - start < 4)
            start--;
        uint32_t code;
        if (utf8_decode(s + start, end - start, &code) != (int)(end - start) || !is_space(code))
            break;
        end = start;
    }
    return len - end;
}

void strip_space(const char **s, size_t *len)
{
    uint32_t code;
    for (int n; (n = utf8_decode(*s, *len, &code)) > 0 && is_space(code);) {
        *s += n;
        *len -= (size_t)n;
    }
    *len -= trailing_space(*s, *len);
}

static void map_case(struct text *t, size_t from, utf8proc_int32_t (*to)(utf8proc_int32_t))
{
    struct text out = { 0 };
    text_add(&out, text_str(t), from);
    for (size_t i = from; i < t->len;) {
        uint32_t code;
        char bytes[4];
        int n = utf8_decode(t->data + i, t->len - i, &code);
        int made = n ? utf8_encode((uint32_t)to((utf8proc_int32_t)code), bytes) : 0;
        if (made)
            text_add(&out, bytes, (size_t)made);
        else
            text_add(&out, t->data + i, (size_t)(n ? n : 1));
        i += (size_t)(n ? n : 1);
    }
    text_free(t);
    *t = out;
}

void text_lower(struct text *t)
{
    map_case(t, 0, utf8proc_tolower);
}

/* ---- filters ---- */

static bool filter_strip(struct text *t)
{
    const char *s = text_str(t);
    size_t len = t->len;
    strip_space(&s, &len);
    if (len)
        memmove(t->data, s, len);
    t->len = len;
    if (t->data)
        t->data[len] = '\0';
    return true;
}

static bool filter_upper(struct text *t)
{
    map_case(t, 0, utf8proc_toupper);
    return true;
}

static bool filter_lower(struct text *t)
{
    text_lower(t);
    return true;
}

static bool filter_capitalize(struct text *t)
{
    uint32_t code;
    int first = utf8_decode(text_str(t), t->len, &code);
    char bytes[4];
    int made = first ? utf8_encode((uint32_t)utf8proc_totitle((utf8proc_int32_t)code), bytes) : 0;
    if (!made)
        return true;
    struct text out = { 0 };
    text_add(&out, bytes, (size_t)made);
    text_add(&out, t->data + first, t->len - (size_t)first);
    text_free(t);
    *t = out;
    map_case(t, (size_t)made, utf8proc_tolower);
    return true;
}

static bool filter_spaces(struct text *t)
{
    for (size_t i = 0; i < t->len; i++)
        if (t->data[i] == '_')
            t->data[i] = ' ';
    return true;
}

static bool filter_letter(struct text *t)
{
    int64_t index;
    if (!parse_int(text_str(t), 0, 25, &index))
        return false;
    text_clear(t);
    text_putc(t, (char)('A' + index));
    return true;
}

static void replace_all(struct text *t, const char *from, const char *to)
{
    struct text out = { 0 };
    const char *s = text_str(t), *hit;
    for (; (hit = strstr(s, from)); s = hit + strlen(from)) {
        text_add(&out, s, (size_t)(hit - s));
        text_puts(&out, to);
    }
    text_puts(&out, s);
    text_free(t);
    *t = out;
}

/* Delete "[...]" on one line, shortest first: \[.*?\] */
static void drop_brackets(struct text *t)
{
    struct text out = { 0 };
    const char *s = text_str(t);
    for (const char *p = s; *p;) {
        size_t span = *p == '[' ? strcspn(p, "]\n") : 0;
        if (*p == '[' && p[span] == ']')
            p += span + 1;
        else
            text_putc(&out, *p++);
    }
    text_free(t);
    *t = out;
}

static bool filter_hellaswag(struct text *t)
{
    filter_strip(t);
    replace_all(t, " [title]", ". ");
    drop_brackets(t);
    replace_all(t, "  ", " ");
    return true;
}

static const struct filter {
    const char *name;
    bool (*apply)(struct text *t);      /* false: this text cannot be filtered so */
} filters[] = {
    { "strip", filter_strip },       { "upper", filter_upper },   { "lower", filter_lower },
    { "capitalize", filter_capitalize }, { "spaces", filter_spaces }, { "letter", filter_letter },
    { "hellaswag", filter_hellaswag },
};

static const struct filter *filter_find(const char *name, size_t len)
{
    for (size_t i = 0; i < ARRAY_LEN(filters); i++)
        if (strlen(filters[i].name) == len && memcmp(filters[i].name, name, len) == 0)
            return &filters[i];
    return NULL;
}

/* ---- compiled form: literal, hole, literal, hole ... ---- */

enum { MAX_FILTERS = 8 };

struct part {
    char *text;                         /* literal, or the hole's path */
    bool hole;
    const struct filter *filters[MAX_FILTERS];
    int n_filters;
};
struct template {
    char *where;
    const struct filter *whole;         /* over the filled text; may be NULL */
    struct part *parts;
    size_t n, cap;
};

static struct part *part_add(struct template *t, const char *s, size_t len, bool hole, struct error *err)
{
    if (!mem_grow(&t->parts, &t->cap, t->n + 1, sizeof *t->parts, err))
        return NULL;
    struct part *p = &t->parts[t->n];
    p->hole = hole;
    p->text = str_dup_n(s, len, err);
    if (!p->text)
        return NULL;
    t->n++;
    return p;
}

static bool no_filter(const struct template *t, const char *name, size_t len, struct error *err)
{
    const char *names[ARRAY_LEN(filters)];
    char given[32];
    for (size_t i = 0; i < ARRAY_LEN(filters); i++)
        names[i] = filters[i].name;
    snprintf(given, sizeof given, "%.*s", (int)(len < 31 ? len : 31), name);
    const char *near = nearest_word(given, names, ARRAY_LEN(filters));
    return fail(err, STATUS_INPUT, "%s: no filter \"%s\"%s%s", t->where, given, near ? "; nearest: " : "", near ? near : "");
}

static bool hole_add(struct template *t, const char *s, size_t len, struct error *err)
{
    const char *bar = memchr(s, '|', len);
    size_t path = bar ? (size_t)(bar - s) : len;
    if (!path || memchr(s, '{', len))
        return fail(err, STATUS_INPUT, "%s: \"{%.*s}\" is not a field; a brace is written {{ or }}", t->where, (int)len, s);
    struct part *p = part_add(t, s, path, true, err);
    if (!p)
        return false;
    for (const char *f = s + path, *end = s + len; f < end;) {
        f++;
        const char *next = memchr(f, '|', (size_t)(end - f));
        size_t n = (size_t)((next ? next : end) - f);
        const struct filter *filter = filter_find(f, n);
        if (!filter)
            return no_filter(t, f, n, err);
        if (p->n_filters == MAX_FILTERS)
            return fail(err, STATUS_INPUT, "%s: more than %d filters in one hole", t->where, MAX_FILTERS);
        p->filters[p->n_filters++] = filter;
        f += n;
    }
    return true;
}

static bool compile(struct template *t, const char *text, struct error *err)
{
    struct text literal = { 0 };
    bool ok = true;
    for (const char *s = text; ok && *s;) {
        if ((*s == '{' || *s == '}') && s[1] == *s) {
            text_putc(&literal, *s);
            s += 2;
        } else if (*s == '{') {
            const char *end = strchr(s, '}');
            if (!end) {
                ok = fail(err, STATUS_INPUT, "%s: \"%.20s\" has no closing brace (a brace itself is written {{)", t->where, s);
                break;
            }
            ok = (!literal.len || part_add(t, text_str(&literal), literal.len, false, err)) &&
                 hole_add(t, s + 1, (size_t)(end - s - 1), err);
            text_clear(&literal);
            s = end + 1;
        } else if (*s == '}') {
            ok = fail(err, STATUS_INPUT, "%s: a closing brace without an opening one (a brace itself is written }})", t->where);
        } else
            text_putc(&literal, *s++);
    }
    ok = ok && text_ok(&literal, err) && (!literal.len || part_add(t, text_str(&literal), literal.len, false, err));
    text_free(&literal);
    return ok;
}

bool template_new(struct template **out, const char *text, const char *where, struct error *err)
{
    *out = NULL;
    struct template *t = mem_new(1, sizeof *t, err);
    if (t && (t->where = str_dup(where, err)) && compile(t, text, err)) {
        *out = t;
        return true;
    }
    template_free(t);
    return false;
}

bool template_filter(struct template *t, const char *filter, struct error *err)
{
    t->whole = filter_find(filter, strlen(filter));
    return t->whole || no_filter(t, filter, strlen(filter), err);
}

void template_free(struct template *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        free(t->parts[i].text);
    free(t->parts);
    free(t->where);
    free(t);
}

/* ---- fields ---- */

const cJSON *field_find(const cJSON *record, const char *path)
{
    const cJSON *whole = json_get(record, path);    /* a CSV header may hold dots */
    if (whole)
        return whole;
    const char *dot = strchr(path, '.');
    size_t len = dot ? (size_t)(dot - path) : strlen(path);
    char step[128];
    if (len >= sizeof step)
        return NULL;
    memcpy(step, path, len);
    step[len] = '\0';
    int64_t index;
    const cJSON *next = cJSON_IsArray(record) && parse_int(step, 0, 1 << 20, &index) ? cJSON_GetArrayItem(record, (int)index)
                      : dot ? json_get(record, step) : NULL;
    return next && dot ? field_find(next, dot + 1) : next;
}

bool field_text(const cJSON *v, struct text *out)
{
    if (cJSON_IsString(v))
        text_puts(out, v->valuestring);
    else if (cJSON_IsBool(v))
        text_puts(out, cJSON_IsTrue(v) ? "true" : "false");
    else if (cJSON_IsNumber(v) && v->valuedouble == floor(v->valuedouble) && fabs(v->valuedouble) < 9e15)
        text_printf(out, "%.0f", v->valuedouble);
    else if (cJSON_IsNumber(v)) {
        char shortest[40];
        for (int digits = 15; digits <= 17; digits++) {
            snprintf(shortest, sizeof shortest, "%.*g", digits, v->valuedouble);
            if (strtod(shortest, NULL) == v->valuedouble)
                break;
        }
        text_puts(out, shortest);
    } else
        return false;
    return true;
}

static bool element_text(const cJSON *e, const char *path, struct text *out)
{
    if (!e)
        return false;
    if (strcmp(path, "item") == 0 || strcmp(path, "value") == 0)
        return field_text(e, out);
    if (strcmp(path, "key") == 0 && e->string)
        return text_puts(out, e->string), true;
    return field_text(field_find(e, path), out);
}

static const char *nearest_field(const struct scope *s, const char *path)
{
    const char *words[64];
    size_t n = 0;
    for (const struct scope_name *x = s->names; x && x->name && n < ARRAY_LEN(words); x++)
        if (x->value)
            words[n++] = x->name;
    for (const cJSON *f = s->record ? s->record->child : NULL; f && n < ARRAY_LEN(words); f = f->next)
        if (f->string)
            words[n++] = f->string;
    return nearest_word(path, words, n);
}

static bool hole_value(const struct template *t, const char *path, const struct scope *s, struct text *out, struct error *err)
{
    for (const struct scope_name *x = s->names; x && x->name; x++)
        if (x->value && strcmp(x->name, path) == 0)
            return text_puts(out, x->value), true;
    const cJSON *v = field_find(s->record, path);
    if (element_text(s->element, path, out) || field_text(v, out))
        return true;
    if (v)
        return fail(err, STATUS_INPUT, "field \"%s\" is %s, expected a text or a number (%s)", path,
                    cJSON_IsArray(v) ? "a list" : "an object", t->where);
    const char *near = nearest_field(s, path);
    return fail(err, STATUS_INPUT, "no field \"%s\"%s%s%s (asked for by %s)", path, near ? "; nearest: \"" : "",
                near ? near : "", near ? "\"" : "", t->where);
}

static bool fill(const struct template *t, const struct scope *s, struct text *out, struct error *err)
{
    struct text value = { 0 };
    bool ok = true;
    for (size_t i = 0; ok && i < t->n; i++) {
        const struct part *p = &t->parts[i];
        if (!p->hole) {
            text_puts(out, p->text);
            continue;
        }
        text_clear(&value);
        ok = hole_value(t, p->text, s, &value, err);
        for (int f = 0; ok && f < p->n_filters; f++)
            if (!p->filters[f]->apply(&value))
                ok = fail(err, STATUS_INPUT, "field \"%s\" is \"%.40s\", which filter %s (%s) cannot take", p->text,
                          text_str(&value), p->filters[f]->name, t->where);
        text_add(out, text_str(&value), value.len);
    }
    ok = ok && text_ok(&value, err) && text_ok(out, err);
    text_free(&value);
    return ok;
}

bool template_render(const struct template *t, const struct scope *s, struct text *out, struct error *err)
{
    struct text filled = { 0 };
    if (!t->whole)
        return fill(t, s, out, err);
    bool ok = fill(t, s, &filled, err) &&
              (t->whole->apply(&filled) || fail(err, STATUS_INPUT, "the text of %s is nothing that filter %s can take", t->where, t->whole->name));
    text_add(out, text_str(&filled), filled.len);
    ok = ok && text_ok(&filled, err) && text_ok(out, err);
    text_free(&filled);
    return ok;
}
