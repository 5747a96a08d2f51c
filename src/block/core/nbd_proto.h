/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_CORE_NBD_PROTO_H
#define MALLEE_BLOCK_CORE_NBD_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The NBD protocol's numbers and messages, for the server (block/front) and the client (block/back). Everything on the wire is
 * big-endian; encoders and decoders work on bytes, decoders check what they were given. Section names are those of the
 * protocol's own document, doc/proto.md of the NBD project.
 */

/* ---- magic numbers ---- */
#define NBD_MAGIC_INIT 0x4e42444d41474943u   /* "NBDMAGIC" */
#define NBD_MAGIC_OPTION 0x49484156454f5054u /* "IHAVEOPT" */
#define NBD_MAGIC_OPTION_REPLY 0x0003e889045565a9u
#define NBD_MAGIC_REQUEST 0x25609513u
#define NBD_MAGIC_SIMPLE_REPLY 0x67446698u
#define NBD_MAGIC_CHUNK 0x668e33efu

/* ---- handshake ---- */
enum { NBD_FLAG_FIXED_NEWSTYLE = 1 << 0, NBD_FLAG_NO_ZEROES = 1 << 1 }; /* the server's, and with the same bits the client's */

enum nbd_transmission_flags {
	NBD_HAS_FLAGS = 1 << 0,
	NBD_READ_ONLY = 1 << 1,
	NBD_SEND_FLUSH = 1 << 2,
	NBD_SEND_FUA = 1 << 3,
	NBD_ROTATIONAL = 1 << 4,
	NBD_SEND_TRIM = 1 << 5,
	NBD_SEND_WRITE_ZEROES = 1 << 6,
	NBD_SEND_DF = 1 << 7,
	NBD_CAN_MULTI_CONN = 1 << 8,
	NBD_SEND_CACHE = 1 << 10,
	NBD_SEND_FAST_ZERO = 1 << 11,
};

enum nbd_option {
	NBD_OPT_EXPORT_NAME = 1,
	NBD_OPT_ABORT = 2,
	NBD_OPT_LIST = 3,
	NBD_OPT_STARTTLS = 5,
	NBD_OPT_INFO = 6,
	NBD_OPT_GO = 7,
	NBD_OPT_STRUCTURED_REPLY = 8,
	NBD_OPT_LIST_META_CONTEXT = 9,
	NBD_OPT_SET_META_CONTEXT = 10,
};

#define NBD_REP_IS_ERROR 0x80000000u
#define NBD_REP_ACK 1u
#define NBD_REP_SERVER 2u
#define NBD_REP_INFO 3u
#define NBD_REP_META_CONTEXT 4u
#define NBD_REP_ERR_UNSUP (NBD_REP_IS_ERROR | 1)
#define NBD_REP_ERR_POLICY (NBD_REP_IS_ERROR | 2)
#define NBD_REP_ERR_INVALID (NBD_REP_IS_ERROR | 3)
#define NBD_REP_ERR_PLATFORM (NBD_REP_IS_ERROR | 4)
#define NBD_REP_ERR_TLS_REQD (NBD_REP_IS_ERROR | 5)
#define NBD_REP_ERR_UNKNOWN (NBD_REP_IS_ERROR | 6)
#define NBD_REP_ERR_SHUTDOWN (NBD_REP_IS_ERROR | 7)
#define NBD_REP_ERR_TOO_BIG (NBD_REP_IS_ERROR | 9)

enum nbd_info { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_DESCRIPTION = 2, NBD_INFO_BLOCK_SIZE = 3 };

#define NBD_STRING_MAX 4096u       /* bytes of a name or a query */
#define NBD_PAYLOAD_MAX (32u << 20) /* bytes of data in one message: what every client may expect */
#define NBD_META_ALLOCATION "base:allocation"
#define NBD_META_CHANGED "mallee:changed"

/* ---- transmission ---- */
enum nbd_command {
	NBD_CMD_READ = 0,
	NBD_CMD_WRITE = 1,
	NBD_CMD_DISC = 2,
	NBD_CMD_FLUSH = 3,
	NBD_CMD_TRIM = 4,
	NBD_CMD_CACHE = 5,
	NBD_CMD_WRITE_ZEROES = 6,
	NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_command_flags {
	NBD_CMD_FLAG_FUA = 1 << 0,
	NBD_CMD_FLAG_NO_HOLE = 1 << 1,
	NBD_CMD_FLAG_DF = 1 << 2,
	NBD_CMD_FLAG_REQ_ONE = 1 << 3,
	NBD_CMD_FLAG_FAST_ZERO = 1 << 4,
};

#define NBD_CHUNK_DONE 1u /* flag */
#define NBD_CHUNK_IS_ERROR 0x8000u
enum nbd_chunk_type {
	NBD_CHUNK_NONE = 0,
	NBD_CHUNK_DATA = 1,
	NBD_CHUNK_HOLE = 2,
	NBD_CHUNK_BLOCK_STATUS = 5,
	NBD_CHUNK_ERROR = NBD_CHUNK_IS_ERROR | 1,
	NBD_CHUNK_ERROR_OFFSET = NBD_CHUNK_IS_ERROR | 2,
};

enum { NBD_STATE_HOLE = 1 << 0, NBD_STATE_ZERO = 1 << 1 }; /* base:allocation */
enum { NBD_STATE_CHANGED = 1 << 0 };                       /* mallee:changed */

/* ---- bytes ---- */
static inline uint16_t nbd_get16(const void *p)
{
	const uint8_t *b = p;

	return (uint16_t)(b[0] << 8 | b[1]);
}

static inline uint32_t nbd_get32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)nbd_get16(b) << 16 | nbd_get16(b + 2);
}

static inline uint64_t nbd_get64(const void *p)
{
	const uint8_t *b = p;

	return (uint64_t)nbd_get32(b) << 32 | nbd_get32(b + 4);
}

static inline void nbd_put16(void *p, uint16_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)(v >> 8);
	b[1] = (uint8_t)v;
}

static inline void nbd_put32(void *p, uint32_t v)
{
	nbd_put16(p, (uint16_t)(v >> 16));
	nbd_put16((uint8_t *)p + 2, (uint16_t)v);
}

static inline void nbd_put64(void *p, uint64_t v)
{
	nbd_put32(p, (uint32_t)(v >> 32));
	nbd_put32((uint8_t *)p + 4, (uint32_t)v);
}

/* ---- messages of the transmission phase; encoders return the bytes they wrote ---- */
#define NBD_REQUEST_BYTES 28u
#define NBD_SIMPLE_REPLY_BYTES 16u
#define NBD_CHUNK_BYTES 20u       /* a chunk's header */
#define NBD_CHUNK_DATA_BYTES 28u  /* with the offset in front of the data */
#define NBD_CHUNK_HOLE_BYTES 32u
#define NBD_CHUNK_ERROR_BYTES 26u /* without a message */

struct nbd_request {
	uint16_t flags, command; /* enum nbd_command_flags, enum nbd_command: whatever came */
	uint64_t cookie, offset;
	uint32_t length;
};
size_t nbd_request_encode(const struct nbd_request *r, uint8_t out[static NBD_REQUEST_BYTES]);
int nbd_request_decode(const uint8_t in[static NBD_REQUEST_BYTES], struct nbd_request *ret); /* -EPROTO: no request */

struct nbd_simple_reply {
	uint32_t error; /* nbd_errno() */
	uint64_t cookie;
};
size_t nbd_simple_reply_encode(const struct nbd_simple_reply *r, uint8_t out[static NBD_SIMPLE_REPLY_BYTES]);

struct nbd_chunk {
	uint16_t flags, type;
	uint64_t cookie;
	uint32_t length; /* of what follows the header */
};
size_t nbd_chunk_encode(const struct nbd_chunk *c, uint8_t out[static NBD_CHUNK_BYTES]);
size_t nbd_chunk_data_encode(uint64_t cookie, bool done, uint64_t offset, uint32_t data_bytes, uint8_t out[static NBD_CHUNK_DATA_BYTES]);
size_t nbd_chunk_hole_encode(uint64_t cookie, bool done, uint64_t offset, uint32_t hole_bytes, uint8_t out[static NBD_CHUNK_HOLE_BYTES]);
size_t nbd_chunk_error_encode(uint64_t cookie, uint32_t error, uint8_t out[static NBD_CHUNK_ERROR_BYTES]); /* the last chunk */

/* Either kind of reply, as a client sees it. */
struct nbd_reply {
	bool structured;
	uint64_t cookie;
	uint32_t error;       /* simple */
	uint16_t flags, type; /* structured */
	uint32_t length;      /* structured: of what follows */
};
/* in holds at least NBD_SIMPLE_REPLY_BYTES, of len. Bytes used; 0: more are needed; -EPROTO: no reply, or one that contradicts
 * itself (a chunk whose length cannot be that of its type). */
int nbd_reply_decode(const uint8_t *in, size_t len, struct nbd_reply *ret);

/* ---- errors: the protocol has eight; "Error values" ---- */
uint32_t nbd_errno(int err);            /* of a negative errno; 0 stays 0 */
int nbd_errno_decode(uint32_t nbd_err); /* a negative errno */

/* ---- options ---- */
#define NBD_OPTION_BYTES 16u
#define NBD_OPTION_REPLY_BYTES 20u
struct nbd_option_reply {
	uint32_t option, type, length;
};
size_t nbd_option_encode(uint32_t option, uint32_t length, uint8_t out[static NBD_OPTION_BYTES]);
int nbd_option_decode(const uint8_t in[static NBD_OPTION_BYTES], uint32_t *ret_option, uint32_t *ret_length); /* -EPROTO */
size_t nbd_option_reply_encode(const struct nbd_option_reply *r, uint8_t out[static NBD_OPTION_REPLY_BYTES]);
int nbd_option_reply_decode(const uint8_t in[static NBD_OPTION_REPLY_BYTES], struct nbd_option_reply *ret); /* -EPROTO */

struct nbd_text { /* not NUL-terminated: a part of a message */
	const char *text;
	uint32_t len;
};
bool nbd_text_is(struct nbd_text t, const char *s);

/* The data of INFO and GO. *ret_infos: bit 1 << NBD_INFO_… for each that is known. -EINVAL: malformed. */
int nbd_parse_go(const uint8_t *data, size_t len, struct nbd_text *ret_name, unsigned *ret_infos);
/* The data of LIST_META_CONTEXT and SET_META_CONTEXT. -EINVAL: malformed; all of it is checked here. */
struct nbd_meta_queries {
	struct nbd_text name;
	uint32_t count;
	const uint8_t *at, *end; /* nbd_next_query()'s */
};
int nbd_parse_meta(const uint8_t *data, size_t len, struct nbd_meta_queries *ret);
bool nbd_next_query(struct nbd_meta_queries *q, struct nbd_text *ret);

#endif
