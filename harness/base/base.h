/* base.h - the door of base/: what every room needs and no room owns.
 *
 * Errors, memory, text, files, JSON, threads, random numbers, digests, and the item row
 * that evaluation fills and the store keeps.  Nothing here knows of models or tasks. */
#ifndef QDELTA_BASE_H
#define QDELTA_BASE_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "error.h"
#include "file.h"
#include "item.h"
#include "json.h"
#include "machine.h"
#include "memory.h"
#include "random.h"
#include "sha256.h"
#include "text.h"
#include "threads.h"

#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))

#endif
