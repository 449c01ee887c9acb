/* html.c - a report's blocks as one HTML page that needs nothing else: style and plots are inside it. */
#include "report/doc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "report/assets.h"

/* Plots are drawn with these colours (reports/plots says the same); inside the page they become the theme's. */
static const struct {
    int red, green, blue;
    const char *themed;
} plot_colours[] = {
    { 31, 41, 51, "var(--ink)" },           { 123, 135, 148, "var(--muted)" },      { 217, 222, 228, "var(--line)" },
    { 11, 122, 75, "var(--better)" },       { 194, 65, 12, "var(--worse)" },        { 37, 99, 168, "var(--equivalent)" },
    { 107, 114, 128, "var(--unknown)" },    { 255, 255, 255, "var(--paper)" },      { 232, 240, 250, "var(--band)" },
    { 251, 191, 160, "var(--worse-light)" }, { 160, 220, 190, "var(--better-light)" },
};

static void put_html(struct text *t, const char *s)
{
    size_t left = strlen(s);
    while (left > 0) {
        uint32_t code;
        int n = utf8_decode(s, left, &code);
        if (n == 0)
            text_puts(t, "\xef\xbf\xbd");
        else if (*s == '<')
            text_puts(t, "&lt;");
        else if (*s == '>')
            text_puts(t, "&gt;");
        else if (*s == '&')
            text_puts(t, "&amp;");
        else if (*s == '"')
            text_puts(t, "&quot;");
        else
            text_add(t, s, (size_t)n);
        s += n ? n : 1;
        left -= (size_t)(n ? n : 1);
    }
}

static void html_cell(struct text *t, const struct cell *c, bool head, char align)
{
    const char *name = head ? "th" : "td";
    text_printf(t, "<%s%s>", name, align == 'r' ? " class=\"num\"" : "");
    if (*c->tone)
        text_printf(t, "<span class=\"%s\">", c->tone);
    put_html(t, c->text);
    if (*c->tone)
        text_puts(t, "</span>");
    text_printf(t, "</%s>", name);
}

static void html_table(const struct block *b, struct text *t)
{
    size_t columns = strlen(b->align);
    text_puts(t, "<div class=\"scroll\"><table>\n<thead>");
    for (size_t i = 0; i < b->n_cells; i++) {
        if (i % columns == 0)
            text_puts(t, "<tr>");
        html_cell(t, &b->cells[i], i < columns, b->align[i % columns]);
        if (i % columns == columns - 1)
            text_puts(t, i == columns - 1 ? "</tr></thead>\n<tbody>\n" : "</tr>\n");
    }
    text_puts(t, "</tbody></table></div>\n");
}

/* The theme's word for a colour at p, "#ffffff" or "rgb( 31,  41,  51)", and its length there; NULL if p is none. */
static const char *themed_colour(const char *p, size_t *len)
{
    int red, green, blue, used = 0;
    if (str_starts(p, "#ffffff") || str_starts(p, "#FFFFFF")) {
        red = green = blue = 255;
        used = 7;
    } else if (!str_starts(p, "rgb(") || sscanf(p, "rgb(%d,%d,%d)%n", &red, &green, &blue, &used) != 3 || used == 0) {
        return NULL;
    }
    *len = (size_t)used;
    for (size_t k = 0; k < ARRAY_LEN(plot_colours); k++)
        if (plot_colours[k].red == red && plot_colours[k].green == green && plot_colours[k].blue == blue)
            return plot_colours[k].themed;
    return NULL;
}

/* The drawing without its XML prologue, colours replaced. */
static void inline_svg(struct text *t, const char *svg)
{
    const char *p = strstr(svg, "<svg");
    while (p && *p) {
        size_t len = 0;
        const char *themed = *p == '#' || *p == 'r' ? themed_colour(p, &len) : NULL;
        if (themed)
            text_puts(t, themed);
        else
            text_putc(t, *p);
        p += themed ? len : 1;
    }
}

static bool html_figure(const struct block *b, const char *dir, struct text *t, struct error *err)
{
    text_puts(t, "<figure>");
    if (b->file) {
        struct text path = { 0 }, svg = { 0 };
        path_join(&path, dir, b->file);
        bool ok = text_ok(&path, err) && file_read(text_str(&path), 0, &svg, err);
        if (ok)
            inline_svg(t, text_str(&svg));
        text_free(&path);
        text_free(&svg);
        if (!ok)
            return false;
    }
    text_puts(t, "<figcaption>");
    put_html(t, b->text);
    if (!b->file)
        text_puts(t, " <em>Not drawn: gnuplot is missing or failed.</em>");
    text_puts(t, " <a href=\"");
    put_html(t, b->data);
    text_puts(t, "\">data</a></figcaption></figure>\n");
    return true;
}

static bool html_block(const struct block *b, const char *dir, struct text *t, struct error *err)
{
    switch (b->kind) {
    case BLOCK_HEADING:
        text_printf(t, "<h%d>", b->level);
        put_html(t, b->text);
        text_printf(t, "</h%d>\n", b->level);
        break;
    case BLOCK_PARAGRAPH:
        text_puts(t, "<p>");
        put_html(t, b->text);
        text_puts(t, "</p>\n");
        break;
    case BLOCK_TABLE: html_table(b, t); break;
    case BLOCK_FIGURE: return html_figure(b, dir, t, err);
    case BLOCK_FOLD:
        text_puts(t, "<details><summary>");
        put_html(t, b->text);
        text_puts(t, "</summary>\n");
        break;
    case BLOCK_FOLD_END: text_puts(t, "</details>\n"); break;
    case BLOCK_SIDES:
        text_puts(t, "<div class=\"sides\">");
        for (int side = 0; side < 2; side++) {
            text_puts(t, "<div><h4>");
            put_html(t, b->cells[2 * side].text);
            text_puts(t, "</h4><pre>");
            put_html(t, b->cells[2 * side + 1].text);
            text_puts(t, "</pre></div>");
        }
        text_puts(t, "</div>\n");
        break;
    }
    return true;
}

bool doc_html(const struct doc *d, const char *dir, struct text *out, struct error *err)
{
    text_puts(out, "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
                   "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
                   "<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    put_html(out, d->title);
    text_printf(out, "</title>\n<style>\n%s</style></head>\n<body><main>\n", (const char *)embed_report_css);
    for (size_t i = 0; i < d->n; i++)
        if (!html_block(&d->blocks[i], dir, out, err))
            return false;
    text_puts(out, "</main></body></html>\n");
    return text_ok(out, err);
}
