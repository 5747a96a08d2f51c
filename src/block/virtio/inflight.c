/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one step that counts is the store to the used ring's idx. Before it the chains of the batch are linked from
 * last_batch_head; after it their marks are taken away, and used_idx of the part is brought up to the ring's. A successor that
 * finds the two different knows that death came between, and takes the marks away itself: so many, along the list.
 * A dead process' stores are all seen by its successor; what is held down here is the compiler's order (and, for form, the
 * processor's: release fences).
 */
#include "block/virtio/inflight.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#define PART_ALIGN 64u
#define VERSION 1u

static uint64_t part_bytes(unsigned size)
{
	uint64_t bytes = sizeof(struct inflight_queue) + sizeof(struct inflight_desc) * (uint64_t)size;

	return (bytes + PART_ALIGN - 1) & ~(uint64_t)(PART_ALIGN - 1);
}

uint64_t inflight_bytes(unsigned queues, unsigned size)
{
	return part_bytes(size) * queues + sizeof(struct inflight_tail);
}

struct inflight_queue *inflight_queue_at(void *memory, unsigned index, unsigned size)
{
	return (struct inflight_queue *)(void *)((char *)memory + part_bytes(size) * index);
}

struct inflight_tail *inflight_tail_at(void *memory, unsigned queues, unsigned size)
{
	return (struct inflight_tail *)(void *)((char *)memory + part_bytes(size) * queues);
}

/* Heads come from memory that is not ours alone: read once, then checked. */
static uint16_t read_head(const uint16_t *p)
{
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static void fresh(struct inflight_queue *p, unsigned size, uint16_t used_idx)
{
	p->features = 0;
	p->desc_num = (uint16_t)size;
	p->last_batch_head = 0;
	p->used_idx = used_idx;
	atomic_thread_fence(memory_order_release);
	p->version = VERSION;
}

/* The batch that was being published when its process died, if one was. */
static int finish_batch(struct inflight_queue *p, const struct virtq *q)
{
	uint16_t batch = (uint16_t)(q->used_idx - p->used_idx);
	uint16_t head = read_head(&p->last_batch_head);

	if (batch > q->num)
		return -EBADMSG;
	for (; batch; batch--) {
		if (head >= q->num)
			return -EBADMSG;
		p->desc[head].inflight = 0;
		head = read_head(&p->desc[head].next);
	}
	atomic_thread_fence(memory_order_release);
	p->used_idx = q->used_idx;
	return 0;
}

static void sort_by_counter(const struct inflight_queue *p, uint16_t *heads, unsigned count)
{
	for (unsigned i = 1; i < count; i++) {
		uint16_t head = heads[i];
		unsigned at = i;
		while (at && p->desc[heads[at - 1]].counter > p->desc[head].counter) {
			heads[at] = heads[at - 1];
			at--;
		}
		heads[at] = head;
	}
}

int inflight_attach(struct inflight *f, struct inflight_queue *part, unsigned size, const struct virtq *q, uint16_t *heads,
		    uint16_t *next_avail)
{
	unsigned count = 0;

	*f = (struct inflight){ .queue = part, .size = size };
	if (!part)
		return 0;
	if (q->num > size || part->version > VERSION || (part->version && part->desc_num != size))
		return -EBADMSG;
	if (!part->version) {
		fresh(part, size, q->used_idx);
		return 0;
	}
	int err = finish_batch(part, q);
	if (err)
		return err;
	for (unsigned i = 0; i < q->num; i++) {
		if (!part->desc[i].inflight)
			continue;
		heads[count++] = (uint16_t)i;
		if (part->desc[i].counter >= f->counter)
			f->counter = part->desc[i].counter + 1;
	}
	sort_by_counter(part, heads, count);
	*next_avail = (uint16_t)(q->used_idx + count);
	return (int)count;
}

void inflight_taken(struct inflight *f, uint16_t head)
{
	if (!f->queue)
		return;
	f->queue->desc[head].counter = f->counter++;
	atomic_thread_fence(memory_order_release);
	f->queue->desc[head].inflight = 1;
	atomic_thread_fence(memory_order_release);
}

void inflight_pushed(struct inflight *f, uint16_t head)
{
	if (!f->queue)
		return;
	f->queue->desc[head].next = f->queue->last_batch_head;
	atomic_thread_fence(memory_order_release);
	f->queue->last_batch_head = head;
	f->batch++;
}

void inflight_published(struct inflight *f, uint16_t used_idx)
{
	if (!f->queue)
		return;
	uint16_t head = read_head(&f->queue->last_batch_head);
	atomic_thread_fence(memory_order_release);
	for (; f->batch && head < f->size; f->batch--) {
		f->queue->desc[head].inflight = 0;
		head = read_head(&f->queue->desc[head].next);
	}
	f->batch = 0;
	atomic_thread_fence(memory_order_release);
	f->queue->used_idx = used_idx;
}
