#include "reader.h"

#include <stdlib.h>
#include <string.h>

#include <csv.h>

#include "template.h"

enum { MAX_DATA_BYTES = 1 << 30 };

void records_free(struct records *r)
{
    for (size_t i = 0; i < r->n_roots; i++)
        cJSON_Delete(r->roots[i]);
    names_free(r->files, r->n_files);
    free(r->roots);
    free(r->list);
    *r = (struct records){ 0 };
}

const char *record_where(const struct records *r, const struct record *rec, char *buffer, size_t size)
{
    if (rec->line)
        snprintf(buffer, size, "%s: row %d (line %d)", r->files[rec->file], rec->row + 1, rec->line);
    else
        snprintf(buffer, size, "%s: element %d", r->files[rec->file], rec->row + 1);
    return buffer;
}

static bool root_add(struct records *r, cJSON *root, struct error *err)
{
    if (mem_grow(&r->roots, &r->roots_cap, r->n_roots + 1, sizeof *r->roots, err)) {
        r->roots[r->n_roots++] = root;
        return true;
    }
    cJSON_Delete(root);
    return false;
}

static bool record_add(struct records *r, const cJSON *fields, int row, int line, struct error *err)
{
    if (!mem_grow(&r->list, &r->cap, r->n + 1, sizeof *r->list, err))
        return false;
    r->list[r->n++] = (struct record){ .fields = fields, .file = (int)r->n_files - 1, .row = row, .line = line };
    return true;
}

/* Text that every later step can hold: UTF-8 without NUL. */
static bool check_text(const char *s, size_t len, const char *where, struct error *err)
{
    size_t bad = utf8_check(s, len);
    if (bad < len)
        return fail(err, STATUS_FORMAT, "%s: byte %zu (0x%02X) is not valid UTF-8", where, bad + 1, (unsigned char)s[bad]);
    const char *nul = len ? memchr(s, 0, len) : NULL;
    return !nul || fail(err, STATUS_FORMAT, "%s: byte %zu is a NUL, expected text", where, (size_t)(nul - s) + 1);
}

/* cJSON would end a text at an escaped NUL without a word. */
static bool check_json_text(const char *s, size_t len, const char *where, struct error *err)
{
    if (!check_text(s, len, where, err))
        return false;
    for (const char *p = s; (p = memchr(p, '\\', len - (size_t)(p - s))); p += 2)
        if (len - (size_t)(p - s) < 2)
            return true;                /* the parser will complain */
        else if (strncmp(p, "\\u0000", 6) == 0)
            return fail(err, STATUS_FORMAT, "%s: byte %zu is an escaped NUL, expected text", where, (size_t)(p - s) + 1);
    return true;
}

/* ---- CSV (RFC 4180) through libcsv; a row becomes an object of texts ---- */

struct csv_read {
    struct records *r;
    struct csv_parser parser;
    struct error *err;
    const char *const *names;       /* of the cells; fixed layouts */
    size_t n_names;
    char **header;                  /* names read from the first row */
    size_t n_header, header_cap;
    bool want_header, ok, in_row;
    cJSON *object;
    size_t cell;
    int row, line, row_line;        /* line being fed; line the row began on */
};

static const char *csv_where(const struct csv_read *c, char *buffer, size_t size)
{
    snprintf(buffer, size, "%s: row %d (line %d)", c->r->files[c->r->n_files - 1], c->row + 1, c->row_line);
    return buffer;
}

static void csv_cell(void *data, size_t len, void *ctx)
{
    struct csv_read *c = ctx;
    char where[1024], cell[1100];
    if (!c->ok)
        return;
    size_t index = c->cell++;
    if (c->want_header) {
        c->ok = mem_grow(&c->header, &c->header_cap, c->n_header + 1, sizeof *c->header, c->err) &&
                (c->header[c->n_header] = str_dup_n(data, len, c->err));
        c->n_header += c->ok;
        return;
    }
    if (index >= c->n_names)
        return;                     /* the row's end tells the count */
    snprintf(cell, sizeof cell, "%s, cell %zu (%s)", csv_where(c, where, sizeof where), index + 1, c->names[index]);
    if (!check_text(data, len, cell, c->err)) {
        c->ok = false;
        return;
    }
    if (!c->object)
        c->object = cJSON_CreateObject();
    char *text = str_dup_n(data, len, c->err);
    if (!text || !c->object || !cJSON_AddStringToObject(c->object, c->names[index], text))
        c->ok = fail(c->err, STATUS_MEMORY, "out of memory for a CSV cell");
    free(text);
}

static void csv_row(int end, void *ctx)
{
    (void)end;
    struct csv_read *c = ctx;
    char where[1024];
    size_t cells = c->cell;
    c->in_row = false;
    c->cell = 0;
    if (!c->ok)
        return;
    if (c->want_header) {
        c->want_header = false;
        c->names = (const char *const *)c->header;
        c->n_names = c->n_header;
        return;
    }
    if (cells != c->n_names) {
        c->ok = fail(c->err, STATUS_FORMAT, "%s: %zu cell%s, expected %zu (%s .. %s)", csv_where(c, where, sizeof where),
                     cells, cells == 1 ? "" : "s", c->n_names, c->names[0], c->names[c->n_names - 1]);
        return;
    }
    cJSON *object = c->object;
    c->object = NULL;
    c->ok = root_add(c->r, object, c->err) && record_add(c->r, object, c->row++, c->row_line, c->err);
}

static int no_space(unsigned char byte)
{
    (void)byte;                     /* blanks at a cell's edge are part of it */
    return 0;
}

static bool csv_feed(struct csv_read *c, const char *s, size_t len)
{
    char where[1024];
    for (size_t at = 0; c->ok && at < len;) {
        const char *newline = memchr(s + at, '\n', len - at);
        size_t n = newline ? (size_t)(newline - s) + 1 - at : len - at;
        c->line++;
        if (!c->in_row)
            c->row_line = c->line;
        c->in_row |= s[at + strspn(s + at, "\r")] != '\n';      /* blank lines are no rows */
        if (csv_parse(&c->parser, s + at, n, csv_cell, csv_row, c) != n && c->ok)
            c->ok = fail(c->err, STATUS_FORMAT, "%s: not valid CSV (%s)", csv_where(c, where, sizeof where),
                         csv_strerror(csv_error(&c->parser)));
        at += n;
    }
    if (c->ok && csv_fini(&c->parser, csv_cell, csv_row, c) != 0 && c->ok)
        c->ok = fail(c->err, STATUS_FORMAT, "%s: a quoted cell is never closed", csv_where(c, where, sizeof where));
    return c->ok;
}

static bool csv_read(struct csv_read *c, const struct text *bytes, char delimiter)
{
    if (csv_init(&c->parser, CSV_STRICT | CSV_STRICT_FINI) != 0)
        return fail(c->err, STATUS_MEMORY, "out of memory for a CSV parser");
    csv_set_space_func(&c->parser, no_space);
    csv_set_delim(&c->parser, (unsigned char)delimiter);
    c->ok = true;
    bool ok = csv_feed(c, text_str(bytes), bytes->len);
    csv_free(&c->parser);
    cJSON_Delete(c->object);
    names_free(c->header, c->n_header);
    return ok;
}

static bool read_hendrycks(struct records *r, const struct text *bytes, const struct reader_options *o, struct error *err)
{
    (void)o;
    static const char *const names[] = { "question", "a", "b", "c", "d", "answer" };
    struct csv_read c = { .r = r, .err = err, .names = names, .n_names = ARRAY_LEN(names) };
    return csv_read(&c, bytes, ',');
}

static bool read_csv(struct records *r, const struct text *bytes, const struct reader_options *o, struct error *err)
{
    struct csv_read c = { .r = r, .err = err, .want_header = true };
    return csv_read(&c, bytes, o->delimiter ? o->delimiter : ',');
}

/* ---- JSON ---- */

static bool parse_object(struct records *r, const char *s, size_t len, int row, int line, struct error *err)
{
    char where[1024];
    struct record at = { .file = (int)r->n_files - 1, .row = row, .line = line };
    record_where(r, &at, where, sizeof where);
    if (!check_json_text(s, len, where, err))
        return false;
    cJSON *root = json_parse(s, len, where, err);
    if (!root)
        return false;
    if (!cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return fail(err, STATUS_FORMAT, "%s: not a JSON object", where);
    }
    return root_add(r, root, err) && record_add(r, root, row, line, err);
}

static bool read_jsonl(struct records *r, const struct text *bytes, const struct reader_options *o, struct error *err)
{
    (void)o;
    const char *s = text_str(bytes);
    int row = 0, line = 0;
    for (size_t at = 0; at < bytes->len;) {
        const char *newline = memchr(s + at, '\n', bytes->len - at);
        size_t n = newline ? (size_t)(newline - s) - at : bytes->len - at;
        line++;
        if (strspn(s + at, " \t\r") < n && !parse_object(r, s + at, n, row++, line, err))
            return false;
        at += n + 1;
    }
    return true;
}

static bool read_json(struct records *r, const struct text *bytes, const struct reader_options *o, struct error *err)
{
    const char *path = r->files[r->n_files - 1];
    if (!check_json_text(text_str(bytes), bytes->len, path, err))
        return false;
    cJSON *root = json_parse(text_str(bytes), bytes->len, path, err);
    if (!root || !root_add(r, root, err))
        return false;
    const cJSON *array = o->array ? field_find(root, o->array) : root;
    if (!cJSON_IsArray(array))
        return fail(err, STATUS_FORMAT, "%s: %s%s%s is not an array", path, o->array ? "\"" : "the file",
                    o->array ? o->array : "", o->array ? "\"" : "");
    int row = 0;
    for (const cJSON *e = array->child; e; e = e->next, row++) {
        if (!cJSON_IsObject(e))
            return fail(err, STATUS_FORMAT, "%s: element %d is not an object", path, row + 1);
        if (!record_add(r, e, row, 0, err))
            return false;
    }
    return true;
}

/* ---- the table ---- */

const struct reader readers[] = {
    { "hendrycks-csv", read_hendrycks },
    { "csv", read_csv },
    { "jsonl", read_jsonl },
    { "json", read_json },
};
const size_t n_readers = ARRAY_LEN(readers);

const struct reader *reader_find(const char *name)
{
    for (size_t i = 0; i < n_readers; i++)
        if (strcmp(readers[i].name, name) == 0)
            return &readers[i];
    return NULL;
}

bool records_read(struct records *r, const struct reader *reader, const char *path, const struct reader_options *o,
                  struct error *err)
{
    size_t before = r->n;
    if (!mem_grow(&r->files, &r->files_cap, r->n_files + 1, sizeof *r->files, err) ||
        !(r->files[r->n_files] = str_dup(path, err)))
        return false;
    r->n_files++;
    struct text bytes = { 0 };
    bool ok = file_read(path, MAX_DATA_BYTES, &bytes, err);
    struct text body = bytes;           /* the same bytes, after a BOM */
    if (ok && bytes.len >= 3 && memcmp(bytes.data, "\xEF\xBB\xBF", 3) == 0) {
        body.data += 3;
        body.len -= 3;
    }
    ok = ok && reader->read(r, &body, o, err);
    if (ok && r->n == before)
        ok = fail(err, STATUS_INPUT, "%s: no records in it (read as %s)", path, reader->name);
    text_free(&bytes);
    return ok;
}

bool records_label(struct records *r, size_t first, const char *path, struct error *err)
{
    struct text bytes = { 0 };
    bool ok = file_read(path, MAX_DATA_BYTES, &bytes, err);
    const char *s = text_str(&bytes);
    size_t n = first;
    for (; ok && *s; n++) {
        size_t len = strcspn(s, "\r\n");
        char label[64];
        snprintf(label, sizeof label, "%.*s", (int)(len < 63 ? len : 63), s);
        if (n < r->n && !cJSON_AddStringToObject((cJSON *)(uintptr_t)r->list[n].fields, "label", label))
            ok = fail(err, STATUS_MEMORY, "out of memory for labels");
        s += len;
        s += *s == '\r';
        s += *s == '\n';
    }
    text_free(&bytes);
    return ok && (n == r->n || fail(err, STATUS_FORMAT, "%s: %zu lines, expected %zu (one a record)", path, n - first, r->n - first));
}
