/* panel.h - activation rows in the order in which integer tiles read them (tiles.h): groups of rows, rounded.  Private. */
#ifndef QDELTA_KERNEL_PANEL_H
#define QDELTA_KERNEL_PANEL_H

#include "tiles.h"

static inline int at_most(int a, int b)
{
    return a < b ? a : b;
}

/* The widest kernel for no more than left rows. */
static inline int width_of(const int *widths, int left)
{
    while (*widths > left)
        widths++;
    return *widths;
}

/* n rows fall into groups of nearly one size, the larger ones first, none wider than the widest kernel; the first row
 * of group g.  A group that has no kernel of its own is taken in several steps. */
static inline int groups_of(int widest, int n)
{
    return (n + widest - 1) / widest;
}

static inline int group_first(int n, int groups, int g)
{
    return g * (n / groups) + at_most(g, n % groups);
}

struct panel {
    const struct product *p;
    const struct tile_ops *ops;
    const struct layout *layout;
    int sub, subs, groups;
    bool wide, has_min;
    size_t unit;                /* bytes of one row in one block */
};

/* The panel of p's activations; they are rounded unless an earlier product left them so. */
struct panel panel_of(const struct product *p);

/* The same for activations that come block by block: nothing is rounded yet.  Then, once for each 32-block of the columns and
 * group of rows, x [rows of groups group .. end - 1][32], and when all are there panel_filled. */
struct panel panel_to_fill(const struct product *p);
void panel_fill(const struct panel *a, int group, int end, int block, const float *x);
void panel_filled(const struct panel *a);

/* Do both products read one panel, whichever of them it was rounded for? */
bool panel_shared(const struct product *p, const struct product *q);

/* n columns from k0 on of row i in stored order: in place, or put into buffer. */
const float *panel_row(const struct product *p, int i, int k0, int n, float *buffer);

/* Blocks block .. of the T rows from first on. */
static inline uint8_t *panel_at(const struct panel *a, int first, int T, int block)
{
    size_t blocks = (size_t)a->p->a->cols / 32;
    return (uint8_t *)a->p->a->packed + ((size_t)first * blocks + (size_t)T * (size_t)block) * a->unit;
}

#endif
