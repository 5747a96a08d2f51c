/* SPDX-License-Identifier: Apache-2.0 */
#include "base/arena.h"

#include <stdalign.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/*
 * Chunks are calloc()ed and handed out from front to back, so fresh memory is zero already. Chunk
 * sizes double up to a limit; a request larger than a quarter of a chunk gets a chunk of its own,
 * placed behind the current one so that the rest of the current one is not wasted.
 */
#define CHUNK_MIN ((size_t)4096)
#define CHUNK_MAX ((size_t)256 * 1024)
#define ARENA_ALIGN alignof(max_align_t)

struct chunk {
	struct chunk *next;
	size_t used, size;
	alignas(max_align_t) unsigned char data[];
};

struct arena {
	struct chunk *head; /* the one we bump in */
	size_t next_size;
	size_t used;
};

static struct chunk *chunk_new(size_t size)
{
	struct chunk *c;

	if (size > SIZE_MAX - sizeof(*c))
		abort();
	c = calloc(1, sizeof(*c) + size);
	if (!c)
		abort();
	c->size = size;
	return c;
}

struct arena *arena_new(void)
{
	struct arena *a = calloc(1, sizeof(*a));

	if (!a)
		abort();
	a->next_size = CHUNK_MIN;
	return a;
}

void arena_free(struct arena *a)
{
	if (!a)
		return;
	while (a->head) {
		struct chunk *next = a->head->next;

		free(a->head);
		a->head = next;
	}
	free(a);
}

static void *chunk_take(struct chunk *c, size_t size)
{
	void *p = c->data + c->used;

	c->used += size;
	return p;
}

void *arena_alloc(struct arena *a, size_t size)
{
	struct chunk *c;

	if (size > SIZE_MAX - ARENA_ALIGN)
		abort();
	size = (MAX_OF(size, 1) + ARENA_ALIGN - 1) & ~(ARENA_ALIGN - 1);
	a->used += size;
	if (a->head && size <= a->head->size - a->head->used)
		return chunk_take(a->head, size);
	if (a->head && size > a->next_size / 4) {
		c = chunk_new(size);
		c->next = a->head->next;
		a->head->next = c;
		return chunk_take(c, size);
	}
	c = chunk_new(MAX_OF(a->next_size, size));
	c->next = a->head;
	a->head = c;
	a->next_size = MIN_OF(a->next_size * 2, CHUNK_MAX);
	return chunk_take(c, size);
}

void *arena_calloc(struct arena *a, size_t n, size_t size)
{
	size_t total;

	if (__builtin_mul_overflow(n, size, &total))
		abort();
	return arena_alloc(a, total);
}

char *arena_strdup(struct arena *a, const char *s)
{
	return s ? arena_strndup(a, s, strlen(s)) : NULL;
}

char *arena_strndup(struct arena *a, const char *s, size_t len)
{
	char *p;

	if (len == SIZE_MAX)
		abort();
	p = arena_alloc(a, len + 1);
	if (len)
		memcpy(p, s, len);
	return p;
}

void *arena_memdup(struct arena *a, const void *src, size_t len)
{
	void *p = arena_alloc(a, len);

	if (len)
		memcpy(p, src, len);
	return p;
}

char *arena_vprintf(struct arena *a, const char *fmt, va_list ap)
{
	va_list again;
	char *p;
	int n;

	va_copy(again, ap);
	n = vsnprintf(NULL, 0, fmt, ap);
	if (n < 0)
		abort();
	p = arena_alloc(a, (size_t)n + 1);
	vsnprintf(p, (size_t)n + 1, fmt, again);
	va_end(again);
	return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
	va_list ap;
	char *p;

	va_start(ap, fmt);
	p = arena_vprintf(a, fmt, ap);
	va_end(ap);
	return p;
}

size_t arena_used(const struct arena *a)
{
	return a->used;
}
