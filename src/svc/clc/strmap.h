/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_STRMAP_H
#define MALLEE_SVC_CLC_STRMAP_H

#include <stddef.h>

#include "base/macros.h"

/* A hash table from strings to pointers; copies its keys, does not own its values. Not thread-safe.
 */
struct strmap;

struct strmap *strmap_new(void);
void strmap_free(struct strmap *m); /* NULL is fine */
DEFINE_CLEANUP(struct strmap *, strmap_free, strmap_freep)

void *strmap_get(const struct strmap *m, const char *key); /* NULL when absent */
/* value must not be NULL; the earlier value is returned, or NULL. */
void *strmap_put(struct strmap *m, const char *key, void *value);
void *strmap_remove(struct strmap *m, const char *key); /* the value it had, or NULL */
size_t strmap_count(const struct strmap *m);
/* Walk: start with *pos = 0; NULL at the end. The map must not change meanwhile. */
void *strmap_next(const struct strmap *m, size_t *pos, const char **ret_key);

#endif
