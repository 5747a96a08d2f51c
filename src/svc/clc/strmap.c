/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "svc/clc/strmap.h"

/*
 * Open addressing with linear probing, at most two thirds full. Removal moves the rest of the run
 * up, so there are no tombstones and a map that sees much coming and going stays fast.
 */
struct slot {
	char *key;
	void *value;
};

struct strmap {
	struct slot *slots;
	size_t size; /* a power of two */
	size_t count;
};

enum { FIRST_SIZE = 64 };

static size_t hash(const char *s)
{
	uint64_t h = UINT64_C(14695981039346656037); /* FNV-1a */

	for (; *s; s++)
		h = (h ^ (unsigned char)*s) * UINT64_C(1099511628211);
	return (size_t)(h ^ h >> 32);
}

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

struct strmap *strmap_new(void)
{
	struct strmap *m = must(calloc(1, sizeof(*m)));

	m->size = FIRST_SIZE;
	m->slots = must(calloc(m->size, sizeof(*m->slots)));
	return m;
}

void strmap_free(struct strmap *m)
{
	if (!m)
		return;
	for (size_t i = 0; i < m->size; i++)
		free(m->slots[i].key);
	free(m->slots);
	free(m);
}

/* The key's slot, or the empty one where it belongs. */
static size_t find(const struct strmap *m, const char *key)
{
	size_t i = hash(key) & (m->size - 1);

	while (m->slots[i].key && !str_eq(m->slots[i].key, key))
		i = (i + 1) & (m->size - 1);
	return i;
}

void *strmap_get(const struct strmap *m, const char *key)
{
	return m->slots[find(m, key)].value;
}

static void grow(struct strmap *m)
{
	struct strmap bigger = {.size = m->size * 2};

	bigger.slots = must(calloc(bigger.size, sizeof(*bigger.slots)));
	for (size_t i = 0; i < m->size; i++)
		if (m->slots[i].key)
			bigger.slots[find(&bigger, m->slots[i].key)] = m->slots[i];
	free(m->slots);
	m->slots = bigger.slots;
	m->size = bigger.size;
}

void *strmap_put(struct strmap *m, const char *key, void *value)
{
	assert(value);
	if ((m->count + 1) * 3 > m->size * 2)
		grow(m);
	struct slot *s = &m->slots[find(m, key)];
	void *old = s->value;

	if (!s->key) {
		s->key = must(strdup(key));
		m->count++;
	}
	s->value = value;
	return old;
}

void *strmap_remove(struct strmap *m, const char *key)
{
	size_t hole = find(m, key), mask = m->size - 1;
	void *value = m->slots[hole].value;

	if (!m->slots[hole].key)
		return NULL;
	free(m->slots[hole].key);
	m->count--;
	for (size_t i = (hole + 1) & mask; m->slots[i].key; i = (i + 1) & mask) {
		size_t home = hash(m->slots[i].key) & mask;

		if (((i - home) & mask) >= ((i - hole) & mask)) {
			m->slots[hole] = m->slots[i];
			hole = i;
		}
	}
	m->slots[hole] = (struct slot){0};
	return value;
}

size_t strmap_count(const struct strmap *m)
{
	return m->count;
}

void *strmap_next(const struct strmap *m, size_t *pos, const char **ret_key)
{
	while (*pos < m->size) {
		const struct slot *s = &m->slots[(*pos)++];

		if (s->key) {
			if (ret_key)
				*ret_key = s->key;
			return s->value;
		}
	}
	return NULL;
}
