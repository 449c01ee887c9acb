/* private.h - inside store/: the opened database. */
#ifndef QDELTA_STORE_PRIVATE_H
#define QDELTA_STORE_PRIVATE_H

#include "store/rows.h"

enum statement {
    ST_HAVE_ITEM,
    ST_ADD_ITEM,
    ST_ADD_CHOICE,
    ST_ADD_EXTRACTION,
    ST_ADD_SCORE,
    ST_GET_CHOICES,
    ST_GET_EXTRACTIONS,
    ST_GET_SCORES,
    ST_COUNT
};

struct store {
    sqlite3 *db;
    char *path;
    sqlite3_stmt *statements[ST_COUNT];     /* prepared when first asked for */
    int depth;                              /* open store_begin()s */
};

/* Ready to bind, or NULL with err filled. */
sqlite3_stmt *store_statement(struct store *s, enum statement id, struct error *err);

#endif
