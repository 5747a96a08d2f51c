/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_MACROS_H
#define MALLEE_BASE_MACROS_H

#include <stddef.h>
#include <stdlib.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(fmt, args) __attribute__((format(printf, fmt, args)))
#define _unused_ __attribute__((unused))
#define _nodiscard_ __attribute__((warn_unused_result))

#define MIN_OF(a, b) ((a) < (b) ? (a) : (b))
#define MAX_OF(a, b) ((a) > (b) ? (a) : (b))

/* Define `static inline void NAME(T *p)` that calls `fn(*p)`: for _cleanup_. NULL-safe when fn is. */
#define DEFINE_CLEANUP(T, fn, name)      \
	static inline void name(T *p)    \
	{                                \
		fn(*p);                  \
	}

static inline void freep(void *p)
{
	free(*(void **)p);
}

/* Take the value out of a pointer variable, leaving NULL: hands ownership over on success paths. */
#define TAKE_PTR(p)                     \
	({                              \
		__typeof__(p) _t = (p); \
		(p) = NULL;             \
		_t;                     \
	})

#endif
