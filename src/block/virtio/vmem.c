/* SPDX-License-Identifier: Apache-2.0 */
#include "block/virtio/vmem.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

static bool overlaps(const struct vmem_region *a, const struct vmem_region *b)
{
	return a->guest < b->guest + b->size_bytes && b->guest < a->guest + a->size_bytes;
}

int vmem_add(struct vmem *m, const struct vmem_region *r)
{
	uint64_t end;

	if (!r->size_bytes || __builtin_add_overflow(r->guest, r->size_bytes, &end) ||
	    __builtin_add_overflow(r->user, r->size_bytes, &end))
		return -EINVAL;
	for (unsigned i = 0; i < m->count; i++) {
		if (overlaps(&m->region[i], r))
			return -EEXIST;
	}
	if (m->count == VMEM_REGIONS_MAX)
		return -ENOSPC;
	m->region[m->count++] = *r;
	return 0;
}

int vmem_remove(struct vmem *m, uint64_t guest, uint64_t user, uint64_t size_bytes, struct vmem_region *ret)
{
	for (unsigned i = 0; i < m->count; i++) {
		struct vmem_region *r = &m->region[i];
		if (r->guest != guest || r->user != user || r->size_bytes != size_bytes)
			continue;
		*ret = *r;
		*r = m->region[--m->count];
		return 0;
	}
	return -ENOENT;
}

static const struct vmem_region *find_guest(const struct vmem *m, uint64_t addr)
{
	for (unsigned i = 0; i < m->count; i++) {
		const struct vmem_region *r = &m->region[i];
		if (addr >= r->guest && addr - r->guest < r->size_bytes)
			return r;
	}
	return NULL;
}

int vmem_guest(const struct vmem *m, uint64_t addr, uint64_t len, struct iovec *iov, unsigned max)
{
	unsigned n = 0;

	while (len) {
		const struct vmem_region *r = find_guest(m, addr);
		if (!r)
			return -EFAULT;
		uint64_t at = addr - r->guest, room = r->size_bytes - at, take = len < room ? len : room;
		if (n == max)
			return -E2BIG;
		iov[n++] = (struct iovec){ r->host + at, take };
		addr += take; /* does not wrap: a region ends below 2^64 */
		len -= take;
	}
	return (int)n;
}

void *vmem_user(const struct vmem *m, uint64_t addr, uint64_t len, uint64_t align)
{
	for (unsigned i = 0; i < m->count; i++) {
		const struct vmem_region *r = &m->region[i];
		if (addr < r->user || addr - r->user >= r->size_bytes)
			continue;
		uint64_t at = addr - r->user;
		if (len > r->size_bytes - at || (uintptr_t)(r->host + at) & (align - 1) || addr & (align - 1))
			return NULL;
		return r->host + at;
	}
	return NULL;
}
