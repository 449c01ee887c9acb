/* schema.h - the text of results/schema.sql, carried inside the program by the Makefile's embed rule. */
#ifndef QDELTA_STORE_SCHEMA_H
#define QDELTA_STORE_SCHEMA_H

extern const unsigned char embed_schema_sql[];      /* NUL-terminated */

#endif
