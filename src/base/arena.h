/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_ARENA_H
#define MALLEE_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "base/macros.h"

/*
 * A bump allocator with one owner and one lifetime: everything that one request decodes, and
 * everything that its handler puts into the reply, lives in the request's arena and goes with it.
 * Not thread-safe. Running out of memory aborts the process (the supervisor restarts it; what was
 * acknowledged is on disk), so no function here returns NULL for want of memory.
 */
struct arena;

struct arena *arena_new(void);
void arena_free(struct arena *a); /* NULL is fine */
DEFINE_CLEANUP(struct arena *, arena_free, arena_freep)

/* Zeroed memory, aligned for any type. size 0 gives a valid unique pointer. */
void *arena_alloc(struct arena *a, size_t size);
/* As arena_alloc of n * size; aborts when the product overflows. */
void *arena_calloc(struct arena *a, size_t n, size_t size);
char *arena_strdup(struct arena *a, const char *s);              /* NULL gives NULL */
char *arena_strndup(struct arena *a, const char *s, size_t len); /* NUL-terminated copy of len bytes */
void *arena_memdup(struct arena *a, const void *p, size_t len);
char *arena_printf(struct arena *a, const char *fmt, ...) _printf_(2, 3);
char *arena_vprintf(struct arena *a, const char *fmt, va_list ap) _printf_(2, 0);
/* Bytes handed out so far. */
size_t arena_used(const struct arena *a);

#define arena_new_struct(a, T) ((T *)arena_alloc((a), sizeof(T)))
#define arena_new_array(a, T, n) ((T *)arena_calloc((a), (n), sizeof(T)))

#endif
