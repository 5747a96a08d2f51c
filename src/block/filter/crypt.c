/* SPDX-License-Identifier: Apache-2.0 */
/*
 * crypt: what lies below is encrypted, sector by sector (xts_priv.h). It stands below everything that reads or keeps the volume's
 * data, directly above the disk.
 *
 * WRITE: the guest's data is encrypted into pages of the queue's own, and those are written: the guest's memory is never altered, and
 *   what it holds never reaches the disk. A guest that changes it meanwhile gets a mixture, as on any disk. WRITE_ZEROES is a write of
 *   encrypted zeroes, so that they are read back.
 * READ: into the guest's memory, decrypted there once it has come: without a copy. Meanwhile the guest may see what the disk holds, of
 *   a volume that is its own, and may change it: then it has what its bytes decrypt to. It learns nothing that a cipher made for chosen
 *   texts does not hide, and nobody else uses that memory. Of a read that fails the memory holds anything, as without this filter.
 * FLUSH and DISCARD are handed on. What was discarded reads as rubbish until it is written; which parts of the disk hold nothing can
 *   be seen on it. So does what was never written, and what is new after a resize: cow, above, says what such places hold.
 *
 * A request is done in pieces, each an I/O of its own, so that a long one is encrypted while its beginning is written already. Who
 * waits for pages or for a piece waits in a list; those that have more to do take turns (a WRITE_ZEROES that has its share out is in none). Readers and writers have lists, and pieces, of
 * their own. A request's scratch: [0] bytes that are under way or done, [1] pieces out, [2] the first error, [3] it is in its list.
 *
 * There is no mark of the right key: with another one everything reads as rubbish. Nothing says which sectors belong together, either:
 * XTS hides what is written, and does not notice when somebody puts back a sector's older content.
 */
#include "block/filter/filter.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/macros.h"
#include "block/core/stack.h"
#include "block/filter/xts_priv.h"
#include "os/locked.h"

#define PAGE 4096u
#define PAGES 1024u                 /* of a queue: 4 MiB of writes under way */
#define PIECE_PAGES 64u
#define PIECE_BYTES (PIECE_PAGES * PAGE)
#define ZEROES_PIECES 8u            /* of one WRITE_ZEROES at once: leaves half of the pages to others */
#define KEPT_PAGES 64u              /* stay resident in an idle queue */
#define IDLE_NS UINT64_C(1000000000)

struct crypt {
	struct xts *xts;
	struct crypt_queue *queue[BLK_QUEUES_MAX];
};

struct crypt_queue {
	struct crypt *crypt;
	struct blk_layer *layer;
	struct blk_queue *queue;
	unsigned lane;
	struct blk_pool *reads, *writes;  /* pieces */
	struct blk_list reading, writing; /* have pieces to begin */
	char *pages;
	uint16_t free[PAGES];             /* a stack of them */
	unsigned free_count, touched;     /* touched: pages from the first on that may be resident */
	struct blk_timer idle;
	bool used;                        /* since the timer was set */
	_Atomic uint64_t encrypted_bytes, decrypted_bytes;
};

/* Beside a write's request: its pages. */
struct piece {
	uint16_t page[PIECE_PAGES];
	unsigned pages;
};

static _Alignas(64) const char zeroes[PAGE];

/* ---- pages ---- */

static void idle_due(struct blk_timer *t)
{
	struct crypt_queue *q = (struct crypt_queue *)((char *)t - offsetof(struct crypt_queue, idle));

	if (q->free_count == PAGES && !q->used) {
		madvise(q->pages + (size_t)KEPT_PAGES * PAGE, (size_t)(PAGES - KEPT_PAGES) * PAGE, MADV_DONTNEED);
		q->touched = KEPT_PAGES;
		return;
	}
	q->used = false;
	blk_timer_set(q->queue, t, blk_queue_now(q->queue) + IDLE_NS);
}

static void pages_take(struct crypt_queue *q, struct blk_req *io, struct piece *p, uint64_t bytes)
{
	struct iovec *iov = blk_pool_iov(io);

	p->pages = (unsigned)((bytes + PAGE - 1) / PAGE);
	for (unsigned i = 0; i < p->pages; i++) {
		p->page[i] = q->free[--q->free_count];
		q->touched = MAX_OF(q->touched, p->page[i] + 1u);
		iov[i] = (struct iovec){ q->pages + (size_t)p->page[i] * PAGE, MIN_OF(PAGE, bytes - (uint64_t)i * PAGE) };
	}
	io->iov = iov;
	io->iov_count = p->pages;
	q->used = true;
	if (q->touched > KEPT_PAGES && !q->idle.link)
		blk_timer_set(q->queue, &q->idle, blk_queue_now(q->queue) + IDLE_NS);
}

static void pages_put(struct crypt_queue *q, struct piece *p)
{
	while (p->pages)
		q->free[q->free_count++] = p->page[--p->pages];
}

/* ---- pieces ---- */

static void admit_reads(struct crypt_queue *q);
static void admit_writes(struct crypt_queue *q);

static void end_if_done(struct blk_req *r)
{
	if (!r->scratch[1] && !r->scratch[3])
		blk_complete(r, -(int)r->scratch[2]);
}

static bool has_more(const struct blk_req *r)
{
	return r->scratch[0] < r->len_bytes && !r->scratch[2];
}

static void piece_ended(struct blk_list *list, struct blk_req *r, int result)
{
	if (result && !r->scratch[2])
		r->scratch[2] = (uint64_t)-result;
	r->scratch[1]--;
	if (has_more(r) && !r->scratch[3]) {
		r->scratch[3] = true;
		blk_list_push(list, r);
	}
	end_if_done(r);
}

static struct crypt_queue *queue_of(const struct blk_req *r, const struct blk_layer *l)
{
	return l->queue_state[blk_queue_index(r->queue)];
}

static struct blk_req *piece_new(struct crypt_queue *q, struct blk_pool *pool, struct blk_req *r, enum blk_op op, uint64_t *ret_len)
{
	uint64_t len = MIN_OF(r->len_bytes - r->scratch[0], PIECE_BYTES);
	struct blk_req *io = blk_pool_get(pool);

	if (!io)
		return NULL;
	io->op = op;
	io->flags = r->flags & (BLK_FUA | BLK_BACKGROUND);
	io->off_bytes = r->off_bytes + r->scratch[0];
	io->len_bytes = *ret_len = len;
	io->ctx = r;
	io->scratch[0] = 0;
	r->scratch[1]++;
	return io;
}

struct reading {
	struct crypt_queue *q;
	uint64_t at; /* of the parent's bytes */
};

static void read_done(struct blk_req *io)
{
	struct reading *rd = blk_pool_extra(io);
	struct crypt_queue *q = rd->q;
	struct blk_req *r = io->ctx;
	int result = io->result;

	if (!result) {
		result = xts_decrypt_iov(q->crypt->xts, q->lane, io->off_bytes, r->iov, r->iov_count, rd->at, io->len_bytes);
		blk_count(&q->decrypted_bytes, io->len_bytes);
	}
	blk_pool_put(q->reads, io);
	piece_ended(&q->reading, r, result);
	admit_reads(q);
}

static bool read_piece(struct crypt_queue *q, struct blk_req *r)
{
	uint64_t len;
	struct blk_req *io = piece_new(q, q->reads, r, BLK_READ, &len);

	if (!io)
		return false;
	*(struct reading *)blk_pool_extra(io) = (struct reading){ q, r->scratch[0] };
	io->iov = r->iov;
	io->iov_count = r->iov_count;
	if (len < r->len_bytes) {
		io->iov = blk_pool_iov(io);
		io->iov_count = blk_iov_slice(r->iov, r->iov_count, r->scratch[0], len, blk_pool_iov(io), BLK_IOV_MAX);
	}
	io->done = read_done;
	r->scratch[0] += len;
	blk_submit(q->layer->below, io);
	return true;
}

struct writing {
	struct crypt_queue *q;
	struct piece piece;
};

static void write_done(struct blk_req *io)
{
	struct writing *wr = blk_pool_extra(io);
	struct crypt_queue *q = wr->q;
	struct blk_req *r = io->ctx;
	int result = io->result;

	pages_put(q, &wr->piece);
	blk_pool_put(q->writes, io);
	piece_ended(&q->writing, r, result);
	admit_writes(q);
}

/* What r writes at `at` into a page. */
static int encrypt_page(struct crypt_queue *q, const struct blk_req *r, uint64_t at, const struct iovec *page)
{
	struct xts *x = q->crypt->xts;

	if (r->op == BLK_WRITE_ZEROES)
		return xts_encrypt(x, q->lane, r->off_bytes + at, zeroes, page->iov_base, page->iov_len);
	return xts_encrypt_iov(x, q->lane, r->off_bytes + at, r->iov, r->iov_count, at, page->iov_base, page->iov_len);
}

static bool write_piece(struct crypt_queue *q, struct blk_req *r)
{
	uint64_t len = MIN_OF(r->len_bytes - r->scratch[0], PIECE_BYTES), at = r->scratch[0];

	if (q->free_count < (len + PAGE - 1) / PAGE)
		return false;
	struct blk_req *io = piece_new(q, q->writes, r, BLK_WRITE, &len);
	if (!io)
		return false;
	struct writing *wr = blk_pool_extra(io);
	int err = 0;
	wr->q = q;
	pages_take(q, io, &wr->piece, len);
	for (unsigned i = 0; i < io->iov_count; i++) {
		err |= encrypt_page(q, r, at, &io->iov[i]);
		at += io->iov[i].iov_len;
	}
	blk_count(&q->encrypted_bytes, len);
	io->done = write_done;
	r->scratch[0] += len;
	if (err)
		blk_complete(io, -EIO); /* nothing that is not encrypted goes down */
	else
		blk_submit(q->layer->below, io);
	return true;
}

/* ---- whose turn it is ---- */

static void admit(struct crypt_queue *q, struct blk_list *list, bool (*begin)(struct crypt_queue *q, struct blk_req *r))
{
	while (!blk_list_empty(list)) {
		struct blk_req *r = list->first;
		if (has_more(r) && !begin(q, r))
			return;
		blk_list_pop(list);
		r->scratch[3] = has_more(r) && !(r->op == BLK_WRITE_ZEROES && r->scratch[1] == ZEROES_PIECES);
		if (r->scratch[3])
			blk_list_push(list, r);
		else
			end_if_done(r);
	}
}

static void admit_reads(struct crypt_queue *q)
{
	admit(q, &q->reading, read_piece);
}

static void admit_writes(struct crypt_queue *q)
{
	admit(q, &q->writing, write_piece);
}

static void crypt_submit(struct blk_layer *l, struct blk_req *r)
{
	struct crypt_queue *q = queue_of(r, l);

	if (r->op == BLK_FLUSH || r->op == BLK_DISCARD) {
		blk_submit(l->below, r);
		return;
	}
	memset(r->scratch, 0, sizeof(r->scratch));
	r->scratch[3] = true;
	if (r->op == BLK_READ) {
		blk_list_push(&q->reading, r);
		admit_reads(q);
	} else {
		blk_list_push(&q->writing, r);
		admit_writes(q);
	}
}

/* ---- the layer ---- */

static int read_key(const char *path, uint32_t sector_bytes, unsigned lanes, struct xts **ret, struct error *e)
{
	_cleanup_(locked_freep) void *key = locked_new(XTS_KEY_BYTES);

	if (!key)
		return error_errno(e, ENOMEM, "the crypt filter");
	int err = locked_read(path, key, XTS_KEY_BYTES, e);
	if (err)
		return err;
	err = xts_new(key, sector_bytes, lanes, ret);
	if (err == -EINVAL)
		return error_set(e, "InvalidKeyFile", "%s: its two halves are the same, or the cipher is not to be had", path);
	return err ? error_errno(e, err, "the crypt filter") : 0;
}

/* The key is expanded for all queues here, before the guest is heard; its file is not needed any more. */
static int crypt_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	uint32_t sector_bytes = blk_values_text(v, "sector")[0] == '4' ? 4096 : 512;

	/* Several to a block are fine, parts of one are not. */
	if (sector_bytes > l->info.block_bytes)
		return error_set(e, "InvalidOption", "sector: %u bytes are more than a block of the disk (%u)", sector_bytes, l->info.block_bytes);
	struct crypt *c = calloc(1, sizeof(*c));
	if (!c)
		return error_errno(e, ENOMEM, "the crypt filter");
	int err = read_key(blk_values_text(v, "key-file"), sector_bytes, blk_stack_queues(l->stack), &c->xts, e);
	if (err) {
		free(c);
		return err;
	}
	l->info.encrypted = true;
	l->info.fast_zeroes = false;
	l->state = c;
	return 0;
}

static void crypt_close(struct blk_layer *l)
{
	struct crypt *c = l->state;

	xts_free(c->xts);
	free(c);
}

static int crypt_queue_start(struct blk_layer *l, struct blk_queue *queue, struct error *e)
{
	struct crypt_queue *q = calloc(1, sizeof(*q));

	if (!q)
		return error_errno(e, ENOMEM, "a queue of the crypt filter");
	q->pages = mmap(NULL, (size_t)PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (q->pages == MAP_FAILED || blk_pool_new(queue, BLK_DEPTH_MAX, BLK_IOV_MAX, sizeof(struct reading), &q->reads) ||
	    blk_pool_new(queue, BLK_DEPTH_MAX, PIECE_PAGES, sizeof(struct writing), &q->writes)) {
		if (q->pages != MAP_FAILED)
			munmap(q->pages, (size_t)PAGES * PAGE);
		blk_pool_free(q->reads);
		free(q);
		return error_errno(e, ENOMEM, "a queue of the crypt filter");
	}
	q->crypt = l->state;
	q->layer = l;
	q->queue = queue;
	q->lane = blk_queue_index(queue);
	q->idle.fn = idle_due;
	while (q->free_count < PAGES) {
		q->free[q->free_count] = (uint16_t)(PAGES - 1 - q->free_count); /* the first ones are taken first */
		q->free_count++;
	}
	q->crypt->queue[q->lane] = q;
	l->queue_state[q->lane] = q;
	return 0;
}

static void crypt_queue_stop(struct blk_layer *l, struct blk_queue *queue)
{
	struct crypt_queue *q = l->queue_state[blk_queue_index(queue)];

	assert(blk_list_empty(&q->reading) && blk_list_empty(&q->writing) && q->free_count == PAGES);
	blk_timer_cancel(&q->idle);
	q->crypt->queue[q->lane] = NULL;
	l->queue_state[q->lane] = NULL;
	blk_pool_free(q->reads);
	blk_pool_free(q->writes);
	munmap(q->pages, (size_t)PAGES * PAGE);
	free(q);
}

static void crypt_stats(struct blk_layer *l, struct blk_stats_sink *sink)
{
	struct crypt *c = l->state;
	uint64_t encrypted = 0, decrypted = 0;

	for (unsigned i = 0; i < BLK_QUEUES_MAX; i++) {
		encrypted += c->queue[i] ? c->queue[i]->encrypted_bytes : 0;
		decrypted += c->queue[i] ? c->queue[i]->decrypted_bytes : 0;
	}
	blk_stats_emit(sink, "crypt", "encrypted_bytes", true, encrypted, "Encrypted and written, zeroes among them.");
	blk_stats_emit(sink, "crypt", "decrypted_bytes", true, decrypted, "Read and decrypted.");
}

static const struct blk_option crypt_options[] = {
	{ .name = "key-file", .type = BLK_OPT_TEXT, .required = true,
	  .doc = "exactly 64 bytes, of a file of this user or root that nobody else has rights on; read once, at the start" },
	{ .name = "sector", .type = BLK_OPT_CHOICE, .fallback = "512", .choices = "512|4096",
	  .doc = "what is encrypted at a time; 4096 is faster and needs a disk of such blocks; it is part of the format" },
	{ 0 },
};

const struct blk_layer_ops blk_crypt_ops = {
	.name = "crypt",
	.doc = "AES-256-XTS, as dm-crypt's aes-xts-plain64",
	.options = crypt_options,
	.open = crypt_open,
	.queue_start = crypt_queue_start,
	.queue_stop = crypt_queue_stop,
	.submit = crypt_submit,
	.stats = crypt_stats,
	.close = crypt_close,
};
