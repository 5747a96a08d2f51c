/* SPDX-License-Identifier: Apache-2.0 */
/*
 *   greeting → client's flags → options … → ADMIT → (transmission)
 *                                  │ STARTTLS → TLS → options, forgetting what was before
 *                                  └ ABORT → CLOSE
 * An option with more than NBD_HANDSHAKE_DATA_MAX bytes of data is read over and refused; one much longer than that, too many of
 * them, unknown client flags and a wrong magic end the connection. EXPORT_NAME cannot be refused by a reply: it ends the
 * connection too ("Option types").
 */
#include "block/front/nbd_handshake.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macros.h"

#define SKIP_MAX 65536u

static void reply(struct nbd_handshake *h, uint32_t type, const void *data, size_t len)
{
	uint8_t header[NBD_OPTION_REPLY_BYTES];

	nbd_option_reply_encode(&(struct nbd_option_reply){ h->option, type, (uint32_t)len }, header);
	buf_append(&h->out, header, sizeof(header));
	if (len)
		buf_append(&h->out, data, len);
}

static enum nbd_step refuse(struct nbd_handshake *h, uint32_t type, const char *text)
{
	reply(h, type, text, strlen(text));
	return NBD_STEP_MORE;
}

void nbd_handshake_init(struct nbd_handshake *h)
{
	uint8_t greeting[18];

	nbd_put64(greeting, NBD_MAGIC_INIT);
	nbd_put64(greeting + 8, NBD_MAGIC_OPTION);
	nbd_put16(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	buf_append(&h->out, greeting, sizeof(greeting));
}

void nbd_handshake_done(struct nbd_handshake *h)
{
	buf_done(&h->out);
}

void nbd_handshake_secured(struct nbd_handshake *h)
{
	h->tls_done = true;
	h->structured = h->meta_set = false;
	h->meta = 0;
}

static void copy_name(char out[static NBD_STRING_MAX + 1], struct nbd_text name)
{
	memcpy(out, name.text, name.len);
	out[name.len] = '\0';
}

/* ---- the way in ---- */

static enum nbd_step do_export_name(struct nbd_handshake *h, const uint8_t *data)
{
	struct nbd_export x;
	struct nbd_text name = { (const char *)data, h->length };

	if (name.len > NBD_STRING_MAX || memchr(data, '\0', name.len))
		return NBD_STEP_DROP;
	copy_name(h->name, name);
	h->infos = 0;
	return h->exports(h->ctx, h->name, &x) ? NBD_STEP_DROP : NBD_STEP_ADMIT;
}

static uint16_t flags_of(const struct nbd_handshake *h, const struct nbd_export *x)
{
	return (uint16_t)(x->flags | NBD_HAS_FLAGS | (h->structured ? NBD_SEND_DF : 0));
}

static void reply_infos(struct nbd_handshake *h, const struct nbd_export *x)
{
	uint8_t info[14];

	nbd_put16(info, NBD_INFO_EXPORT);
	nbd_put64(info + 2, x->size_bytes);
	nbd_put16(info + 10, flags_of(h, x));
	reply(h, NBD_REP_INFO, info, 12);
	if (h->infos & 1u << NBD_INFO_NAME) {
		_cleanup_(buf_done) struct buf name = BUF_INIT;
		nbd_put16(info, NBD_INFO_NAME);
		buf_append(&name, info, 2);
		buf_puts(&name, h->name);
		reply(h, NBD_REP_INFO, name.data, name.len);
	}
	nbd_put16(info, NBD_INFO_BLOCK_SIZE);
	nbd_put32(info + 2, x->minimum);
	nbd_put32(info + 6, x->preferred);
	nbd_put32(info + 10, NBD_PAYLOAD_MAX);
	reply(h, NBD_REP_INFO, info, 14);
	reply(h, NBD_REP_ACK, NULL, 0);
}

static enum nbd_step do_go(struct nbd_handshake *h, const uint8_t *data)
{
	struct nbd_export x;
	struct nbd_text name;

	if (nbd_parse_go(data, h->length, &name, &h->infos))
		return refuse(h, NBD_REP_ERR_INVALID, "malformed");
	copy_name(h->name, name);
	if (h->exports(h->ctx, h->name, &x))
		return refuse(h, NBD_REP_ERR_UNKNOWN, "there is no export of this name");
	if (h->option == NBD_OPT_GO)
		return NBD_STEP_ADMIT;
	reply_infos(h, &x);
	return NBD_STEP_MORE;
}

unsigned nbd_handshake_admit(struct nbd_handshake *h, const struct nbd_export *x)
{
	if (h->option == NBD_OPT_EXPORT_NAME) {
		uint8_t old[10 + 124] = { 0 };
		nbd_put64(old, x->size_bytes);
		nbd_put16(old + 8, flags_of(h, x));
		buf_append(&h->out, old, h->no_zeroes ? 10 : sizeof(old));
	} else {
		reply_infos(h, x);
	}
	return h->meta_set && strcmp(h->meta_name, h->name) == 0 ? h->meta : 0;
}

enum nbd_step nbd_handshake_refuse(struct nbd_handshake *h, uint32_t rep_error, const char *text)
{
	return h->option == NBD_OPT_EXPORT_NAME ? NBD_STEP_DROP : refuse(h, rep_error, text);
}

/* ---- what may be asked on the way ---- */

static enum nbd_step do_list(struct nbd_handshake *h)
{
	static const uint8_t default_export[4] = { 0 }; /* its name is empty */

	if (h->length)
		return refuse(h, NBD_REP_ERR_INVALID, "LIST has no data");
	/* Views come and go, and whoever wants one knows its name. */
	reply(h, NBD_REP_SERVER, default_export, sizeof(default_export));
	reply(h, NBD_REP_ACK, NULL, 0);
	return NBD_STEP_MORE;
}

static enum nbd_step do_starttls(struct nbd_handshake *h)
{
	if (h->tls_done || h->length)
		return refuse(h, NBD_REP_ERR_INVALID, h->length ? "STARTTLS has no data" : "TLS stands already");
	if (h->tls == NBD_TLS_OFF)
		return refuse(h, NBD_REP_ERR_POLICY, "this server has no TLS");
	reply(h, NBD_REP_ACK, NULL, 0);
	return NBD_STEP_TLS;
}

static enum nbd_step do_structured(struct nbd_handshake *h)
{
	if (h->length)
		return refuse(h, NBD_REP_ERR_INVALID, "STRUCTURED_REPLY has no data");
	h->structured = true;
	reply(h, NBD_REP_ACK, NULL, 0);
	return NBD_STEP_MORE;
}

/* ---- "Metadata querying" ---- */

static const struct {
	enum nbd_meta bit;
	const char *name, *wildcard;
} contexts[] = {
	{ NBD_META_BIT_ALLOCATION, NBD_META_ALLOCATION, "base:" },
	{ NBD_META_BIT_CHANGED, NBD_META_CHANGED, "mallee:" },
};

static void reply_contexts(struct nbd_handshake *h, unsigned meta, bool ids)
{
	for (size_t i = 0; i < ARRAY_SIZE(contexts); i++) {
		uint8_t data[64];
		size_t len = strlen(contexts[i].name);
		if (!(meta & contexts[i].bit))
			continue;
		nbd_put32(data, ids ? (uint32_t)i + 1 : 0);
		memcpy(data + 4, contexts[i].name, len);
		reply(h, NBD_REP_META_CONTEXT, data, 4 + len);
	}
	reply(h, NBD_REP_ACK, NULL, 0);
}

static enum nbd_step do_meta(struct nbd_handshake *h, const uint8_t *data)
{
	bool set = h->option == NBD_OPT_SET_META_CONTEXT;
	struct nbd_meta_queries q;
	struct nbd_text text;
	struct nbd_export x;
	unsigned found = 0;

	if (set) { /* replaces what was set, also when it fails */
		h->meta_set = false;
		h->meta = 0;
	}
	if (!h->structured)
		return refuse(h, NBD_REP_ERR_INVALID, "ask for structured replies first");
	if (nbd_parse_meta(data, h->length, &q))
		return refuse(h, NBD_REP_ERR_INVALID, "malformed");
	char *name = set ? h->meta_name : h->name;
	copy_name(name, q.name);
	if (h->exports(h->ctx, name, &x))
		return refuse(h, NBD_REP_ERR_UNKNOWN, "there is no export of this name");
	if (q.count == 0 && !set)
		found = ~0u;
	while (nbd_next_query(&q, &text)) {
		for (size_t i = 0; i < ARRAY_SIZE(contexts); i++) {
			if (nbd_text_is(text, contexts[i].name) || (!set && nbd_text_is(text, contexts[i].wildcard)))
				found |= contexts[i].bit;
		}
	}
	found &= NBD_META_BIT_ALLOCATION | (x.has_changed ? NBD_META_BIT_CHANGED : 0);
	if (set) {
		h->meta_set = true;
		h->meta = found;
	}
	reply_contexts(h, found, set);
	return NBD_STEP_MORE;
}

/* ---- messages ---- */

static enum nbd_step do_option(struct nbd_handshake *h, const uint8_t *data)
{
	/* FORCEDTLS: nothing but STARTTLS and ABORT in the clear. */
	if (h->tls == NBD_TLS_REQUIRE && !h->tls_done && h->option != NBD_OPT_STARTTLS && h->option != NBD_OPT_ABORT)
		return h->option == NBD_OPT_EXPORT_NAME ? NBD_STEP_DROP : refuse(h, NBD_REP_ERR_TLS_REQD, "this server wants TLS first");
	switch (h->option) {
	case NBD_OPT_EXPORT_NAME:
		return do_export_name(h, data);
	case NBD_OPT_ABORT:
		reply(h, NBD_REP_ACK, NULL, 0);
		return NBD_STEP_CLOSE;
	case NBD_OPT_LIST:
		return do_list(h);
	case NBD_OPT_STARTTLS:
		return do_starttls(h);
	case NBD_OPT_INFO:
	case NBD_OPT_GO:
		return do_go(h, data);
	case NBD_OPT_STRUCTURED_REPLY:
		return do_structured(h);
	case NBD_OPT_LIST_META_CONTEXT:
	case NBD_OPT_SET_META_CONTEXT:
		return do_meta(h, data);
	default:
		return refuse(h, NBD_REP_ERR_UNSUP, "this server does not know that option");
	}
}

static enum nbd_step feed_flags(struct nbd_handshake *h, const uint8_t *data)
{
	uint32_t flags = nbd_get32(data);

	/* Fixed newstyle only; "Client flags": others than ours end the connection. */
	if (!(flags & NBD_FLAG_FIXED_NEWSTYLE) || flags & ~(uint32_t)(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES))
		return NBD_STEP_DROP;
	h->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
	h->greeted = true;
	return NBD_STEP_MORE;
}

static enum nbd_step feed_header(struct nbd_handshake *h, const uint8_t *data)
{
	if (nbd_option_decode(data, &h->option, &h->length) || ++h->options > NBD_HANDSHAKE_OPTIONS_MAX || h->length > SKIP_MAX)
		return NBD_STEP_DROP;
	h->in_option = true;
	h->skip = h->length > NBD_HANDSHAKE_DATA_MAX ? h->length : 0;
	return NBD_STEP_MORE;
}

static enum nbd_step feed_data(struct nbd_handshake *h, const uint8_t *data, size_t len, size_t *ret_used)
{
	if (h->skip) {
		*ret_used = MIN_OF((size_t)h->skip, len);
		h->skip -= (uint32_t)*ret_used;
		if (h->skip)
			return NBD_STEP_MORE;
		h->in_option = false;
		return nbd_handshake_refuse(h, NBD_REP_ERR_TOO_BIG, "too long");
	}
	if (len < h->length)
		return NBD_STEP_MORE;
	*ret_used = h->length;
	h->in_option = false;
	return do_option(h, data);
}

enum nbd_step nbd_handshake_feed(struct nbd_handshake *h, const uint8_t *data, size_t len, size_t *ret_used)
{
	enum nbd_step (*feed)(struct nbd_handshake *h, const uint8_t *data) = h->greeted ? feed_header : feed_flags;
	size_t need = h->greeted ? NBD_OPTION_BYTES : 4;

	*ret_used = 0;
	if (h->in_option)
		return feed_data(h, data, len, ret_used);
	if (len < need)
		return NBD_STEP_MORE;
	*ret_used = need;
	enum nbd_step step = feed(h, data);
	/* An option without data is whole with its header. */
	return step == NBD_STEP_MORE && h->in_option && !h->length ? feed_data(h, data, 0, &(size_t){ 0 }) : step;
}
