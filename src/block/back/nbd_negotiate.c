/* SPDX-License-Identifier: Apache-2.0 */
/* The client's half of the handshake: fixed newstyle, GO, and EXPORT_NAME for servers that do not know GO. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"
#include "block/back/nbd_priv.h"

#define REPLY_MAX 65536u /* bytes of one reply to an option */
#define REPLIES_MAX 256u /* to one option */

static int send_option(struct nbd_negotiation *n, uint32_t option, const void *data, size_t len)
{
	uint8_t header[NBD_OPTION_BYTES];
	int err;

	nbd_option_encode(option, (uint32_t)len, header);
	err = n->write(n->ctx, header, sizeof(header));
	return err || !len ? err : n->write(n->ctx, data, len);
}

/* One reply; of its data as much as fits into data, the rest is read over. */
static int read_reply(struct nbd_negotiation *n, uint32_t option, struct nbd_option_reply *ret, uint8_t *data, size_t max)
{
	uint8_t header[NBD_OPTION_REPLY_BYTES], over[256];
	int err = n->read(n->ctx, header, sizeof(header));

	if (!err)
		err = nbd_option_reply_decode(header, ret);
	if (err)
		return err;
	if (ret->option != option || ret->length > REPLY_MAX)
		return -EPROTO;
	uint32_t take = MIN_OF(ret->length, (uint32_t)max), left = ret->length - take;
	if (take)
		err = n->read(n->ctx, data, take);
	while (!err && left) {
		uint32_t part = MIN_OF(left, (uint32_t)sizeof(over));
		err = n->read(n->ctx, over, part);
		left -= part;
	}
	return err;
}

/* An option that is answered by ACK or an error alone. 1: ACK; 0: refused. */
static int ask(struct nbd_negotiation *n, uint32_t option)
{
	struct nbd_option_reply r;
	int err = send_option(n, option, NULL, 0);

	if (!err)
		err = read_reply(n, option, &r, NULL, 0);
	if (err)
		return err;
	return r.type == NBD_REP_ACK ? 1 : r.type & NBD_REP_IS_ERROR ? 0 : -EPROTO;
}

static int greet(struct nbd_negotiation *n, bool *ret_no_zeroes)
{
	uint8_t greeting[18], flags[4];
	int err = n->read(n->ctx, greeting, sizeof(greeting));

	if (err)
		return err;
	if (nbd_get64(greeting) != NBD_MAGIC_INIT || nbd_get64(greeting + 8) != NBD_MAGIC_OPTION ||
	    !(nbd_get16(greeting + 16) & NBD_FLAG_FIXED_NEWSTYLE))
		return -EPROTO;
	*ret_no_zeroes = nbd_get16(greeting + 16) & NBD_FLAG_NO_ZEROES;
	nbd_put32(flags, NBD_FLAG_FIXED_NEWSTYLE | (*ret_no_zeroes ? NBD_FLAG_NO_ZEROES : 0));
	return n->write(n->ctx, flags, sizeof(flags));
}

/* The export's name with its length in front, and room for what comes behind. */
static size_t put_name(const struct nbd_negotiation *n, uint8_t *out)
{
	size_t len = strlen(n->export_name);

	nbd_put32(out, (uint32_t)len);
	memcpy(out + 4, n->export_name, len);
	return 4 + len;
}

static int select_status(struct nbd_negotiation *n)
{
	uint8_t data[NBD_STRING_MAX + 64], reply[64];
	struct nbd_option_reply r;
	size_t len = put_name(n, data), name = strlen(NBD_META_ALLOCATION);

	nbd_put32(data + len, 1);
	nbd_put32(data + len + 4, (uint32_t)name);
	memcpy(data + len + 8, NBD_META_ALLOCATION, name);
	int err = send_option(n, NBD_OPT_SET_META_CONTEXT, data, len + 8 + name);
	for (unsigned i = 0; !err && i < REPLIES_MAX; i++) {
		err = read_reply(n, NBD_OPT_SET_META_CONTEXT, &r, reply, sizeof(reply));
		if (err || r.type == NBD_REP_ACK || r.type & NBD_REP_IS_ERROR)
			return err;
		if (r.type != NBD_REP_META_CONTEXT || r.length < 4)
			return -EPROTO;
		if (r.length == 4 + name && memcmp(reply + 4, NBD_META_ALLOCATION, name) == 0) {
			n->remote.has_status = true;
			n->remote.status_id = nbd_get32(reply);
		}
	}
	return err ? err : -EPROTO;
}

static int take_info(struct nbd_negotiation *n, const uint8_t *data, uint32_t len, bool *known)
{
	struct nbd_remote *x = &n->remote;

	if (len < 2)
		return -EPROTO;
	switch (nbd_get16(data)) {
	case NBD_INFO_EXPORT:
		if (len != 12)
			return -EPROTO;
		x->size_bytes = nbd_get64(data + 2);
		x->flags = nbd_get16(data + 10);
		*known = true;
		return 0;
	case NBD_INFO_BLOCK_SIZE:
		if (len != 14)
			return -EPROTO;
		x->minimum = nbd_get32(data + 2);
		x->preferred = nbd_get32(data + 6);
		x->maximum = nbd_get32(data + 10);
		return 0;
	default:
		return 0;
	}
}

static int refused(struct nbd_negotiation *n, const struct nbd_option_reply *r, const uint8_t *text, size_t max, struct error *e)
{
	int len = (int)MIN_OF((size_t)r->length, max);
	char clean[128];

	for (int i = 0; i < len; i++)
		clean[i] = text[i] >= ' ' && text[i] < 127 ? (char)text[i] : '?';
	error_set(e, "Refused", "the server refuses the export \"%.64s\" (%#x): %.*s", n->export_name, r->type, len, clean);
	return r->type == NBD_REP_ERR_UNKNOWN ? -ENOENT : -EACCES;
}

/* 1: in; 0: the server does not know GO. */
static int go(struct nbd_negotiation *n, struct error *e)
{
	uint8_t data[NBD_STRING_MAX + 16], reply[128];
	struct nbd_option_reply r;
	bool known = false;
	size_t len = put_name(n, data);

	nbd_put16(data + len, 1);
	nbd_put16(data + len + 2, NBD_INFO_BLOCK_SIZE);
	int err = send_option(n, NBD_OPT_GO, data, len + 4);
	for (unsigned i = 0; !err && i < REPLIES_MAX; i++) {
		err = read_reply(n, NBD_OPT_GO, &r, reply, sizeof(reply));
		if (err)
			return err;
		if (r.type == NBD_REP_ACK)
			return known ? 1 : -EPROTO;
		if (r.type == NBD_REP_ERR_UNSUP)
			return 0;
		if (r.type & NBD_REP_IS_ERROR)
			return refused(n, &r, reply, sizeof(reply), e);
		if (r.type == NBD_REP_INFO)
			err = take_info(n, reply, r.length, &known);
	}
	return err ? err : -EPROTO;
}

static int by_export_name(struct nbd_negotiation *n, bool no_zeroes)
{
	uint8_t data[10 + 124];
	int err = send_option(n, NBD_OPT_EXPORT_NAME, n->export_name, strlen(n->export_name));

	if (!err)
		err = n->read(n->ctx, data, no_zeroes ? 10 : sizeof(data));
	if (err)
		return err;
	n->remote.size_bytes = nbd_get64(data);
	n->remote.flags = nbd_get16(data + 8);
	return 0;
}

/* "Size constraints": what a server may say, and what we can live with. */
static int check_remote(const struct nbd_remote *x, struct error *e)
{
	if (!(x->flags & NBD_HAS_FLAGS))
		return -EPROTO;
	if (!x->minimum || x->minimum & (x->minimum - 1) || x->preferred < x->minimum || x->maximum < x->minimum)
		return error_set(e, "InvalidServer", "the server's block sizes (%u, %u, %u) cannot be", x->minimum, x->preferred, x->maximum);
	if (x->minimum > 4096)
		return error_set(e, "Unsupported", "the server's blocks of %u bytes are larger than 4096", x->minimum);
	uint32_t block = nbd_block_bytes(x);
	if (x->maximum < block)
		return error_set(e, "Unsupported", "the server takes %u bytes at a time, less than a block of %u", x->maximum, block);
	if (x->size_bytes > INT64_MAX || x->size_bytes < MAX_OF(x->minimum, BLK_SECTOR))
		return error_set(e, "Unsupported", "an export of %llu bytes", (unsigned long long)x->size_bytes);
	return 0;
}

static int negotiate(struct nbd_negotiation *n, struct error *e)
{
	bool no_zeroes;
	int r = greet(n, &no_zeroes);

	if (r)
		return r;
	if (n->secure) {
		r = ask(n, NBD_OPT_STARTTLS);
		if (r == 0)
			return error_set(e, "NoTls", "the server has no TLS");
		if (r == 1)
			r = n->secure(n->ctx);
		if (r)
			return r;
	}
	r = ask(n, NBD_OPT_STRUCTURED_REPLY);
	if (r < 0)
		return r;
	n->remote.structured = r;
	r = r && n->want_status ? select_status(n) : 0;
	if (!r)
		r = go(n, e);
	if (r == 0)
		r = by_export_name(n, no_zeroes);
	return r < 0 ? r : check_remote(&n->remote, e);
}

int nbd_negotiate(struct nbd_negotiation *n, struct error *e)
{
	if (strlen(n->export_name) > NBD_STRING_MAX)
		return error_set(e, "InvalidOption", "the export's name has more than %u bytes", NBD_STRING_MAX);
	/* What holds when the server does not say. */
	n->remote = (struct nbd_remote){ .minimum = 512, .preferred = 4096, .maximum = NBD_PAYLOAD_MAX };
	int err = negotiate(n, e);
	if (err == -EPROTO)
		return error_set(e, "InvalidServer", "it does not speak NBD's fixed newstyle as it should");
	return err;
}
