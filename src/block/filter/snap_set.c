/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "block/filter/snap_priv.h"

static size_t bytes_for(uint64_t count)
{
	return (count / 64 + 1) * 8;
}

int snap_set_new(struct snap_set *s, uint64_t count)
{
	void *at = mmap(NULL, bytes_for(count), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (at == MAP_FAILED)
		return -ENOMEM;
	s->words = at;
	s->count = count;
	return 0;
}

void snap_set_free(struct snap_set *s)
{
	if (s->words)
		munmap(s->words, bytes_for(s->count));
	s->words = NULL;
}

int snap_set_grow(struct snap_set *s, uint64_t count)
{
	void *at = mremap(s->words, bytes_for(s->count), bytes_for(count), MREMAP_MAYMOVE);

	if (at == MAP_FAILED)
		return -ENOMEM;
	s->words = at;
	s->count = count;
	return 0;
}

static uint64_t word(const struct snap_set *s, uint64_t i)
{
	return __atomic_load_n(&s->words[i], __ATOMIC_ACQUIRE);
}

bool snap_set_test(const struct snap_set *s, uint64_t i)
{
	return word(s, i / 64) >> (i % 64) & 1;
}

void snap_set_add(struct snap_set *s, uint64_t first, uint64_t n)
{
	while (n) {
		uint64_t bit = first % 64, take = MIN_OF(64 - bit, n);
		uint64_t mask = (take == 64 ? UINT64_MAX : (UINT64_C(1) << take) - 1) << bit;
		if ((word(s, first / 64) & mask) != mask) /* memory that is only looked at is not taken */
			__atomic_fetch_or(&s->words[first / 64], mask, __ATOMIC_RELEASE);
		first += take;
		n -= take;
	}
}

uint64_t snap_set_run(const struct snap_set *s, uint64_t first, uint64_t end, bool *ret_set)
{
	bool set = snap_set_test(s, first);
	uint64_t i = first + 1, alike = set ? UINT64_MAX : 0;

	while (i < end) {
		if (i % 64 == 0 && word(s, i / 64) == alike)
			i += 64;
		else if (snap_set_test(s, i) == set)
			i++;
		else
			break;
	}
	*ret_set = set;
	return MIN_OF(i, end) - first;
}

uint64_t snap_set_sum(const struct snap_set *s)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i <= s->count / 64; i++)
		sum += (unsigned)__builtin_popcountll(word(s, i));
	return sum;
}

void snap_set_union(struct snap_set *to, const struct snap_set *from)
{
	for (uint64_t i = 0; i <= MIN_OF(to->count, from->count) / 64; i++) {
		uint64_t w = word(from, i);
		if (i == to->count / 64)
			w &= (UINT64_C(1) << to->count % 64) - 1;
		if (w)
			__atomic_fetch_or(&to->words[i], w, __ATOMIC_RELEASE);
	}
}
