/* doc.c - building a report's blocks, and their Markdown. */
#include "report/doc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *kept(struct doc *d, const char *s, size_t len)
{
    char *copy = arena_str(&d->arena, s, len, NULL);
    d->failed |= !copy;
    return copy ? copy : (char *)(uintptr_t)"";
}

static char *format_kept(struct doc *d, const char *format, va_list ap) __attribute__((format(printf, 2, 0)));
static char *format_kept(struct doc *d, const char *format, va_list ap)
{
    va_list again;
    va_copy(again, ap);
    int len = vsnprintf(NULL, 0, format, again);
    va_end(again);
    char *s = len >= 0 ? arena_new(&d->arena, (size_t)len + 1, NULL) : NULL;
    d->failed |= !s;
    if (!s)
        return (char *)(uintptr_t)"";
    vsnprintf(s, (size_t)len + 1, format, ap);
    return s;
}

static struct block *add_block(struct doc *d, enum block_kind kind, const char *text)
{
    static struct block spare;
    if (!mem_grow(&d->blocks, &d->cap, d->n + 1, sizeof *d->blocks, NULL)) {
        d->failed = true;
        return &spare;
    }
    d->blocks[d->n] = (struct block){ .kind = kind, .text = text };
    return &d->blocks[d->n++];
}

static void add_cell(struct doc *d, const char *text, const char *tone)
{
    struct block *b = d->n ? &d->blocks[d->n - 1] : NULL;
    if (!b || !mem_grow(&b->cells, &b->cap_cells, b->n_cells + 1, sizeof *b->cells, NULL))
        d->failed = true;
    else
        b->cells[b->n_cells++] = (struct cell){ text, tone };
}

void doc_heading(struct doc *d, int level, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    add_block(d, BLOCK_HEADING, format_kept(d, format, ap))->level = level;
    va_end(ap);
}

void doc_paragraph(struct doc *d, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    add_block(d, BLOCK_PARAGRAPH, format_kept(d, format, ap));
    va_end(ap);
}

void doc_figure(struct doc *d, const char *file, const char *data, const char *caption)
{
    struct block *b = add_block(d, BLOCK_FIGURE, kept(d, caption, strlen(caption)));
    b->file = file ? kept(d, file, strlen(file)) : NULL;
    b->data = kept(d, data, strlen(data));
}

void doc_fold(struct doc *d, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    add_block(d, BLOCK_FOLD, format_kept(d, format, ap));
    va_end(ap);
}

void doc_fold_end(struct doc *d)
{
    add_block(d, BLOCK_FOLD_END, "");
}

void doc_table(struct doc *d, const char *align, const char *heads)
{
    add_block(d, BLOCK_TABLE, "")->align = kept(d, align, strlen(align));
    for (size_t i = 0; align[i]; i++) {
        size_t len = strcspn(heads, "|");
        add_cell(d, kept(d, heads, len), "");
        heads += len + (heads[len] == '|');
    }
}

void doc_cell(struct doc *d, const char *tone, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    add_cell(d, format_kept(d, format, ap), tone);
    va_end(ap);
}

void doc_sides(struct doc *d, const char *left_title, const char *left, const char *right_title, const char *right)
{
    const char *const parts[] = { left_title, left, right_title, right };
    add_block(d, BLOCK_SIDES, "");
    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        add_cell(d, kept(d, parts[i], strlen(parts[i])), "");
}

bool doc_ok(const struct doc *d, struct error *err)
{
    return !d->failed || fail(err, STATUS_MEMORY, "out of memory while writing the report");
}

void doc_free(struct doc *d)
{
    for (size_t i = 0; i < d->n; i++)
        free(d->blocks[i].cells);
    free(d->blocks);
    arena_free(&d->arena);
    *d = (struct doc){ 0 };
}

/* ---- Markdown ---- */

static void put_md(struct text *t, const char *s)
{
    for (; *s; s++)
        if (*s == '\n')
            text_putc(t, ' ');
        else if (strchr("|<*_`\\", *s))
            text_printf(t, "\\%c", *s);
        else
            text_putc(t, *s);
}

static void md_table(const struct block *b, struct text *t)
{
    size_t columns = strlen(b->align);
    for (size_t i = 0; i < b->n_cells; i++) {
        const struct cell *c = &b->cells[i];
        bool code = strcmp(c->tone, "code") == 0 && *c->text;
        text_puts(t, code ? "| `" : "| ");
        if (code)
            text_puts(t, c->text);
        else
            put_md(t, c->text);
        text_puts(t, code ? "` " : " ");
        if (i % columns == columns - 1)
            text_puts(t, "|\n");
        if (i == columns - 1) {
            for (size_t k = 0; k < columns; k++)
                text_puts(t, b->align[k] == 'r' ? "| ---: " : "| --- ");
            text_puts(t, "|\n");
        }
    }
    text_putc(t, '\n');
}

/* Fenced by more backticks than any text holds in a row. */
static void md_side(struct text *t, const char *title, const char *s)
{
    size_t longest = 2, run = 0;
    for (const char *p = s; *p; p++) {
        run = *p == '`' ? run + 1 : 0;
        longest = run > longest ? run : longest;
    }
    put_md(t, title);
    text_puts(t, "\n\n");
    for (int end = 0; end < 2; end++) {
        for (size_t i = 0; i <= longest; i++)
            text_putc(t, '`');
        text_putc(t, '\n');
        if (!end)
            text_printf(t, "%s\n", s);
    }
    text_putc(t, '\n');
}

static void md_figure(const struct block *b, struct text *t)
{
    if (b->file) {
        text_puts(t, "![");
        put_md(t, b->text);
        text_printf(t, "](%s)\n\n", b->file);
    }
    put_md(t, b->text);
    text_printf(t, b->file ? " ([data](%s))\n\n" : " (not drawn: gnuplot is missing or failed; [data](%s))\n\n", b->data);
}

void doc_markdown(const struct doc *d, struct text *out)
{
    for (size_t i = 0; i < d->n; i++) {
        const struct block *b = &d->blocks[i];
        switch (b->kind) {
        case BLOCK_HEADING:
            for (int k = 0; k < b->level; k++)
                text_putc(out, '#');
            text_putc(out, ' ');
            put_md(out, b->text);
            text_puts(out, "\n\n");
            break;
        case BLOCK_PARAGRAPH:
            put_md(out, b->text);
            text_puts(out, "\n\n");
            break;
        case BLOCK_TABLE: md_table(b, out); break;
        case BLOCK_FIGURE: md_figure(b, out); break;
        case BLOCK_FOLD:
            text_puts(out, "<details><summary>");
            put_md(out, b->text);
            text_puts(out, "</summary>\n\n");
            break;
        case BLOCK_FOLD_END: text_puts(out, "</details>\n\n"); break;
        case BLOCK_SIDES:
            md_side(out, b->cells[0].text, b->cells[1].text);
            md_side(out, b->cells[2].text, b->cells[3].text);
            break;
        }
    }
}
