/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Order of memory accesses. The driver fills descriptors and a slot of the available ring, and then raises avail->idx; the device
 * fills slots of the used ring and then raises used->idx: each reads the other's index with acquire and raises its own with
 * release. Before a side looks whether the other wants to be told, and after it asks to be told, it passes a full barrier, so
 * that not both can miss the other's last step (2.7.13).
 */
#include "block/virtio/virtq.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

/* Once, whatever the compiler thinks. */
static uint16_t load16(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void store16(uint16_t *p, uint16_t v)
{
	__atomic_store_n(p, v, __ATOMIC_RELAXED);
}

static uint16_t *used_event(const struct virtq *q)
{
	return &q->avail->ring[q->num];
}

/* Behind the last element of the used ring. */
static uint16_t *avail_event(const struct virtq *q)
{
	return (uint16_t *)(void *)&q->used->ring[q->num];
}

uint64_t virtq_desc_bytes(unsigned num)
{
	return sizeof(struct vring_desc) * (uint64_t)num;
}

uint64_t virtq_avail_bytes(unsigned num)
{
	return offsetof(struct vring_avail, ring) + sizeof(uint16_t) * ((uint64_t)num + 1);
}

uint64_t virtq_used_bytes(unsigned num)
{
	return offsetof(struct vring_used, ring) + sizeof(struct vring_used_elem) * (uint64_t)num + sizeof(uint16_t);
}

void virtq_start(struct virtq *q, uint16_t next_avail)
{
	q->next_avail = q->avail_seen = next_avail;
	q->used_idx = load16(&q->used->idx);
	q->pending = 0;
	q->called = false;
	q->broken = NULL;
	store16(&q->used->flags, 0);
}

void virtq_break(struct virtq *q, const char *why)
{
	if (!q->broken)
		q->broken = why;
}

static int broken(struct virtq *q, const char *why)
{
	virtq_break(q, why);
	return -EBADMSG;
}

/* ---- chains ---- */

static struct vring_desc load_desc(const struct vring_desc *at)
{
	union {
		uint64_t word[2];
		struct vring_desc desc;
	} copy;

	copy.word[0] = __atomic_load_n((const uint64_t *)(const void *)at, __ATOMIC_RELAXED);
	copy.word[1] = __atomic_load_n((const uint64_t *)(const void *)at + 1, __ATOMIC_RELAXED);
	return copy.desc;
}

static int add_buffer(struct virtq *q, const struct vring_desc *d, struct virtq_chain *c)
{
	bool in = d->flags & VRING_DESC_F_WRITE;

	if (!d->len)
		return broken(q, "a descriptor has no length");
	if (!in && c->in)
		return broken(q, "a descriptor to read follows one to write");
	unsigned used = c->out + c->in;
	int n = vmem_guest(q->mem, d->addr, d->len, &c->iov[used], VIRTQ_IOV_MAX - used);
	if (n < 0)
		return broken(q, n == -E2BIG ? "a chain is too long" : "a descriptor points outside the guest's memory");
	if (in) {
		c->in += (unsigned)n;
		c->in_bytes += d->len;
	} else {
		c->out += (unsigned)n;
		c->out_bytes += d->len;
	}
	return 0;
}

struct table {
	const struct vring_desc *desc;
	unsigned count;
	bool indirect;
};

static int enter_indirect(struct virtq *q, const struct vring_desc *d, struct table *t)
{
	struct iovec where;

	if (!q->indirect || t->indirect)
		return broken(q, "an indirect descriptor where none may be");
	if (d->flags & VRING_DESC_F_NEXT)
		return broken(q, "an indirect descriptor has a successor");
	if (!d->len || d->len % sizeof(*d))
		return broken(q, "an indirect table has an odd length");
	if (d->len / sizeof(*d) > VIRTQ_IOV_MAX)
		return broken(q, "an indirect table is too long");
	if (vmem_guest(q->mem, d->addr, d->len, &where, 1) != 1)
		return broken(q, "an indirect table lies outside the guest's memory");
	if ((uintptr_t)where.iov_base % _Alignof(struct vring_desc))
		return broken(q, "an indirect table is not aligned");
	*t = (struct table){ where.iov_base, d->len / sizeof(*d), true };
	return 0;
}

/* A chain visits no descriptor twice: more steps than descriptors are a loop. */
static int walk(struct virtq *q, struct virtq_chain *c)
{
	struct table t = { q->desc, q->num, false };
	unsigned at = c->head, steps = 0;

	for (;;) {
		int err;
		if (at >= t.count)
			return broken(q, "a descriptor's successor is out of range");
		if (steps++ == t.count)
			return broken(q, "a chain of descriptors is a loop");
		struct vring_desc d = load_desc(&t.desc[at]);
		if (d.flags & VRING_DESC_F_INDIRECT) {
			err = enter_indirect(q, &d, &t);
			at = steps = 0;
			if (err)
				return err;
			continue;
		}
		err = add_buffer(q, &d, c);
		if (err)
			return err;
		if (!(d.flags & VRING_DESC_F_NEXT))
			return 0;
		at = d.next;
	}
}

int virtq_again(struct virtq *q, uint16_t head, struct virtq_chain *ret)
{
	if (q->broken)
		return -EBADMSG;
	if (head >= q->num)
		return broken(q, "a chain's head is out of range");
	ret->head = head;
	ret->out = ret->in = 0;
	ret->out_bytes = ret->in_bytes = 0;
	int err = walk(q, ret);
	return err ? err : 1;
}

int virtq_pop(struct virtq *q, struct virtq_chain *ret)
{
	if (q->broken)
		return -EBADMSG;
	if (q->next_avail == q->avail_seen) {
		q->avail_seen = __atomic_load_n(&q->avail->idx, __ATOMIC_ACQUIRE);
		if (q->next_avail == q->avail_seen)
			return 0;
		if ((uint16_t)(q->avail_seen - q->next_avail) > q->num)
			return broken(q, "more chains are available than the queue is long");
	}
	int n = virtq_again(q, load16(&q->avail->ring[q->next_avail & (q->num - 1)]), ret);
	if (n == 1)
		q->next_avail++;
	return n;
}

bool virtq_more(const struct virtq *q)
{
	return load16(&q->avail->idx) != q->next_avail;
}

/* ---- answers ---- */

void virtq_push(struct virtq *q, uint16_t head, uint32_t written_bytes)
{
	struct vring_used_elem *e = &q->used->ring[(uint16_t)(q->used_idx + q->pending) & (q->num - 1)];

	__atomic_store_n(&e->id, head, __ATOMIC_RELAXED);
	__atomic_store_n(&e->len, written_bytes, __ATOMIC_RELAXED);
	q->pending++;
}

bool virtq_publish(struct virtq *q)
{
	uint16_t old = q->used_idx;

	q->used_idx = (uint16_t)(old + q->pending);
	q->pending = 0;
	__atomic_store_n(&q->used->idx, q->used_idx, __ATOMIC_RELEASE);
	atomic_thread_fence(memory_order_seq_cst);
	bool first = !q->called;
	q->called = true;
	if (!q->event_idx)
		return first || !(load16(&q->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	return first || vring_need_event(load16(used_event(q)), q->used_idx, old);
}

void virtq_notify_off(struct virtq *q)
{
	/* With the event index it is off by itself: the driver passed the index that it was asked to tell of. */
	if (!q->event_idx)
		store16(&q->used->flags, VRING_USED_F_NO_NOTIFY);
}

bool virtq_notify_on(struct virtq *q)
{
	if (q->event_idx)
		store16(avail_event(q), q->next_avail);
	else
		store16(&q->used->flags, 0);
	atomic_thread_fence(memory_order_seq_cst);
	return virtq_more(q);
}
