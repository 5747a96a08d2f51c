/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BLOCK_FRONT_NBD_HANDSHAKE_H
#define MALLEE_BLOCK_FRONT_NBD_HANDSHAKE_H

#include "base/buf.h"
#include "block/core/nbd_proto.h"

/*
 * The server's half of NBD's handshake ("fixed newstyle negotiation"): bytes in, bytes out, no I/O. Whoever has the socket feeds
 * what it receives, sends `out`, and does what the result says.
 */
struct nbd_export {
	uint64_t size_bytes;
	uint16_t flags;           /* enum nbd_transmission_flags; SEND_DF is the handshake's to add */
	uint32_t minimum, preferred; /* block sizes; the maximum is NBD_PAYLOAD_MAX */
	bool has_changed;         /* offers NBD_META_CHANGED */
	bool fast_zeroes;
};

enum nbd_tls_mode { NBD_TLS_OFF, NBD_TLS_ON, NBD_TLS_REQUIRE };
enum nbd_meta { NBD_META_BIT_ALLOCATION = 1 << 0, NBD_META_BIT_CHANGED = 1 << 1 }; /* context ids are 1 + the bit's number */

enum nbd_step {
	NBD_STEP_MORE,  /* wants more bytes */
	NBD_STEP_TLS,   /* send out, then TLS; then go on feeding what comes through it */
	NBD_STEP_ADMIT, /* the client wants into `name`, which exists: nbd_handshake_admit() or nbd_handshake_refuse() */
	NBD_STEP_CLOSE, /* send out, then close */
	NBD_STEP_DROP,  /* close at once */
};

#define NBD_HANDSHAKE_DATA_MAX 8192u /* of one option; longer ones are refused unread */
#define NBD_HANDSHAKE_OPTIONS_MAX 64u

struct nbd_handshake {
	/* The caller's. exports: the export of that name; -ENOENT. */
	int (*exports)(void *ctx, const char *name, struct nbd_export *ret);
	void *ctx;
	enum nbd_tls_mode tls;

	struct buf out;
	uint32_t option, length;   /* the option that is being read */
	uint32_t skip;             /* bytes of one that is too long */
	unsigned options;          /* so far */
	bool greeted, in_option, no_zeroes, tls_done;
	bool structured;
	char name[NBD_STRING_MAX + 1];      /* NBD_STEP_ADMIT */
	char meta_name[NBD_STRING_MAX + 1]; /* the export that meta is for */
	bool meta_set;
	unsigned meta;             /* enum nbd_meta: what the client chose, for meta_name */
	unsigned infos;            /* what the client asked for with GO */
};

void nbd_handshake_init(struct nbd_handshake *h); /* after the caller's fields: writes the greeting */
void nbd_handshake_done(struct nbd_handshake *h);
/* Takes at most one message off data: *ret_used bytes. NBD_STEP_MORE with nothing used: data holds none as a whole. */
enum nbd_step nbd_handshake_feed(struct nbd_handshake *h, const uint8_t *data, size_t len, size_t *ret_used);
/* TLS stands: what was negotiated before it is void. */
void nbd_handshake_secured(struct nbd_handshake *h);
/* Answers NBD_STEP_ADMIT; then transmission begins. Returns the contexts that BLOCK_STATUS may ask for (enum nbd_meta). */
unsigned nbd_handshake_admit(struct nbd_handshake *h, const struct nbd_export *x);
enum nbd_step nbd_handshake_refuse(struct nbd_handshake *h, uint32_t rep_error, const char *text);

#endif
