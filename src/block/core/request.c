/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/request.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "block/core/queue_priv.h"

void blk_list_push(struct blk_list *l, struct blk_req *r)
{
	r->next = NULL;
	if (l->first)
		*l->last = r;
	else
		l->first = r;
	l->last = &r->next;
}

struct blk_req *blk_list_pop(struct blk_list *l)
{
	struct blk_req *r = l->first;

	if (r) {
		l->first = r->next;
		r->next = NULL;
	}
	return r;
}

void blk_complete(struct blk_req *r, int result)
{
	assert(!r->completed && result <= 0);
	r->completed = true;
	r->result = result;
	queue_completed(r->queue, r);
}

/* ---- iovecs ---- */

uint64_t blk_iov_bytes(const struct iovec *iov, unsigned count)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < count; i++)
		sum += iov[i].iov_len;
	return sum;
}

unsigned blk_iov_slice(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t len, struct iovec *out, unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count && len; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		uint64_t take = MIN_OF(iov[i].iov_len - skip, len);
		assert(n < max);
		out[n++] = (struct iovec){ (char *)iov[i].iov_base + skip, take };
		len -= take;
		skip = 0;
	}
	assert(!len);
	return n;
}

enum copy { COPY_TO, COPY_FROM, COPY_ZERO };

static void copy(const struct iovec *iov, unsigned count, uint64_t skip, char *flat, size_t len, enum copy how)
{
	for (unsigned i = 0; i < count && len; i++) {
		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		size_t take = MIN_OF(iov[i].iov_len - skip, len);
		char *at = (char *)iov[i].iov_base + skip;
		switch (how) {
		case COPY_TO:
			memcpy(at, flat, take);
			break;
		case COPY_FROM:
			memcpy(flat, at, take);
			break;
		case COPY_ZERO:
			memset(at, 0, take);
			break;
		}
		if (how != COPY_ZERO)
			flat += take;
		len -= take;
		skip = 0;
	}
	assert(!len);
}

void blk_iov_to(const struct iovec *iov, unsigned count, uint64_t skip, const void *from, size_t len)
{
	copy(iov, count, skip, (char *)from, len, COPY_TO);
}

void blk_iov_from(const struct iovec *iov, unsigned count, uint64_t skip, void *to, size_t len)
{
	copy(iov, count, skip, to, len, COPY_FROM);
}

void blk_iov_zero(const struct iovec *iov, unsigned count, uint64_t skip, size_t len)
{
	copy(iov, count, skip, NULL, len, COPY_ZERO);
}

bool blk_iov_aligned(const struct iovec *iov, unsigned count, size_t align)
{
	uintptr_t bits = 0;

	for (unsigned i = 0; i < count; i++)
		bits |= (uintptr_t)iov[i].iov_base | iov[i].iov_len;
	return !(bits & (align - 1));
}

/* ---- children ---- */

/* One piece of memory, entry after entry; free ones form a stack, and those never used yet lie beyond `touched`. */
struct blk_pool {
	struct blk_queue *queue;
	char *memory;
	size_t memory_bytes, entry_bytes, iov_at, extra_at;
	unsigned count, touched, out;
	struct blk_req *free;
};

struct entry {
	struct blk_req req;
	struct blk_pool *pool;
};

int blk_pool_new(struct blk_queue *q, unsigned count, unsigned iov_max, size_t extra_bytes, struct blk_pool **ret)
{
	struct blk_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	p->queue = q;
	p->count = count;
	p->iov_at = (sizeof(struct entry) + 15) & ~(size_t)15;
	p->extra_at = p->iov_at + iov_max * sizeof(struct iovec);
	p->entry_bytes = (p->extra_at + extra_bytes + 63) & ~(size_t)63;
	p->memory_bytes = MAX_OF((size_t)1, p->entry_bytes * count);
	p->memory = mmap(NULL, p->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->memory == MAP_FAILED) {
		free(p);
		return -ENOMEM;
	}
	*ret = p;
	return 0;
}

void blk_pool_free(struct blk_pool *p)
{
	if (!p)
		return;
	assert(!p->out);
	munmap(p->memory, p->memory_bytes);
	free(p);
}

struct blk_req *blk_pool_get(struct blk_pool *p)
{
	struct blk_req *r = p->free;

	if (r) {
		p->free = r->next;
	} else if (p->touched < p->count) {
		struct entry *entry = (struct entry *)(p->memory + p->touched++ * p->entry_bytes);
		entry->pool = p;
		r = &entry->req;
	} else {
		return NULL;
	}
	memset(r, 0, sizeof(*r));
	r->queue = p->queue;
	p->out++;
	return r;
}

struct blk_req *blk_pool_copy(struct blk_pool *p, struct blk_req *r)
{
	struct blk_req *child = blk_pool_get(p);

	if (child) {
		child->op = r->op;
		child->flags = r->flags;
		child->off_bytes = r->off_bytes;
		child->len_bytes = r->len_bytes;
		child->iov = r->iov;
		child->iov_count = r->iov_count;
		child->ctx = r;
	}
	return child;
}

void blk_pool_put(struct blk_pool *p, struct blk_req *r)
{
	assert(((struct entry *)r)->pool == p && p->out);
	r->next = p->free;
	p->free = r;
	p->out--;
}

struct iovec *blk_pool_iov(struct blk_req *r)
{
	return (struct iovec *)((char *)r + ((struct entry *)r)->pool->iov_at);
}

void *blk_pool_extra(struct blk_req *r)
{
	return (char *)r + ((struct entry *)r)->pool->extra_at;
}

unsigned blk_pool_out(const struct blk_pool *p)
{
	return p->out;
}
