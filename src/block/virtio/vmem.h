/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_VIRTIO_VMEM_H
#define MALLEE_BLOCK_VIRTIO_VMEM_H

#include <stdint.h>
#include <sys/uio.h>

/*
 * A guest's memory as this process sees it: regions that each have a guest-physical address, an address in the peer's own
 * address space (vhost-user gives ring addresses in it), and a place here. It is changed only while no queue uses it.
 */
#define VMEM_REGIONS_MAX 64u

struct vmem_region {
	uint64_t guest, user; /* where it begins */
	uint64_t size_bytes;
	char *host;
	void *map;            /* what to unmap; the owner's */
	uint64_t map_bytes;
};

struct vmem {
	struct vmem_region region[VMEM_REGIONS_MAX];
	unsigned count;
};

/* -EINVAL: empty, or wraps round; -EEXIST: overlaps another one's guest addresses; -ENOSPC: the table is full. */
int vmem_add(struct vmem *m, const struct vmem_region *r);
/* Takes the region with these very addresses and size out, into *ret. -ENOENT. */
int vmem_remove(struct vmem *m, uint64_t guest, uint64_t user, uint64_t size_bytes, struct vmem_region *ret);

/* [addr, addr + len) of guest-physical memory as up to max elements (a buffer may span regions): their number. -EFAULT: not
 * all of it is memory; -E2BIG: more than max elements. len > 0. */
int vmem_guest(const struct vmem *m, uint64_t addr, uint64_t len, struct iovec *iov, unsigned max);
/* [addr, addr + len) in the peer's addresses, inside one region and aligned (a power of two) in both spaces; else NULL. */
void *vmem_user(const struct vmem *m, uint64_t addr, uint64_t len, uint64_t align);

#endif
