/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/nbd_proto.h"

#include <errno.h>
#include <string.h>

#include "base/macros.h"
#include "base/text.h"

/* ---- transmission ---- */

size_t nbd_request_encode(const struct nbd_request *r, uint8_t out[static NBD_REQUEST_BYTES])
{
	nbd_put32(out, NBD_MAGIC_REQUEST);
	nbd_put16(out + 4, r->flags);
	nbd_put16(out + 6, r->command);
	nbd_put64(out + 8, r->cookie);
	nbd_put64(out + 16, r->offset);
	nbd_put32(out + 24, r->length);
	return NBD_REQUEST_BYTES;
}

int nbd_request_decode(const uint8_t in[static NBD_REQUEST_BYTES], struct nbd_request *ret)
{
	if (nbd_get32(in) != NBD_MAGIC_REQUEST)
		return -EPROTO;
	*ret = (struct nbd_request){
		.flags = nbd_get16(in + 4),
		.command = nbd_get16(in + 6),
		.cookie = nbd_get64(in + 8),
		.offset = nbd_get64(in + 16),
		.length = nbd_get32(in + 24),
	};
	return 0;
}

size_t nbd_simple_reply_encode(const struct nbd_simple_reply *r, uint8_t out[static NBD_SIMPLE_REPLY_BYTES])
{
	nbd_put32(out, NBD_MAGIC_SIMPLE_REPLY);
	nbd_put32(out + 4, r->error);
	nbd_put64(out + 8, r->cookie);
	return NBD_SIMPLE_REPLY_BYTES;
}

size_t nbd_chunk_encode(const struct nbd_chunk *c, uint8_t out[static NBD_CHUNK_BYTES])
{
	nbd_put32(out, NBD_MAGIC_CHUNK);
	nbd_put16(out + 4, c->flags);
	nbd_put16(out + 6, c->type);
	nbd_put64(out + 8, c->cookie);
	nbd_put32(out + 16, c->length);
	return NBD_CHUNK_BYTES;
}

size_t nbd_chunk_data_encode(uint64_t cookie, bool done, uint64_t offset, uint32_t data_bytes, uint8_t out[static NBD_CHUNK_DATA_BYTES])
{
	struct nbd_chunk c = { done ? NBD_CHUNK_DONE : 0, NBD_CHUNK_DATA, cookie, data_bytes + 8 };

	nbd_chunk_encode(&c, out);
	nbd_put64(out + NBD_CHUNK_BYTES, offset);
	return NBD_CHUNK_DATA_BYTES;
}

size_t nbd_chunk_hole_encode(uint64_t cookie, bool done, uint64_t offset, uint32_t hole_bytes, uint8_t out[static NBD_CHUNK_HOLE_BYTES])
{
	struct nbd_chunk c = { done ? NBD_CHUNK_DONE : 0, NBD_CHUNK_HOLE, cookie, 12 };

	nbd_chunk_encode(&c, out);
	nbd_put64(out + NBD_CHUNK_BYTES, offset);
	nbd_put32(out + NBD_CHUNK_BYTES + 8, hole_bytes);
	return NBD_CHUNK_HOLE_BYTES;
}

size_t nbd_chunk_error_encode(uint64_t cookie, uint32_t error, uint8_t out[static NBD_CHUNK_ERROR_BYTES])
{
	struct nbd_chunk c = { NBD_CHUNK_DONE, NBD_CHUNK_ERROR, cookie, 6 };

	nbd_chunk_encode(&c, out);
	nbd_put32(out + NBD_CHUNK_BYTES, error);
	nbd_put16(out + NBD_CHUNK_BYTES + 4, 0);
	return NBD_CHUNK_ERROR_BYTES;
}

/* "Structured reply types": what each type's length may be. Types that are not known may have any; who gets them decides. */
static bool chunk_length_fits(const struct nbd_reply *r)
{
	switch (r->type) {
	case NBD_CHUNK_NONE:
		return r->length == 0 && r->flags & NBD_CHUNK_DONE;
	case NBD_CHUNK_DATA:
		return r->length >= 9 && r->length - 8 <= NBD_PAYLOAD_MAX;
	case NBD_CHUNK_HOLE:
		return r->length == 12;
	case NBD_CHUNK_BLOCK_STATUS:
		return r->length >= 12 && r->length % 8 == 4;
	case NBD_CHUNK_ERROR_OFFSET:
		return r->length >= 14;
	default:
		return !(r->type & NBD_CHUNK_IS_ERROR) || r->length >= 6;
	}
}

int nbd_reply_decode(const uint8_t *in, size_t len, struct nbd_reply *ret)
{
	uint32_t magic = nbd_get32(in);

	if (magic == NBD_MAGIC_SIMPLE_REPLY) {
		*ret = (struct nbd_reply){ .error = nbd_get32(in + 4), .cookie = nbd_get64(in + 8) };
		return (int)NBD_SIMPLE_REPLY_BYTES;
	}
	if (magic != NBD_MAGIC_CHUNK)
		return -EPROTO;
	if (len < NBD_CHUNK_BYTES)
		return 0;
	*ret = (struct nbd_reply){
		.structured = true,
		.flags = nbd_get16(in + 4),
		.type = nbd_get16(in + 6),
		.cookie = nbd_get64(in + 8),
		.length = nbd_get32(in + 16),
	};
	return chunk_length_fits(ret) ? (int)NBD_CHUNK_BYTES : -EPROTO;
}

/* ---- errors ---- */

static const struct {
	int err;
	uint32_t wire;
} errors[] = {
	/* the first of a wire value is what it decodes to */
	{ EPERM, 1 },      { EIO, 5 },       { ENOMEM, 12 },     { EINVAL, 22 },  { ENOSPC, 28 },      { EOVERFLOW, 75 },
	{ EOPNOTSUPP, 95 }, { ESHUTDOWN, 108 }, { EROFS, 1 },   { EACCES, 1 },   { EDQUOT, 28 },      { EFBIG, 28 },
};

uint32_t nbd_errno(int err)
{
	for (size_t i = 0; err && i < ARRAY_SIZE(errors); i++) {
		if (errors[i].err == -err)
			return errors[i].wire;
	}
	return err ? 5 : 0;
}

int nbd_errno_decode(uint32_t nbd_err)
{
	for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
		if (errors[i].wire == nbd_err)
			return -errors[i].err;
	}
	return nbd_err ? -EIO : 0;
}

/* ---- options ---- */

size_t nbd_option_encode(uint32_t option, uint32_t length, uint8_t out[static NBD_OPTION_BYTES])
{
	nbd_put64(out, NBD_MAGIC_OPTION);
	nbd_put32(out + 8, option);
	nbd_put32(out + 12, length);
	return NBD_OPTION_BYTES;
}

int nbd_option_decode(const uint8_t in[static NBD_OPTION_BYTES], uint32_t *ret_option, uint32_t *ret_length)
{
	if (nbd_get64(in) != NBD_MAGIC_OPTION)
		return -EPROTO;
	*ret_option = nbd_get32(in + 8);
	*ret_length = nbd_get32(in + 12);
	return 0;
}

size_t nbd_option_reply_encode(const struct nbd_option_reply *r, uint8_t out[static NBD_OPTION_REPLY_BYTES])
{
	nbd_put64(out, NBD_MAGIC_OPTION_REPLY);
	nbd_put32(out + 8, r->option);
	nbd_put32(out + 12, r->type);
	nbd_put32(out + 16, r->length);
	return NBD_OPTION_REPLY_BYTES;
}

int nbd_option_reply_decode(const uint8_t in[static NBD_OPTION_REPLY_BYTES], struct nbd_option_reply *ret)
{
	if (nbd_get64(in) != NBD_MAGIC_OPTION_REPLY)
		return -EPROTO;
	*ret = (struct nbd_option_reply){ .option = nbd_get32(in + 8), .type = nbd_get32(in + 12), .length = nbd_get32(in + 16) };
	return 0;
}

bool nbd_text_is(struct nbd_text t, const char *s)
{
	return t.len == strlen(s) && memcmp(t.text, s, t.len) == 0;
}

/* A string with its length in front, out of [*at, end). "The entire name MUST be UTF-8" without NUL, at most 4096 bytes. */
static bool take_text(const uint8_t **at, const uint8_t *end, struct nbd_text *ret)
{
	if (end - *at < 4)
		return false;
	uint32_t len = nbd_get32(*at);
	const char *text = (const char *)*at + 4;
	if (len > NBD_STRING_MAX || len > (size_t)(end - *at - 4) || memchr(text, '\0', len) || !utf8_valid(text, len))
		return false;
	*ret = (struct nbd_text){ text, len };
	*at += 4 + len;
	return true;
}

int nbd_parse_go(const uint8_t *data, size_t len, struct nbd_text *ret_name, unsigned *ret_infos)
{
	const uint8_t *at = data, *end = data + len;
	unsigned infos = 0;

	if (!take_text(&at, end, ret_name) || end - at < 2)
		return -EINVAL;
	size_t count = nbd_get16(at);
	at += 2;
	if ((size_t)(end - at) != count * 2)
		return -EINVAL;
	for (; at < end; at += 2) {
		unsigned info = nbd_get16(at);
		if (info <= NBD_INFO_BLOCK_SIZE)
			infos |= 1u << info;
	}
	*ret_infos = infos;
	return 0;
}

int nbd_parse_meta(const uint8_t *data, size_t len, struct nbd_meta_queries *ret)
{
	struct nbd_meta_queries q = { .at = data, .end = data + len };
	struct nbd_text text;

	if (!take_text(&q.at, q.end, &q.name) || q.end - q.at < 4)
		return -EINVAL;
	q.count = nbd_get32(q.at);
	q.at += 4;
	const uint8_t *at = q.at;
	for (uint32_t i = 0; i < q.count; i++) {
		if (!take_text(&at, q.end, &text))
			return -EINVAL;
	}
	if (at != q.end)
		return -EINVAL;
	*ret = q;
	return 0;
}

bool nbd_next_query(struct nbd_meta_queries *q, struct nbd_text *ret)
{
	return take_text(&q->at, q->end, ret);
}
