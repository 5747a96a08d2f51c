/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blocking, on a unix socket whose other end is a process of ours; it is believed no more than the protocol needs: lengths and cookies
 * are checked. Replies to reads come in any order and in pieces, told apart by their cookies.
 */
#include "svc/sc/view_reader.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/core/nbd_proto.h"
#include "os/file.h"

#define SILENT_S 120 /* a server that says nothing for so long is gone: the disk below it may be slow */
#define EXTENTS_MAX 256u
#define STATUS_MAX (1u << 30)
#define REPLY_MAX 65536u

struct status { /* the extents of one context */
	uint32_t id;
	bool known;
	struct {
		uint32_t len, flags;
	} items[EXTENTS_MAX];
	unsigned count;
};

struct view_reader {
	int fd;
	uint64_t size_bytes, cookie;
	struct status allocation, changes;
	struct view_read *reads; /* sent, not done */
	uint64_t status_cookie;  /* 0: none is asked */
	int status_err;
	char name[256]; /* for messages */
};

static int lost(struct view_reader *r, int err, struct error *e)
{
	if (e && !error_is_set(e))
		error_set(e, "ViewLost", "the frozen view %s is gone: %s", r->name, err == -EPROTO ? "its server speaks another language" :
			  err ? strerror(-err) : "its server has ended");
	return -ENOENT;
}

/* ---- bytes ---- */

static int read_all(struct view_reader *r, void *data, size_t len)
{
	for (char *at = data; len;) {
		ssize_t n = recv(r->fd, at, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? (errno == EAGAIN ? -ETIMEDOUT : -errno) : -ECONNRESET;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_all(struct view_reader *r, const void *data, size_t len)
{
	for (const char *at = data; len;) {
		ssize_t n = send(r->fd, at, len, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? (errno == EAGAIN ? -ETIMEDOUT : -errno) : -ECONNRESET;
		at += n;
		len -= (size_t)n;
	}
	return 0;
}

static int skip(struct view_reader *r, uint64_t len)
{
	char over[4096];
	int err = 0;

	while (!err && len) {
		size_t part = (size_t)MIN_OF(len, (uint64_t)sizeof(over));
		err = read_all(r, over, part);
		len -= part;
	}
	return err;
}

/* ---- the handshake ---- */

static int send_option(struct view_reader *r, uint32_t option, const void *data, size_t len)
{
	uint8_t header[NBD_OPTION_BYTES];

	nbd_option_encode(option, (uint32_t)len, header);
	int err = write_all(r, header, sizeof(header));
	return err || !len ? err : write_all(r, data, len);
}

/* One reply, its data cut to max. */
static int read_option(struct view_reader *r, uint32_t option, struct nbd_option_reply *ret, uint8_t *data, size_t max)
{
	uint8_t header[NBD_OPTION_REPLY_BYTES];
	int err = read_all(r, header, sizeof(header));

	if (!err)
		err = nbd_option_reply_decode(header, ret);
	if (!err && (ret->option != option || ret->length > REPLY_MAX))
		err = -EPROTO;
	if (err)
		return err;
	size_t take = MIN_OF((size_t)ret->length, max);
	memset(data, 0, max);
	err = read_all(r, data, take);
	return err ? err : skip(r, ret->length - take);
}

static int greet(struct view_reader *r)
{
	uint8_t greeting[18], flags[4], data[64];
	struct nbd_option_reply reply;
	int err = read_all(r, greeting, sizeof(greeting));

	if (!err && (nbd_get64(greeting) != NBD_MAGIC_INIT || nbd_get64(greeting + 8) != NBD_MAGIC_OPTION))
		err = -EPROTO;
	nbd_put32(flags, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
	if (!err)
		err = write_all(r, flags, sizeof(flags));
	if (!err)
		err = send_option(r, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
	if (!err)
		err = read_option(r, NBD_OPT_STRUCTURED_REPLY, &reply, data, sizeof(data));
	return err || reply.type == NBD_REP_ACK ? err : -EPROTO;
}

static size_t put_text(uint8_t *out, const char *text)
{
	size_t len = strlen(text);

	nbd_put32(out, (uint32_t)len);
	memcpy(out + 4, text, len);
	return 4 + len;
}

static int choose_contexts(struct view_reader *r, const char *export_name)
{
	uint8_t data[512], reply[128];
	struct nbd_option_reply o;
	size_t len = put_text(data, export_name);

	nbd_put32(data + len, 2);
	len += 4;
	len += put_text(data + len, NBD_META_ALLOCATION);
	len += put_text(data + len, NBD_META_CHANGED);
	int err = send_option(r, NBD_OPT_SET_META_CONTEXT, data, len);
	while (!err) {
		err = read_option(r, NBD_OPT_SET_META_CONTEXT, &o, reply, sizeof(reply));
		if (err || o.type == NBD_REP_ACK)
			return err;
		if (o.type & NBD_REP_IS_ERROR)
			return -ENOENT;
		if (o.type != NBD_REP_META_CONTEXT || o.length < 4 || o.length > sizeof(reply))
			return -EPROTO;
		struct nbd_text name = { (const char *)reply + 4, o.length - 4 };
		struct status *s = nbd_text_is(name, NBD_META_CHANGED) ? &r->changes : &r->allocation;
		s->known = true;
		s->id = nbd_get32(reply);
	}
	return err;
}

static int go(struct view_reader *r, const char *export_name)
{
	uint8_t data[512], reply[128];
	struct nbd_option_reply o;
	size_t len = put_text(data, export_name);

	nbd_put16(data + len, 0);
	int err = send_option(r, NBD_OPT_GO, data, len + 2);
	while (!err) {
		err = read_option(r, NBD_OPT_GO, &o, reply, sizeof(reply));
		if (err || o.type == NBD_REP_ACK)
			return err ? err : r->size_bytes ? 0 : -EPROTO;
		if (o.type & NBD_REP_IS_ERROR)
			return -ENOENT;
		if (o.type == NBD_REP_INFO && o.length == 12 && nbd_get16(reply) == NBD_INFO_EXPORT)
			r->size_bytes = nbd_get64(reply + 2);
	}
	return err;
}

static int connect_to(struct view_reader *r, const char *socket_path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	struct timeval silent = { .tv_sec = SILENT_S };

	if (strlen(socket_path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, socket_path);
	r->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (r->fd < 0)
		return -errno;
	setsockopt(r->fd, SOL_SOCKET, SO_RCVTIMEO, &silent, sizeof(silent));
	setsockopt(r->fd, SOL_SOCKET, SO_SNDTIMEO, &silent, sizeof(silent));
	return connect(r->fd, (struct sockaddr *)&addr, sizeof(addr)) ? -errno : 0;
}

int view_reader_open(const char *socket_path, const char *export_name, struct view_reader **ret, struct error *e)
{
	struct view_reader *r = calloc(1, sizeof(*r));

	if (!r)
		abort();
	r->fd = -1;
	snprintf(r->name, sizeof(r->name), "%s at %s", export_name, socket_path);
	int err = strlen(export_name) < 256 ? connect_to(r, socket_path) : -ENAMETOOLONG;
	if (!err)
		err = greet(r);
	if (!err)
		err = choose_contexts(r, export_name);
	if (!err)
		err = go(r, export_name);
	if (err) {
		err = lost(r, err, e);
		view_reader_close(r);
		return err;
	}
	*ret = r;
	return 0;
}

void view_reader_close(struct view_reader *r)
{
	if (!r)
		return;
	fd_closep(&r->fd);
	free(r);
}

uint64_t view_reader_size(const struct view_reader *r)
{
	return r->size_bytes;
}

bool view_reader_tells_changes(const struct view_reader *r)
{
	return r->changes.known;
}

void view_reader_cancel(struct view_reader *r)
{
	shutdown(r->fd, SHUT_RDWR);
}

/* ---- replies ---- */

static struct view_read *find_read(struct view_reader *r, uint64_t cookie)
{
	struct view_read *x = r->reads;

	while (x && x->cookie != cookie)
		x = x->next;
	return x;
}

static void read_done(struct view_reader *r, struct view_read *x)
{
	struct view_read **at = &r->reads;

	while (*at != x)
		at = &(*at)->next;
	*at = x->next;
	x->done = true;
}

static int take_data(struct view_reader *r, struct view_read *x, const struct nbd_reply *c)
{
	uint8_t head[12];
	size_t head_len = c->type == NBD_CHUNK_HOLE ? 12 : 8;
	int err = c->length < head_len ? -EPROTO : read_all(r, head, head_len);

	if (err)
		return err;
	uint64_t off = nbd_get64(head), len = c->type == NBD_CHUNK_HOLE ? nbd_get32(head + 8) : c->length - 8;
	if (off < x->off_bytes || off - x->off_bytes > x->len_bytes || len > x->len_bytes - (off - x->off_bytes))
		return -EPROTO;
	char *to = (char *)x->data + (off - x->off_bytes);
	if (c->type == NBD_CHUNK_DATA)
		return read_all(r, to, len);
	memset(to, 0, len);
	return 0;
}

static int take_status(struct view_reader *r, const struct nbd_reply *c)
{
	uint8_t item[8];
	int err = c->length < 12 || (c->length - 4) % 8 ? -EPROTO : read_all(r, item, 4);

	if (err)
		return err;
	uint32_t id = nbd_get32(item), left = (c->length - 4) / 8;
	struct status *s = r->allocation.known && id == r->allocation.id ? &r->allocation :
			   r->changes.known && id == r->changes.id       ? &r->changes :
									   NULL;
	if (!s)
		return -EPROTO;
	for (s->count = 0; !err && left; left--) {
		err = read_all(r, item, 8);
		if (err || s->count == EXTENTS_MAX)
			continue;
		s->items[s->count].len = nbd_get32(item);
		s->items[s->count++].flags = nbd_get32(item + 4);
	}
	return err;
}

static int take_error(struct view_reader *r, const struct nbd_reply *c, int *ret)
{
	uint8_t head[6];
	int err = c->length < sizeof(head) ? -EPROTO : read_all(r, head, sizeof(head));

	if (!err)
		err = skip(r, c->length - sizeof(head));
	*ret = nbd_errno_decode(nbd_get32(head));
	return err;
}

/* One message of the server, whatever it is about. */
static int take_reply(struct view_reader *r)
{
	uint8_t header[NBD_CHUNK_BYTES];
	struct nbd_reply c;
	int err = read_all(r, header, sizeof(header)), failed = 0;

	if (err)
		return err;
	if (nbd_reply_decode(header, sizeof(header), &c) != (int)NBD_CHUNK_BYTES || !c.structured || c.length > NBD_PAYLOAD_MAX + 64)
		return -EPROTO;
	struct view_read *x = find_read(r, c.cookie);
	bool status = !x && r->status_cookie && c.cookie == r->status_cookie;
	if (!x && !status)
		return -EPROTO;
	if (c.type & NBD_CHUNK_IS_ERROR)
		err = take_error(r, &c, &failed);
	else if (x && (c.type == NBD_CHUNK_DATA || c.type == NBD_CHUNK_HOLE))
		err = take_data(r, x, &c);
	else if (status && c.type == NBD_CHUNK_BLOCK_STATUS)
		err = take_status(r, &c);
	else
		err = c.type == NBD_CHUNK_NONE ? skip(r, c.length) : -EPROTO;
	if (failed && x)
		x->err = -EIO;
	if (failed && status)
		r->status_err = -EIO;
	if (!err && (c.flags & NBD_CHUNK_DONE)) {
		if (x)
			read_done(r, x);
		else
			r->status_cookie = 0;
	}
	return err;
}

/* ---- asking ---- */

static int send_request(struct view_reader *r, uint16_t command, uint64_t cookie, uint64_t off, uint32_t len)
{
	struct nbd_request rq = { .command = command, .cookie = cookie, .offset = off, .length = len };
	uint8_t wire[NBD_REQUEST_BYTES];

	nbd_request_encode(&rq, wire);
	return write_all(r, wire, sizeof(wire));
}

int view_reader_send(struct view_reader *r, struct view_read *x, struct error *e)
{
	x->cookie = ++r->cookie;
	x->sent = true;
	x->done = false;
	x->err = 0;
	x->next = r->reads;
	r->reads = x;
	int err = send_request(r, NBD_CMD_READ, x->cookie, x->off_bytes, x->len_bytes);
	return err ? lost(r, err, e) : 0;
}

int view_reader_wait(struct view_reader *r, struct view_read *x, struct error *e)
{
	while (!x->done) {
		int err = take_reply(r);
		if (err)
			return lost(r, err, e);
	}
	x->sent = false;
	if (!x->err)
		return 0;
	error_set(e, "ViewFailed", "the frozen view %s cannot be read at %llu: more may have been overwritten than there was room to keep", r->name,
		  (unsigned long long)x->off_bytes);
	return -EIO;
}

/* The two contexts' extents side by side. */
static unsigned merge(const struct view_reader *r, uint64_t len, struct view_extent *out, unsigned max)
{
	unsigned a = 0, c = 0, n = 0;
	uint64_t a_left = r->allocation.count ? r->allocation.items[0].len : len, c_left = r->changes.count ? r->changes.items[0].len : len;

	while (n < max && len && a_left && c_left) {
		uint64_t step = MIN_OF(MIN_OF(a_left, c_left), len);
		out[n++] = (struct view_extent){
			.len_bytes = step,
			.zero = r->allocation.count && (r->allocation.items[a].flags & NBD_STATE_ZERO),
			.changed = !r->changes.count || (r->changes.items[c].flags & NBD_STATE_CHANGED),
		};
		len -= step;
		a_left -= step;
		c_left -= step;
		if (!a_left && r->allocation.count && ++a < r->allocation.count)
			a_left = r->allocation.items[a].len;
		if (!c_left && r->changes.count && ++c < r->changes.count)
			c_left = r->changes.items[c].len;
	}
	return n;
}

int view_reader_extents(struct view_reader *r, uint64_t off, uint64_t len, struct view_extent *out, unsigned max, struct error *e)
{
	len = MIN_OF(len, (uint64_t)STATUS_MAX);
	r->allocation.count = r->changes.count = 0;
	r->status_err = 0;
	if (!r->allocation.known && !r->changes.known) {
		out[0] = (struct view_extent){ .len_bytes = len, .changed = true };
		return 1;
	}
	r->status_cookie = ++r->cookie;
	int err = send_request(r, NBD_CMD_BLOCK_STATUS, r->status_cookie, off, (uint32_t)len);
	while (!err && r->status_cookie)
		err = take_reply(r);
	if (err)
		return lost(r, err, e);
	if (r->status_err) {
		error_set(e, "ViewFailed", "the frozen view %s does not say what changed at %llu", r->name, (unsigned long long)off);
		return -EIO;
	}
	unsigned n = merge(r, len, out, max);
	return n ? (int)n : lost(r, -EPROTO, e);
}
