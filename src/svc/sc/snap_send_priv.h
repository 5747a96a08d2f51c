/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SNAP_SEND_PRIV_H
#define MALLEE_SVC_SC_SNAP_SEND_PRIV_H

#include <stdatomic.h>

#include "svc/sc/snap_format_priv.h"
#include "svc/sc/objects.h"

/* Packs being filled and sent: threads that PUT what was sealed, and a bounded number of buffers. One thread fills. */
struct snap_send;

struct snap_pack { /* being filled */
	struct buf data;
	struct snap_blob *blobs;
	unsigned count, cap;
	uint32_t number;
	struct snap_pack *next;
};

/* cipher: NULL: plain. The caller's, and outlives it. */
struct snap_send *snap_send_new(struct objects *o, const struct upload_id *id, unsigned in_flight, uint32_t pack_bytes,
				const struct snap_cipher *cipher);
/* Waits for what is being sent; what is only sealed is not sent. NULL is fine. */
void snap_send_free(struct snap_send *s);

/* Puts a blob, what->len bytes, into the open pack of its kind, sealing that first when it is full. *what then says where it lies and how
 * long it is there, and a page's the SHA-256 of what is there. Waits for a buffer. */
int snap_send_add(struct snap_send *s, struct snap_blob *what, const void *data, uint32_t *ret_pack, struct error *e);
int snap_send_finish(struct snap_send *s, struct error *e); /* seals, and waits until all is sent */
void snap_send_cancel(struct snap_send *s);
uint64_t snap_send_sent(struct snap_send *s);  /* bytes that were answered for */
uint64_t snap_send_added(struct snap_send *s); /* bytes taken */

#endif
