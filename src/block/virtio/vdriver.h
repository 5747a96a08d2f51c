/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_VIRTIO_VDRIVER_H
#define MALLEE_BLOCK_VIRTIO_VDRIVER_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/virtio_ring.h>

/*
 * The driver's side of a split virtqueue, as a guest has it: for tests and the benchmark. It trusts its device.
 * Its memory is one piece: descriptors, available ring, used ring, and (indirect) a table of `table` descriptors for each head.
 */
struct vdriver {
	unsigned num, table;     /* table 0: chains lie in the queue itself */
	bool event_idx;
	struct vring_desc *desc, *tables;
	struct vring_avail *avail;
	struct vring_used *used;
	uint64_t tables_guest;   /* where the tables are to the device */
	uint16_t free_head, free;
	uint16_t avail_idx, shown_idx, used_seen;
};

struct vdriver_buf {
	uint64_t guest;
	uint32_t len_bytes;
	bool write; /* for the device to write */
};

uint64_t vdriver_bytes(unsigned num, unsigned table);
/* memory: zeroed, 4096-aligned, at guest_base to the device. */
void vdriver_init(struct vdriver *d, void *memory, uint64_t guest_base, unsigned num, unsigned table, bool event_idx);
/* A chain of count buffers: its head, or -ENOSPC. The device sees it after vdriver_show(). */
int vdriver_add(struct vdriver *d, const struct vdriver_buf *buf, unsigned count);
bool vdriver_show(struct vdriver *d); /* true: the device wants a kick */
/* A chain that came back: its head, or -EAGAIN. Its descriptors are free again. */
int vdriver_get(struct vdriver *d, uint32_t *ret_len);
void vdriver_call_off(struct vdriver *d);
bool vdriver_call_on(struct vdriver *d); /* true: something came back meanwhile */

#endif
