/* SPDX-License-Identifier: Apache-2.0 */
/* An NBD server's export as a back end: options, opening, closing, and which link a request takes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/text.h"
#include "block/back/back.h"
#include "block/back/nbd_priv.h"
#include "os/file.h"

#define ROLES "clc|cc|nc|sc|walrus|operator"

static const struct blk_option options[] = {
	{ .name = "socket", .type = BLK_OPT_TEXT, .doc = "the server's unix socket" },
	{ .name = "host", .type = BLK_OPT_TEXT, .doc = "the server's name or address" },
	{ .name = "port", .type = BLK_OPT_TEXT, .fallback = "10809", .doc = "its TCP port" },
	{ .name = "export", .type = BLK_OPT_TEXT, .fallback = "", .doc = "the export's name; empty: the server's default" },
	{ .name = "connections", .type = BLK_OPT_UINT, .fallback = "1", .min = 1, .max = NBD_LINKS_MAX,
	  .doc = "over how many connections; one where the server does not allow more" },
	{ .name = "tls", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "insist on TLS" },
	{ .name = "tls-dir", .type = BLK_OPT_TEXT, .doc = "folder with ca.crt and the role's certificate and key" },
	{ .name = "tls-role", .type = BLK_OPT_CHOICE, .fallback = "nc", .choices = ROLES, .doc = "whose certificate to show" },
	{ .name = "tls-peer", .type = BLK_OPT_CHOICE, .fallback = "any", .choices = "any|" ROLES, .doc = "the role that the server's certificate must have" },
	{ .name = "tls-peer-id", .type = BLK_OPT_TEXT, .doc = "the identity that it must have" },
	{ .name = "connect-ms", .type = BLK_OPT_MS, .fallback = "10000", .min = 10, .doc = "how long connecting and the handshake may take" },
	{ .name = "timeout-ms", .type = BLK_OPT_MS, .fallback = "60000", .doc = "a server that is silent for so long with requests before it is gone; 0: never" },
	{ .name = "reconnect-ms", .type = BLK_OPT_MS, .fallback = "500", .min = 10, .doc = "the pause between attempts to connect again" },
	{ .name = "reconnect", .type = BLK_OPT_UINT, .doc = "seconds for which requests wait for a lost server before they fail; unset: for ever" },
	{ 0 },
};

static void client_free(struct nbd_client *c)
{
	nbd_connector_stop(c);
	for (unsigned i = 0; i < c->link_count; i++)
		nbd_link_free(c->links[i]);
	if (c->status_up)
		nbd_dial_close(&c->status);
	if (c->zeroes)
		munmap(c->zeroes, NBD_ZERO_BYTES);
	fd_closep(&c->cancel_fd);
	tls_context_free(c->tls);
	pthread_cond_destroy(&c->wanted);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->status_lock);
	free(c->path);
	free(c->host);
	free(c->port);
	free(c->export_name);
	free(c->tls_peer_id);
	free(c);
}

static char *copy_text(const char *text)
{
	char *copy = text ? strdup(text) : NULL;

	if (text && !copy)
		abort();
	return copy;
}

static int take_options(struct nbd_client *c, const struct blk_values *v, struct error *e)
{
	if (blk_values_has(v, "socket") == blk_values_has(v, "host"))
		return error_set(e, "InvalidOption", "nbd needs either socket or host");
	c->path = copy_text(blk_values_text(v, "socket"));
	c->host = copy_text(blk_values_text(v, "host"));
	c->port = copy_text(blk_values_text(v, "port"));
	c->export_name = copy_text(blk_values_text(v, "export"));
	c->connect_ms = blk_values_number(v, "connect-ms");
	c->timeout_ms = blk_values_number(v, "timeout-ms");
	c->retry_ms = blk_values_number(v, "reconnect-ms");
	c->gives_up = blk_values_has(v, "reconnect");
	c->give_up_ms = blk_values_number(v, "reconnect") * 1000;
	if (!blk_values_bool(v, "tls"))
		return 0;
	if (!blk_values_has(v, "tls-dir"))
		return error_set(e, "InvalidOption", "tls=on needs tls-dir");
	c->tls_peer = tls_role_parse(blk_values_text(v, "tls-peer"));
	c->tls_peer_id = copy_text(blk_values_text(v, "tls-peer-id"));
	return tls_context_load(blk_values_text(v, "tls-dir"), tls_role_parse(blk_values_text(v, "tls-role")), &c->tls, e);
}

/* ---- connecting for the first time ---- */

static const char *where(const struct nbd_client *c)
{
	return c->path ? c->path : c->host;
}

static int first_links(struct nbd_client *c, unsigned wanted, struct error *e)
{
	struct nbd_remote remote;

	for (unsigned i = 0; i < wanted; i++) {
		int err = nbd_link_new(c, &c->links[i]);
		if (err)
			return error_errno(e, err, "a connection to %s", where(c));
		c->link_count++;
		err = nbd_dial_open(c, false, &c->links[i]->fresh, &remote, e);
		if (err)
			return error_is_set(e) ? err : error_errno(e, err, "connecting to the NBD server at %s", where(c));
		if (!i) {
			c->remote = remote;
			wanted = remote.flags & NBD_CAN_MULTI_CONN ? wanted : 1;
		}
	}
	return 0;
}

static void first_status(struct nbd_client *c)
{
	struct nbd_remote remote;

	c->status.fd = -1;
	if (!c->remote.structured || !(c->remote.flags & NBD_CAN_MULTI_CONN) || nbd_dial_open(c, true, &c->status, &remote, NULL))
		return;
	c->status_up = remote.has_status;
	c->status_id = remote.status_id;
	if (!c->status_up)
		nbd_dial_close(&c->status);
}

static void describe(struct nbd_client *c, struct blk_info *info)
{
	const struct nbd_remote *x = &c->remote;
	uint32_t block = nbd_block_bytes(x);

	c->block_bytes = block;
	*info = (struct blk_info){
		.size_bytes = x->size_bytes / block * block,
		.block_bytes = block,
		.physical_bytes = MIN_OF(MAX_OF(x->preferred, block), 65536u),
		.discard_bytes = x->flags & NBD_SEND_TRIM ? MAX_OF(block, MIN_OF(x->preferred, 65536u)) : 0,
		.read_only = x->flags & NBD_READ_ONLY,
		.volatile_cache = x->flags & NBD_SEND_FLUSH,
		.rotational = x->flags & NBD_ROTATIONAL,
		.fast_zeroes = x->flags & NBD_SEND_WRITE_ZEROES,
	};
}

static void init_locks(struct nbd_client *c)
{
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->wanted, &attr);
	pthread_condattr_destroy(&attr);
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->status_lock, NULL);
}

static int nbd_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	struct nbd_client *c = calloc(1, sizeof(*c));

	if (!c)
		return error_errno(e, ENOMEM, "an NBD client");
	init_locks(c);
	c->status.fd = -1;
	c->queue_count = blk_stack_queues(l->stack);
	c->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	c->zeroes = mmap(NULL, NBD_ZERO_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (c->zeroes == MAP_FAILED)
		c->zeroes = NULL;
	int err = c->cancel_fd < 0 || !c->zeroes ? error_errno(e, ENOMEM, "an NBD client") : take_options(c, v, e);
	if (!err)
		err = first_links(c, (unsigned)blk_values_number(v, "connections"), e);
	if (!err) {
		first_status(c);
		describe(c, &l->info);
		err = nbd_connector_start(c, e);
	}
	if (err) {
		client_free(c);
		return err;
	}
	l->needs = c->path ? BLK_NEEDS_UNIX : BLK_NEEDS_INTERNET | BLK_NEEDS_FILES;
	l->state = c;
	return 0;
}

/* ---- queues: link i belongs to queue i modulo their number ---- */

static int nbd_queue_start(struct blk_layer *l, struct blk_queue *q, struct error *e)
{
	struct nbd_client *c = l->state;

	for (unsigned i = blk_queue_index(q); i < c->link_count; i += c->queue_count) {
		if (nbd_link_begin(c->links[i], q))
			return error_errno(e, EIO, "a connection to %s", where(c));
	}
	return 0;
}

static void nbd_queue_stop(struct blk_layer *l, struct blk_queue *q)
{
	struct nbd_client *c = l->state;

	for (unsigned i = blk_queue_index(q); i < c->link_count; i += c->queue_count)
		nbd_link_end(c->links[i]);
}

static void nbd_submit(struct blk_layer *l, struct blk_req *r)
{
	struct nbd_client *c = l->state;
	unsigned index = blk_queue_index(r->queue);

	if (index >= c->link_count) {
		nbd_link_submit(c->links[index % c->link_count], r);
		return;
	}
	unsigned own = (c->link_count - index - 1) / c->queue_count + 1;
	unsigned turn = own > 1 ? c->turn[index]++ % own : 0;
	nbd_link_submit(c->links[index + turn * c->queue_count], r);
}

static void nbd_settle(struct blk_layer *l, bool stop, void (*fn)(void *ctx), void *ctx)
{
	nbd_connector_settle(l->state, stop, fn, ctx);
}

static int nbd_extents(struct blk_layer *l, enum blk_extent_map map, uint64_t off_bytes, uint64_t len_bytes, struct blk_extent *out, unsigned max)
{
	return nbd_status_extents(l->state, off_bytes, len_bytes, out, max);
}

static void nbd_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct nbd_counters *n = &((struct nbd_client *)l->state)->counters;

	blk_stats_emit(sink, "nbd_client", "requests", true, n->requests, "Requests sent to the NBD server.");
	blk_stats_emit(sink, "nbd_client", "resent", true, n->resent, "Requests sent again after a connection was lost.");
	blk_stats_emit(sink, "nbd_client", "lost", true, n->lost, "Connections that were lost.");
	blk_stats_emit(sink, "nbd_client", "protocol_errors", true, n->protocol_errors, "Connections given up for what the server sent.");
	blk_stats_emit(sink, "nbd_client", "reconnected", true, n->reconnected, "Connections made again.");
	blk_stats_emit(sink, "nbd_client", "connect_failures", true, n->connect_failures, "Attempts to connect again that failed.");
	blk_stats_emit(sink, "nbd_client", "other_exports", true, n->other_exports,
		       "Of those, that found the export shorter, or with other abilities or block sizes, than it was.");
}

static void nbd_close(struct blk_layer *l)
{
	client_free(l->state);
}

const struct blk_layer_ops blk_nbd_ops = {
	.name = "nbd",
	.doc = "an NBD server's export",
	.is_back = true,
	.options = options,
	.open = nbd_open,
	.queue_start = nbd_queue_start,
	.queue_stop = nbd_queue_stop,
	.submit = nbd_submit,
	.settle = nbd_settle,
	.extents = nbd_extents,
	.stats = nbd_stats,
	.close = nbd_close,
};
