/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>

#include "block/filter/coalesce_priv.h"

/*
 * Reads. One that touches no buffered page goes below as it is. Any other is worked through from its start: what is buffered
 * is pinned under the lock and copied outside it, at once; what is not is read from the disk by children. Each piece is looked
 * up after the read was submitted and is all that was written of it by then: either the slot, or the disk, since a slot goes
 * only when the disk has it. So nothing need be kept until a child ends.
 *
 * scratch: [0] bytes done or asked for, [1] children out, [2] the first error. On the read's own thread only.
 */
#define PIECES 16u
#define CHILDREN 8u

struct piece {
	uint16_t slot;
	uint16_t from, len; /* bytes of its page */
};

static void step(struct co_queue *q, struct blk_req *r);

static bool touches(struct co *co, const struct blk_req *r)
{
	uint64_t last = (r->off_bytes + r->len_bytes - 1) / CO_PAGE / CO_REGION_PAGES;

	for (struct co_region *g = co_region_from(co, r->off_bytes / CO_PAGE / CO_REGION_PAGES); g && g->index <= last; g = co_region_next(co, g))
		if (g->present & co_touched(g->index, r->off_bytes, r->len_bytes))
			return true;
	return false;
}

/* Bytes from off on, at most end, that one page holds or does not; *ret_slot: CO_NONE when not. */
static uint64_t same(struct co *co, uint64_t off, uint64_t end, unsigned *ret_slot)
{
	unsigned n = CO_NONE, at = (unsigned)(off % CO_PAGE / BLK_SECTOR), first = at;
	struct co_slot *s = co_lookup(co, off / CO_PAGE, &n);
	unsigned mask = s ? s->mask : 0;
	bool held = mask >> at & 1;

	while (at < CO_SECTORS && (mask >> at & 1) == held)
		at++;
	*ret_slot = held ? n : CO_NONE;
	return MIN_OF(end - off, (uint64_t)(at - first) * BLK_SECTOR);
}

/* Under lock: either pieces, pinned, or none and the length of a hole. */
static unsigned look(struct co *co, uint64_t off, uint64_t end, struct piece piece[PIECES], uint64_t *ret_hole)
{
	uint64_t at = off, len;
	unsigned count = 0, n;

	for (; at < end && count < PIECES; at += len) {
		len = same(co, at, end, &n);
		if (count && n == CO_NONE)
			break;
		if (n == CO_NONE) {
			for (; at < end && n == CO_NONE; at += len)
				len = same(co, at, end, &n);
			*ret_hole = (n == CO_NONE ? at : at - len) - off;
			return 0;
		}
		piece[count++] = (struct piece){ (uint16_t)n, (uint16_t)(at % CO_PAGE), (uint16_t)len };
		co->slot[n].pins++;
	}
	return count;
}

static void copy(struct co_queue *q, struct blk_req *r, const struct piece *piece, unsigned count)
{
	struct co *co = q->co;

	for (unsigned i = 0; i < count; i++) {
		blk_iov_to(r->iov, r->iov_count, r->scratch[0], co_data(&co->buffer, piece[i].slot) + piece[i].from, piece[i].len);
		r->scratch[0] += piece[i].len;
	}
	pthread_mutex_lock(&co->lock);
	for (unsigned i = 0; i < count; i++) {
		co->slot[piece[i].slot].pins--;
		co_slot_release(co, piece[i].slot);
	}
	bool go = co->waiting.first;
	pthread_mutex_unlock(&co->lock);
	if (go)
		co_go(q);
}

static void child_done(struct blk_req *child)
{
	struct blk_req *r = child->ctx, *parked;
	struct co_queue *q = *(struct co_queue **)blk_pool_extra(child);

	r->scratch[1]--;
	if (child->result && !r->scratch[2])
		r->scratch[2] = (uint64_t)-child->result;
	blk_pool_put(q->reads, child);
	if (r->scratch[0] < r->len_bytes)
		step(q, r);
	else if (!r->scratch[1])
		blk_complete(r, -(int)r->scratch[2]);
	parked = blk_list_pop(&q->parked);
	if (parked)
		step(q, parked);
}

/* False: not now. */
static bool ask_disk(struct co_queue *q, struct blk_req *r, uint64_t len)
{
	struct blk_req *c = r->scratch[1] < CHILDREN ? blk_pool_get(q->reads) : NULL;

	if (!c) {
		if (!r->scratch[1])
			blk_list_push(&q->parked, r);
		return false;
	}
	c->op = BLK_READ;
	c->flags = r->flags;
	c->off_bytes = r->off_bytes + r->scratch[0];
	c->len_bytes = len;
	c->iov = blk_pool_iov(c);
	c->iov_count = blk_iov_slice(r->iov, r->iov_count, r->scratch[0], len, blk_pool_iov(c), BLK_IOV_MAX);
	c->ctx = r;
	c->done = child_done;
	*(struct co_queue **)blk_pool_extra(c) = q;
	r->scratch[0] += len;
	r->scratch[1]++;
	blk_submit(q->co->layer->below, c);
	return true;
}

static void step(struct co_queue *q, struct blk_req *r)
{
	struct co *co = q->co;

	while (r->scratch[0] < r->len_bytes) {
		struct piece piece[PIECES];
		uint64_t hole = 0;

		pthread_mutex_lock(&co->lock);
		unsigned count = look(co, r->off_bytes + r->scratch[0], r->off_bytes + r->len_bytes, piece, &hole);
		pthread_mutex_unlock(&co->lock);
		if (count)
			copy(q, r, piece, count);
		else if (!ask_disk(q, r, hole))
			return;
	}
	if (!r->scratch[1])
		blk_complete(r, -(int)r->scratch[2]);
}

void co_submit_read(struct co_queue *q, struct blk_req *r)
{
	struct co *co = q->co;
	bool buffered = false;

	if (atomic_load(&co->busy)) {
		pthread_mutex_lock(&co->lock);
		buffered = touches(co, r);
		blk_count(&co->count.read_overlaps, buffered);
		pthread_mutex_unlock(&co->lock);
	}
	if (!buffered) {
		blk_submit(co->layer->below, r);
		return;
	}
	r->scratch[0] = r->scratch[1] = r->scratch[2] = 0;
	step(q, r);
}
