/* SPDX-License-Identifier: Apache-2.0 */
#include "block/virtio/vdriver.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

#include "block/virtio/virtq.h"

/* Each part on a page of its own. */
static uint64_t page_up(uint64_t n)
{
	return (n + 4095) & ~(uint64_t)4095;
}

uint64_t vdriver_bytes(unsigned num, unsigned table)
{
	return page_up(virtq_desc_bytes(num)) + page_up(virtq_avail_bytes(num)) + page_up(virtq_used_bytes(num)) +
	       page_up(virtq_desc_bytes(num) * table);
}

void vdriver_init(struct vdriver *d, void *memory, uint64_t guest_base, unsigned num, unsigned table, bool event_idx)
{
	char *at = memory;

	*d = (struct vdriver){ .num = num, .table = table, .event_idx = event_idx, .free = (uint16_t)num };
	d->desc = (void *)at;
	at += page_up(virtq_desc_bytes(num));
	d->avail = (void *)at;
	at += page_up(virtq_avail_bytes(num));
	d->used = (void *)at;
	at += page_up(virtq_used_bytes(num));
	d->tables = (void *)at;
	d->tables_guest = guest_base + (uint64_t)(at - (char *)memory);
	for (unsigned i = 0; i < num; i++)
		d->desc[i].next = (uint16_t)(i + 1);
}

static void fill(struct vring_desc *desc, const struct vdriver_buf *buf, bool more)
{
	desc->addr = buf->guest;
	desc->len = buf->len_bytes;
	desc->flags = (uint16_t)((buf->write ? VRING_DESC_F_WRITE : 0) | (more ? VRING_DESC_F_NEXT : 0));
}

static void add_indirect(struct vdriver *d, const struct vdriver_buf *buf, unsigned count)
{
	struct vring_desc *head = &d->desc[d->free_head], *t = &d->tables[(size_t)d->free_head * d->table];

	for (unsigned i = 0; i < count; i++) {
		fill(&t[i], &buf[i], i + 1 < count);
		t[i].next = (uint16_t)(i + 1);
	}
	head->addr = d->tables_guest + (uint64_t)((char *)t - (char *)d->tables);
	head->len = count * (uint32_t)sizeof(*t);
	head->flags = VRING_DESC_F_INDIRECT;
	d->free_head = head->next;
	d->free--;
}

int vdriver_add(struct vdriver *d, const struct vdriver_buf *buf, unsigned count)
{
	uint16_t head = d->free_head;

	if (d->free < (d->table ? 1 : count) || (d->table && count > d->table))
		return -ENOSPC;
	if (d->table) {
		add_indirect(d, buf, count);
	} else {
		for (unsigned i = 0; i < count; i++) {
			fill(&d->desc[d->free_head], &buf[i], i + 1 < count);
			d->free_head = d->desc[d->free_head].next;
		}
		d->free = (uint16_t)(d->free - count);
	}
	__atomic_store_n(&d->avail->ring[d->avail_idx++ & (d->num - 1)], head, __ATOMIC_RELAXED);
	return head;
}

bool vdriver_show(struct vdriver *d)
{
	uint16_t old = d->shown_idx;

	if (old == d->avail_idx)
		return false;
	d->shown_idx = d->avail_idx;
	__atomic_store_n(&d->avail->idx, d->avail_idx, __ATOMIC_RELEASE);
	atomic_thread_fence(memory_order_seq_cst);
	if (!d->event_idx)
		return !(__atomic_load_n(&d->used->flags, __ATOMIC_RELAXED) & VRING_USED_F_NO_NOTIFY);
	const uint16_t *event = (const uint16_t *)(const void *)&d->used->ring[d->num];
	return vring_need_event(__atomic_load_n(event, __ATOMIC_RELAXED), d->avail_idx, old);
}

int vdriver_get(struct vdriver *d, uint32_t *ret_len)
{
	if (__atomic_load_n(&d->used->idx, __ATOMIC_ACQUIRE) == d->used_seen)
		return -EAGAIN;
	struct vring_used_elem *e = &d->used->ring[d->used_seen++ & (d->num - 1)];
	uint16_t head = (uint16_t)e->id, last = head, count = 1;
	*ret_len = e->len;
	while (d->desc[last].flags & VRING_DESC_F_NEXT) {
		last = d->desc[last].next;
		count++;
	}
	d->desc[last].next = d->free_head;
	d->free_head = head;
	d->free = (uint16_t)(d->free + count);
	return head;
}

void vdriver_call_off(struct vdriver *d)
{
	if (!d->event_idx)
		__atomic_store_n(&d->avail->flags, VRING_AVAIL_F_NO_INTERRUPT, __ATOMIC_RELAXED);
}

bool vdriver_call_on(struct vdriver *d)
{
	if (d->event_idx)
		__atomic_store_n(&d->avail->ring[d->num], d->used_seen, __ATOMIC_RELAXED);
	else
		__atomic_store_n(&d->avail->flags, 0, __ATOMIC_RELAXED);
	atomic_thread_fence(memory_order_seq_cst);
	return __atomic_load_n(&d->used->idx, __ATOMIC_RELAXED) != d->used_seen;
}
