/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Extents by BLOCK_STATUS. Layers ask for extents and wait, so this has a connection of its own, on which a question is one round
 * trip of at most WAIT_MS; without it, or when the answer is late or strange, all is data, which is always right. Only for
 * servers whose connections see one another's writes (CAN_MULTI_CONN).
 */
#include <errno.h>

#include "base/clock.h"
#include "base/macros.h"
#include "block/back/nbd_priv.h"

#define WAIT_MS 200
#define DESCRIPTORS_MAX 512u

static int read_over(struct nbd_dial *d, uint32_t len)
{
	uint8_t over[512];
	int err = 0;

	while (!err && len) {
		uint32_t part = MIN_OF(len, (uint32_t)sizeof(over));
		err = nbd_dial_read(d, over, part);
		len -= part;
	}
	return err;
}

/* Descriptors as extents, up to max and len_bytes. From one that is no multiple of our blocks on, all counts as data. */
static int convert(const struct nbd_client *c, const uint8_t *data, unsigned count, uint64_t len_bytes, struct blk_extent *out, unsigned max)
{
	unsigned n = 0;

	for (unsigned i = 0; i < count && n < max && len_bytes; i++) {
		uint64_t len = MIN_OF((uint64_t)nbd_get32(data + i * 8), len_bytes);
		uint32_t state = nbd_get32(data + i * 8 + 4);
		if (!nbd_get32(data + i * 8))
			return -EPROTO;
		if (len % c->block_bytes) {
			len = len_bytes;
			state = 0;
		}
		out[n++] = (struct blk_extent){ len, !(state & NBD_STATE_ZERO) ? BLK_EXTENT_DATA :
						     state & NBD_STATE_HOLE    ? BLK_EXTENT_HOLE :
										 BLK_EXTENT_ZERO };
		len_bytes -= len;
	}
	return (int)n;
}

static int take_status(struct nbd_client *c, uint32_t length, uint64_t len_bytes, struct blk_extent *out, unsigned max)
{
	uint8_t data[4 + 8 * DESCRIPTORS_MAX];
	uint32_t take = MIN_OF(length, (uint32_t)sizeof(data));
	int err = nbd_dial_read(&c->status, data, take);

	if (!err)
		err = read_over(&c->status, length - take);
	if (err || nbd_get32(data) != c->status_id)
		return err ? err : -EPROTO;
	return convert(c, data + 4, (take - 4) / 8, len_bytes, out, max);
}

/* The extents' number; 0: the server answered with an error; negative: the connection is of no use any more. */
static int ask(struct nbd_client *c, uint64_t off, uint32_t len, struct blk_extent *out, unsigned max)
{
	struct nbd_request rq = { .command = NBD_CMD_BLOCK_STATUS, .cookie = ++c->status_cookie, .offset = off, .length = len };
	uint8_t wire[NBD_REQUEST_BYTES], header[NBD_CHUNK_BYTES];
	struct nbd_reply r = { 0 };
	int n = 0;

	c->status.deadline_ms = clock_mono_ms() + WAIT_MS;
	nbd_request_encode(&rq, wire);
	int err = nbd_dial_write(&c->status, wire, sizeof(wire));
	for (unsigned chunks = 0; !err && !(r.flags & NBD_CHUNK_DONE); chunks++) {
		err = nbd_dial_read(&c->status, header, sizeof(header));
		if (err)
			break;
		if (nbd_reply_decode(header, sizeof(header), &r) != (int)NBD_CHUNK_BYTES || r.cookie != rq.cookie || r.length > 8u << 20 || chunks > 4)
			return -EPROTO;
		if (r.type != NBD_CHUNK_BLOCK_STATUS) {
			err = read_over(&c->status, r.length);
			continue;
		}
		n = take_status(c, r.length, len, out, max);
		err = MIN_OF(n, 0);
	}
	return err ? err : n;
}

int nbd_status_extents(struct nbd_client *c, uint64_t off_bytes, uint64_t len_bytes, struct blk_extent *out, unsigned max)
{
	uint32_t len = (uint32_t)MIN_OF(len_bytes, (uint64_t)NBD_PIECE_MAX);
	int n = 0;

	pthread_mutex_lock(&c->status_lock);
	bool up = c->status_up;
	if (up)
		n = ask(c, off_bytes, len, out, max);
	if (n < 0) {
		nbd_dial_close(&c->status);
		c->status_up = false;
	}
	pthread_mutex_unlock(&c->status_lock);
	if (n < 0)
		nbd_connector_want(c, NULL);
	if (n > 0)
		return n;
	out[0] = (struct blk_extent){ len_bytes, BLK_EXTENT_DATA };
	return 1;
}
