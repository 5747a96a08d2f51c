/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots hold chunks. A slot is
 *
 *     FREE ── wanted ──► QUEUED ── a thread takes it ──► LOADING ── it is there ──► READY ── evicted ──► QUEUED (of another chunk)
 *                                                           └── it cannot be had: who waits fails ──► FREE
 *
 * A read goes through its chunks in order. What is zero or READY it copies at once; at a chunk that is not it waits in that
 * slot's list, having asked for the chunks behind it too; the thread that loads the chunk takes it on from there. When no slot is to be
 * had (all are QUEUED, LOADING or being copied from) it waits in `starved`, until any slot is. So a read is at any time in exactly one
 * place: with the thread that advances it, in one slot's list, or in `starved`.
 *
 * `lock` guards all of that, the pages and the counters. It is held for memory work only, and not while a chunk is copied: `users`
 * keeps a slot in place meanwhile.
 */
#include "svc/sc/snap_reader.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "block/core/request.h"
#include "svc/sc/snap_store_priv.h"

#define THREADS_MAX 64u
#define SLOTS_MAX 1024u
#define STREAMS 8u
#define NO_CHUNK UINT64_MAX

enum slot_state { FREE, QUEUED, LOADING, READY };

struct slot {
	enum slot_state state;
	uint64_t chunk;
	bool ahead;            /* nobody has asked for it yet */
	unsigned users;
	uint64_t last_use;
	unsigned char *data;   /* chunk_bytes; made at the first use */
	struct snap_read *waiting, **waiting_last;
	struct slot *next;     /* in the queue */
};

struct slot_list {
	struct slot *first, **last;
};

struct held_page {
	struct snap_page *page; /* NULL while it is loaded */
	uint64_t index;
	bool taken;             /* this entry is in use */
	unsigned users;
	uint64_t last_use;
};

struct stream { /* of reads in sequence */
	uint64_t next_chunk;
	unsigned window;
	uint64_t last_use;
};

struct snap_reader {
	struct snap_store *store;
	struct objects *objects;
	struct snap_root *root;
	struct snap_use *use;
	struct snap_reader_config config;
	pthread_mutex_t lock;
	pthread_cond_t work, page_there;
	struct slot *slots;
	struct held_page *pages;
	struct slot_list wanted, ahead;
	struct snap_read *starved, **starved_last;
	struct stream stream[STREAMS];
	uint64_t clock;
	bool stop;
	unsigned threads;
	pthread_t thread[THREADS_MAX];
	struct snap_reader_stats stats;
	char problem[512];
};

static void *fetcher(void *ctx);

/* ---- opening ---- */

static void set_defaults(struct snap_reader_config *c)
{
	c->threads = MIN_OF(c->threads ? c->threads : 4, THREADS_MAX);
	c->chunks = MAX_OF(MIN_OF(c->chunks ? c->chunks : 32, SLOTS_MAX), 2u);
	c->pages = MAX_OF(c->pages ? c->pages : 16, c->threads); /* each thread holds at most one */
	c->readahead = c->readahead < 0 ? 0 : c->readahead ? c->readahead : 8;
}

static void make_lists(struct snap_reader *r)
{
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->work, NULL);
	pthread_cond_init(&r->page_there, NULL);
	r->slots = calloc(r->config.chunks, sizeof(*r->slots));
	r->pages = calloc(r->config.pages, sizeof(*r->pages));
	if (!r->slots || !r->pages)
		abort();
	for (unsigned i = 0; i < r->config.chunks; i++)
		r->slots[i].waiting_last = &r->slots[i].waiting;
	for (unsigned i = 0; i < STREAMS; i++)
		r->stream[i].next_chunk = NO_CHUNK;
	r->wanted.last = &r->wanted.first;
	r->ahead.last = &r->ahead.first;
	r->starved_last = &r->starved;
}

int snap_reader_open(struct snap_store *s, const struct snap_reader_config *c, struct snap_reader **ret, struct error *e)
{
	struct snap_reader *r;
	struct snap_use *use;
	int err = 0;

	if (!snap_id_ok(c->snapshot)) {
		error_set(e, "InvalidSnapshot.NotFound", "there is no snapshot %s", c->snapshot);
		return -ENOENT;
	}
	err = snap_use(s, c->snapshot, SNAP_READS, &use, e);
	if (err)
		return err;
	r = calloc(1, sizeof(*r));
	if (!r)
		abort();
	r->store = s;
	r->objects = s->objects;
	r->use = use;
	r->config = *c;
	set_defaults(&r->config);
	make_lists(r);
	r->config.key = NULL;
	err = snap_open_root(s, c->snapshot, c->key, &r->root, e);
	for (unsigned i = 0; !err && i < r->config.threads; i++) {
		err = -pthread_create(&r->thread[i], NULL, fetcher, r);
		if (err)
			error_errno(e, err, "cannot start a thread to read snapshot %s", c->snapshot);
		else
			r->threads++;
	}
	if (err) {
		snap_reader_close(r);
		return err;
	}
	*ret = r;
	return 0;
}

void snap_reader_close(struct snap_reader *r)
{
	if (!r)
		return;
	pthread_mutex_lock(&r->lock);
	r->stop = true;
	pthread_cond_broadcast(&r->work);
	pthread_mutex_unlock(&r->lock);
	for (unsigned i = 0; i < r->threads; i++)
		pthread_join(r->thread[i], NULL);
	assert(!r->starved);
	for (unsigned i = 0; i < r->config.chunks; i++) {
		assert(!r->slots[i].waiting && !r->slots[i].users);
		free(r->slots[i].data);
	}
	for (unsigned i = 0; i < r->config.pages; i++)
		snap_page_free(r->pages[i].page);
	free(r->slots);
	free(r->pages);
	snap_root_free(r->root);
	snap_unuse(r->store, r->use);
	pthread_cond_destroy(&r->work);
	pthread_cond_destroy(&r->page_there);
	pthread_mutex_destroy(&r->lock);
	free(r);
}

uint64_t snap_reader_size(const struct snap_reader *r)
{
	return r->root->size_bytes;
}

uint32_t snap_reader_chunk_bytes(const struct snap_reader *r)
{
	return r->root->chunk_bytes;
}

uint64_t snap_reader_extent(const struct snap_reader *r, uint64_t off, uint64_t len, bool *ret_zero)
{
	uint64_t size = r->root->size_bytes, end = off + MIN_OF(len, size - off), bytes = r->root->chunk_bytes;
	uint64_t chunk = off / bytes, page_chunks = r->root->page_chunks;
	bool zero = !snap_root_present(r->root, chunk);

	for (chunk++; chunk * bytes < end && snap_root_present(r->root, chunk) != zero;) {
		const struct snap_page_ref *p = &r->root->pages[chunk / page_chunks];

		chunk += p->stored && p->present ? 1 : page_chunks - chunk % page_chunks; /* a page of one kind */
	}
	*ret_zero = zero;
	return MIN_OF(end, chunk * bytes) - off;
}

/* ---- slots (lock held) ---- */

static struct slot *find_slot(struct snap_reader *r, uint64_t chunk)
{
	for (unsigned i = 0; i < r->config.chunks; i++) {
		if (r->slots[i].state != FREE && r->slots[i].chunk == chunk)
			return &r->slots[i];
	}
	return NULL;
}

/* One that is free, or else the longest unused; NULL: none is to be had. */
static struct slot *take_slot(struct snap_reader *r)
{
	struct slot *best = NULL;

	for (unsigned i = 0; i < r->config.chunks; i++) {
		struct slot *s = &r->slots[i];

		if (s->state == FREE)
			return s;
		if (s->state == READY && !s->users && (!best || s->last_use < best->last_use))
			best = s;
	}
	return best;
}

static void enqueue(struct slot_list *list, struct slot *s)
{
	s->next = NULL;
	*list->last = s;
	list->last = &s->next;
}

static struct slot *dequeue(struct slot_list *list)
{
	struct slot *s = list->first;

	if (s && !(list->first = s->next))
		list->last = &list->first;
	return s;
}

static void unqueue(struct slot_list *list, struct slot *s)
{
	for (struct slot **at = &list->first; *at; at = &(*at)->next) {
		if (*at != s)
			continue;
		*at = s->next;
		if (!s->next)
			list->last = at;
		return;
	}
}

/* A chunk on its way into a slot; NULL: no slot. */
static struct slot *want(struct snap_reader *r, uint64_t chunk, bool ahead)
{
	struct slot *s = find_slot(r, chunk);

	if (s && s->state == QUEUED && s->ahead && !ahead) { /* no longer only perhaps */
		unqueue(&r->ahead, s);
		enqueue(&r->wanted, s);
	}
	if (s && s->ahead && !ahead) {
		s->ahead = false;
		r->stats.ahead_used++;
	}
	if (s)
		return s;
	s = take_slot(r);
	if (!s)
		return NULL;
	s->state = QUEUED;
	s->chunk = chunk;
	s->ahead = ahead;
	s->last_use = ++r->clock;
	enqueue(ahead ? &r->ahead : &r->wanted, s);
	r->stats.ahead += ahead;
	pthread_cond_signal(&r->work);
	return s;
}

static void wait_in(struct snap_read ***last, struct snap_read *read)
{
	read->next = NULL;
	**last = read;
	*last = &read->next;
}

/* ---- reads ---- */

static bool is_over(const struct snap_read *read)
{
	return read->at == read->off_bytes + read->len_bytes;
}

/* How much of the read is in the chunk that it is at. */
static uint64_t part_len(const struct snap_reader *r, const struct snap_read *read)
{
	uint64_t chunk_end = (read->at / r->root->chunk_bytes + 1) * r->root->chunk_bytes;

	return MIN_OF(chunk_end, read->off_bytes + read->len_bytes) - read->at;
}

/* Lock held, released while it copies. */
static void copy_part(struct snap_reader *r, struct snap_read *read, struct slot *s)
{
	uint64_t len = part_len(r, read);

	s->users++;
	s->last_use = ++r->clock;
	pthread_mutex_unlock(&r->lock);
	blk_iov_to(read->iov, read->iov_count, read->at - read->off_bytes, s->data + read->at % r->root->chunk_bytes, len);
	pthread_mutex_lock(&r->lock);
	read->at += len;
	if (--s->users == 0 && r->starved)
		pthread_cond_signal(&r->work);
}

/* Asks for the chunks behind the one that the read waits for. */
static void want_rest(struct snap_reader *r, const struct snap_read *read)
{
	uint64_t last = (read->off_bytes + read->len_bytes - 1) / r->root->chunk_bytes;
	unsigned count = 0;

	for (uint64_t chunk = read->at / r->root->chunk_bytes + 1; chunk <= last && count < r->config.threads; chunk++) {
		if (!snap_root_present(r->root, chunk))
			continue;
		if (!want(r, chunk, false))
			return;
		count++;
	}
}

/* Takes the read as far as it goes. Lock held, released now and then. Whether it is over. */
static bool advance(struct snap_reader *r, struct snap_read *read)
{
	while (!is_over(read)) {
		uint64_t chunk = read->at / r->root->chunk_bytes;

		if (!snap_root_present(r->root, chunk)) {
			uint64_t len = part_len(r, read);

			pthread_mutex_unlock(&r->lock);
			blk_iov_zero(read->iov, read->iov_count, read->at - read->off_bytes, len);
			pthread_mutex_lock(&r->lock);
			read->at += len;
			continue;
		}
		struct slot *s = find_slot(r, chunk);
		bool begun = s;
		s = want(r, chunk, false);
		if (!s) {
			wait_in(&r->starved_last, read);
			return false;
		}
		if (s->state == READY) {
			r->stats.memory_hits++;
			copy_part(r, read, s);
			continue;
		}
		r->stats.joined += begun;
		wait_in(&s->waiting_last, read);
		want_rest(r, read);
		return false;
	}
	return true;
}

/* Reads in sequence get the next chunks fetched ahead. Lock held. */
static void look_ahead(struct snap_reader *r, const struct snap_read *read)
{
	uint64_t first = read->off_bytes / r->root->chunk_bytes, chunks = snap_root_chunks(r->root);
	uint64_t last = (read->off_bytes + read->len_bytes - 1) / r->root->chunk_bytes;
	struct stream *s = NULL, *oldest = &r->stream[0];

	if (!r->config.readahead)
		return;
	for (unsigned i = 0; i < STREAMS && !s; i++) {
		struct stream *one = &r->stream[i];

		if (one->next_chunk != NO_CHUNK && (first == one->next_chunk || first + 1 == one->next_chunk))
			s = one;
		if (one->last_use < oldest->last_use)
			oldest = one;
	}
	if (!s) {
		*oldest = (struct stream){ .next_chunk = last + 1, .last_use = ++r->clock };
		return;
	}
	s->last_use = ++r->clock;
	if (last + 1 > s->next_chunk)
		s->window = MIN_OF(s->window ? 2 * s->window : 1, MIN_OF((unsigned)r->config.readahead, r->config.chunks / 2));
	s->next_chunk = last + 1;
	for (uint64_t chunk = last + 1; chunk <= last + s->window && chunk < chunks; chunk++) {
		if (snap_root_present(r->root, chunk) && !find_slot(r, chunk) && !want(r, chunk, true))
			return;
	}
}

bool snap_reader_read(struct snap_reader *r, struct snap_read *read)
{
	bool over;

	assert(read->len_bytes && read->off_bytes <= r->root->size_bytes && read->len_bytes <= r->root->size_bytes - read->off_bytes);
	read->at = read->off_bytes;
	read->result = 0;
	pthread_mutex_lock(&r->lock);
	r->stats.reads++;
	r->stats.bytes += read->len_bytes;
	look_ahead(r, read); /* first: from advance() on the read may be over, and gone */
	over = advance(r, read);
	pthread_mutex_unlock(&r->lock);
	return over;
}

/* ---- pages (threads of the reader) ---- */

static struct held_page *page_entry(struct snap_reader *r, uint64_t index)
{
	struct held_page *best = NULL;

	for (unsigned i = 0; i < r->config.pages; i++) {
		struct held_page *p = &r->pages[i];

		if (p->taken && p->index == index)
			return p;
		if (!p->users && (!best || p->last_use < best->last_use))
			best = p;
	}
	assert(best); /* there are as many as threads */
	snap_page_free(best->page);
	*best = (struct held_page){ .index = index };
	return best;
}

/* Lock held, released while it loads. The page stays until its user is taken off. */
static int hold_page(struct snap_reader *r, uint64_t index, struct held_page **ret, struct error *e)
{
	struct held_page *p = page_entry(r, index);
	int err = 0;

	p->users++;
	p->last_use = ++r->clock;
	if (!p->taken) {
		struct snap_page *page = NULL;

		p->taken = true;
		pthread_mutex_unlock(&r->lock);
		err = snap_load_page(r->objects, r->root, index, &page, e);
		pthread_mutex_lock(&r->lock);
		p->page = page;
		p->taken = !err; /* those that wait try for themselves */
		pthread_cond_broadcast(&r->page_there);
	}
	while (!err && p->taken && !p->page)
		pthread_cond_wait(&r->page_there, &r->lock);
	if (!err && !p->page)
		err = -EAGAIN;
	if (err)
		p->users--;
	else
		*ret = p;
	return err;
}

/* ---- loading (threads of the reader) ---- */

static bool from_cache_sealed(struct snap_reader *r, const struct snap_page *p, struct slot *s, const unsigned char *name)
{
	unsigned i = (unsigned)(s->chunk % r->root->page_chunks);
	_cleanup_(freep) unsigned char *stored = malloc(p->chunk[i].len);

	if (!stored || !chunk_cache_get_sealed(r->config.cache, name, stored, p->chunk[i].len))
		return false;
	if (!snap_read_chunk(r->root, p, i, stored, s->data))
		return true;
	chunk_cache_drop(r->config.cache, name);
	return false;
}

static int load_sealed(struct snap_reader *r, const struct snap_page *p, struct slot *s, struct buf *scratch, bool *from_cache,
		       struct error *e)
{
	unsigned i = (unsigned)(s->chunk % r->root->page_chunks);
	bool cached = r->config.cache && p->chunk[i].codec != SNAP_ZERO;
	unsigned char name[SHA256_LEN];

	if (cached) {
		snap_chunk_name(p, i, name);
		*from_cache = from_cache_sealed(r, p, s, name);
		if (*from_cache)
			return 0;
	}
	int err = snap_load_chunk(r->objects, r->root, p, i, scratch, s->data, e);
	if (!err && cached)
		chunk_cache_put(r->config.cache, name, scratch->data, scratch->len);
	return err;
}

static int load_bytes(struct snap_reader *r, const struct snap_page *p, struct slot *s, struct buf *scratch, bool *from_cache,
		      struct error *e)
{
	const struct snap_chunk_ref *c = &p->chunk[s->chunk % r->root->page_chunks];
	size_t len = r->root->chunk_bytes;
	int err;

	if (!s->data && !(s->data = malloc(len)))
		return error_errno(e, ENOMEM, "reading a chunk");
	if (r->root->encrypted)
		return load_sealed(r, p, s, scratch, from_cache, e);
	*from_cache = r->config.cache && c->codec != SNAP_ZERO && chunk_cache_get(r->config.cache, c->sha, s->data, len);
	if (*from_cache)
		return 0;
	err = snap_load_chunk(r->objects, r->root, p, (unsigned)(s->chunk % r->root->page_chunks), scratch, s->data, e);
	if (!err && r->config.cache && c->codec != SNAP_ZERO)
		chunk_cache_put(r->config.cache, c->sha, s->data, len);
	return err;
}

/* Lock held, released while it loads. */
static int load(struct snap_reader *r, struct slot *s, struct buf *scratch, struct error *e)
{
	struct held_page *page;
	bool from_cache = false;
	int err;

	do {
		error_clear(e);
		err = hold_page(r, s->chunk / r->root->page_chunks, &page, e);
	} while (err == -EAGAIN && !error_is_set(e)); /* the thread that loaded it failed: our turn */
	if (err)
		return err;
	pthread_mutex_unlock(&r->lock);
	err = load_bytes(r, page->page, s, scratch, &from_cache, e);
	pthread_mutex_lock(&r->lock);
	page->users--;
	if (!err && from_cache)
		r->stats.cache_hits++;
	else if (!err)
		r->stats.fetches++, r->stats.fetched_bytes += scratch->len;
	return err;
}

/* Lock held, released meanwhile. */
static void report(struct snap_reader *r, int err, const struct error *e)
{
	bool corrupt = err == -EBADMSG;

	*(corrupt ? &r->stats.corrupt : &r->stats.failed) += 1;
	memcpy(r->problem, e->message, sizeof(r->problem));
	pthread_mutex_unlock(&r->lock);
	if (r->config.report)
		r->config.report(r->config.report_ctx, corrupt, e->message);
	pthread_mutex_lock(&r->lock);
}

/* Lock held, released while done() runs. */
static void end_read(struct snap_reader *r, struct snap_read *read, int result)
{
	read->result = result;
	pthread_mutex_unlock(&r->lock);
	read->done(read);
	pthread_mutex_lock(&r->lock);
}

/* The slot's chunk is there, or is not to be had. Lock held, released now and then. */
static void settle_slot(struct snap_reader *r, struct slot *s, int err)
{
	struct snap_read *read, *list = s->waiting;

	s->waiting = NULL;
	s->waiting_last = &s->waiting;
	s->state = err ? FREE : READY;
	s->last_use = ++r->clock;
	s->users++; /* in place for those that waited */
	while ((read = list)) {
		list = read->next;
		if (err) {
			end_read(r, read, -EIO);
			continue;
		}
		copy_part(r, read, s);
		if (advance(r, read))
			end_read(r, read, 0);
	}
	s->users--;
}

/* Reads that found no slot: those that are there now, once each. Lock held, released now and then. */
static void feed_starved(struct snap_reader *r)
{
	struct snap_read *read, *list = r->starved;

	r->starved = NULL;
	r->starved_last = &r->starved;
	while ((read = list)) {
		list = read->next;
		if (advance(r, read))
			end_read(r, read, 0);
	}
}

static void *fetcher(void *ctx)
{
	struct snap_reader *r = ctx;
	_cleanup_(buf_done) struct buf scratch = BUF_INIT;

	pthread_mutex_lock(&r->lock);
	while (!r->stop) {
		struct slot *s = dequeue(&r->wanted);

		if (!s)
			s = dequeue(&r->ahead);
		if (!s && r->starved && take_slot(r)) {
			feed_starved(r);
			continue;
		}
		if (!s) {
			pthread_cond_wait(&r->work, &r->lock);
			continue;
		}
		struct error e = { 0 };
		s->state = LOADING;
		int err = load(r, s, &scratch, &e);
		if (err && !s->ahead)
			report(r, err, &e);
		settle_slot(r, s, err);
		feed_starved(r);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

void snap_reader_stats(struct snap_reader *r, struct snap_reader_stats *ret)
{
	pthread_mutex_lock(&r->lock);
	*ret = r->stats;
	pthread_mutex_unlock(&r->lock);
}

void snap_reader_last_problem(struct snap_reader *r, char out[static 512])
{
	pthread_mutex_lock(&r->lock);
	memcpy(out, r->problem, sizeof(r->problem));
	pthread_mutex_unlock(&r->lock);
}
