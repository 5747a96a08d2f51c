/* SPDX-License-Identifier: Apache-2.0 */
#include <assert.h>
#include <string.h>
#include <sys/mman.h>

#include "block/filter/readahead_priv.h"

/*
 * Generations. The disk is divided into chunks; each chunk index falls into one of RA_GENERATIONS words: writes ever issued
 * (high half) and writes in flight (low half). A write that spans many chunks uses the word `all` instead. A write adds to
 * both halves before it goes below and takes from the low half after it has ended there, before its end is told.
 *   A load starts only while no write of its words is in flight, and notes their high halves, each read at once with the
 * low half that was zero. A chunk serves a read only if the high halves are still what it noted. So:
 *   - a write issued after the load began has changed the half before it went below: what the load saw of it is dropped;
 *   - a write issued before the load began had ended before: the load saw all of it;
 *   - a read that is submitted after a write's end sees the changed half, on whatever queue.
 * Nothing here takes the lock: a write costs two atomic additions. Two chunks with one word only cost each other.
 *
 * Chunks: FREE → LOADING → READY → FREE. In the table (head[], chained by number) from the start of loading until
 * released; a chunk that is released while it loads or is copied from is dead, out of the table, and free at the end of that.
 * The heads are read without the lock by ra_near(): a wrong answer sends a read to the disk, or costs it the lock.
 *
 * Streams own chunks, in a list by age. A stream ends when it has no chunk, when it is idle or when what it reads ahead is
 * not wanted. Window: two chunks at first, doubled by each chunk that was used up, halved by each that was not. It is never
 * more than was used so far (and two chunks), so that a reader that ends early has cost no more than it gained; nor more than
 * the reader takes in WINDOW_NS, or in two latencies of the disk if that is longer, but for WINDOW_CHUNKS that it may always
 * have; nor more than the stream's share of the cache. The latency counted is that of loads with no other in flight:
 * otherwise the queue that we make ourselves would ask for more of it.
 */
#define WINDOW_CHUNKS 8u
#define WINDOW_NS 25000000u
#define RATE_NS 20000000u
#define PAUSE_NS 200000000u
#define BEHIND 2u /* chunks behind the reader that are kept for late arrivals */
#define WASTED_MAX 3u
#define UNPROVEN_MAX 8u
#define WARM_NS 1000000000u
#define WIDE 8u /* chunks of a write that count one by one */

/* ---- generations ---- */
static struct ra_generation *word(struct ra *ra, uint64_t index)
{
	return &ra->generation[index % RA_GENERATIONS];
}

static void write_count(struct ra *ra, uint64_t off, uint64_t len, uint64_t add)
{
	uint64_t first = off / ra->chunk_bytes, last = (off + len - 1) / ra->chunk_bytes;

	if (last - first >= WIDE) {
		atomic_fetch_add(&ra->all.v, add);
		return;
	}
	for (uint64_t i = first; i <= last; i++)
		atomic_fetch_add(&word(ra, i)->v, add);
}

void ra_write_begin(struct ra *ra, uint64_t off_bytes, uint64_t len_bytes)
{
	write_count(ra, off_bytes, len_bytes, (1ull << 32) + 1);
}

void ra_write_end(struct ra *ra, uint64_t off_bytes, uint64_t len_bytes)
{
	write_count(ra, off_bytes, len_bytes, (uint64_t)-1);
}

static bool generation_take(struct ra *ra, struct ra_chunk *c)
{
	uint64_t one = atomic_load(&word(ra, c->index)->v), all = atomic_load(&ra->all.v);

	c->generation = (uint32_t)(one >> 32);
	c->generation_all = (uint32_t)(all >> 32);
	return !(uint32_t)one && !(uint32_t)all;
}

static bool fresh(struct ra *ra, const struct ra_chunk *c)
{
	return (uint32_t)(atomic_load(&word(ra, c->index)->v) >> 32) == c->generation &&
	       (uint32_t)(atomic_load(&ra->all.v) >> 32) == c->generation_all;
}

/* ---- the table ---- */
static _Atomic uint16_t *head(const struct ra *ra, uint64_t index)
{
	return (_Atomic uint16_t *)&ra->head[index % RA_HEADS];
}

bool ra_near(const struct ra *ra, const struct blk_req *r)
{
	uint64_t first = r->off_bytes / ra->chunk_bytes, last = (r->off_bytes + r->len_bytes - 1) / ra->chunk_bytes;

	for (uint64_t i = first; i <= last; i++)
		if (atomic_load_explicit(head(ra, i), memory_order_relaxed))
			return true;
	return false;
}

static struct ra_chunk *lookup(struct ra *ra, uint64_t index)
{
	for (uint16_t n = *head(ra, index); n; n = ra->chunk[n - 1].hash_next)
		if (ra->chunk[n - 1].index == index)
			return &ra->chunk[n - 1];
	return NULL;
}

static void table_add(struct ra *ra, struct ra_chunk *c)
{
	_Atomic uint16_t *h = head(ra, c->index);

	c->hash_next = *h;
	atomic_store_explicit(h, (uint16_t)(c - ra->chunk + 1), memory_order_relaxed);
	atomic_store_explicit(&ra->live, ra->live + 1, memory_order_relaxed);
}

static void table_remove(struct ra *ra, struct ra_chunk *c)
{
	_Atomic uint16_t *h = head(ra, c->index);
	uint16_t number = (uint16_t)(c - ra->chunk + 1), n = *h;

	if (n == number) {
		atomic_store_explicit(h, c->hash_next, memory_order_relaxed);
	} else {
		while (ra->chunk[n - 1].hash_next != number)
			n = ra->chunk[n - 1].hash_next;
		ra->chunk[n - 1].hash_next = c->hash_next;
	}
	atomic_store_explicit(&ra->live, ra->live - 1, memory_order_relaxed);
}

/* ---- the free list: warm chunks in front, so that memory once used is used again ---- */
static void free_put(struct ra *ra, struct ra_chunk *c)
{
	c->newer = NULL;
	if (!ra->free_first) {
		ra->free_first = ra->free_last = c;
	} else if (c->warm) {
		c->newer = ra->free_first;
		ra->free_first = c;
	} else {
		ra->free_last->newer = c;
		ra->free_last = c;
	}
}

static void now_free(struct ra *ra, struct ra_chunk *c, uint64_t now_ns)
{
	c->state = RA_FREE;
	c->dead = false;
	c->since_ns = now_ns;
	free_put(ra, c);
}

static void stream_unlink(struct ra_chunk *c)
{
	struct ra_stream *s = c->stream;

	if (c->older)
		c->older->newer = c->newer;
	else
		s->oldest = c->newer;
	if (c->newer)
		c->newer->older = c->older;
	else
		s->newest = c->older;
	c->older = c->newer = NULL;
	c->stream = NULL;
	s->chunks--;
}

/* Out of the table and of its stream; nothing is said of how useful it was. */
static void release(struct ra *ra, struct ra_chunk *c, uint64_t now_ns)
{
	assert(c->state != RA_FREE && !c->dead);
	table_remove(ra, c);
	stream_unlink(c);
	if (c->state == RA_LOADING || c->pins)
		c->dead = true;
	else
		now_free(ra, c, now_ns);
}

/* ---- streams ---- */
static uint64_t window_limit(const struct ra *ra, const struct ra_stream *s)
{
	uint64_t ns = MAX_OF((uint64_t)WINDOW_NS, MIN_OF(2 * ra->latency_ns, 1000000000ull));
	uint64_t chunks = (uint64_t)((double)s->rate * (double)ns / 1e9) / ra->chunk_bytes;

	chunks = MAX_OF(chunks, (uint64_t)WINDOW_CHUNKS);
	return MIN_OF(chunks, s->used_bytes / ra->chunk_bytes + 2);
}

static unsigned share(const struct ra *ra)
{
	return MAX_OF(ra->chunk_count / MAX_OF(ra->streams, 1u), 2u);
}

static void stream_end(struct ra *ra, struct ra_stream *s, uint64_t now_ns)
{
	uint32_t need = ra->need;

	while (s->oldest) {
		struct ra_chunk *c = s->oldest;
		uint64_t unused = c->to - c->from - MIN_OF(c->passed, c->to - c->from);

		s->unused_bytes += unused;
		blk_count(&ra->count.unused_bytes, unused);
		release(ra, c, now_ns);
	}
	if (s->unused_bytes > s->used_bytes)
		need = MIN_OF(need * 2, RA_NEED_MAX);
	else if (s->used_bytes / 8 > s->unused_bytes)
		need = RA_NEED_MIN;
	atomic_store_explicit(&ra->need, need, memory_order_relaxed);
	s->live = false;
	ra->streams--;
}

/* c is of no more use to s: was it read? */
static void retire(struct ra *ra, struct ra_chunk *c, uint64_t now_ns)
{
	struct ra_stream *s = c->stream;
	uint32_t len = c->to - c->from, passed = MIN_OF(c->passed, len);

	s->unused_bytes += len - passed;
	blk_count(&ra->count.unused_bytes, len - passed);
	if (passed * 2 < len) {
		s->window = MAX_OF(s->window / 2, 1u);
		s->wasted++;
	} else {
		s->window = (unsigned)MIN_OF((uint64_t)s->window * 2, window_limit(ra, s));
		s->wasted = 0;
	}
	release(ra, c, now_ns);
}

static void stream_rate(struct ra_stream *s, uint64_t len, uint64_t now_ns)
{
	uint64_t dt = now_ns - s->rate_since_ns;

	if (dt > PAUSE_NS) {
		s->rate_since_ns = now_ns;
		s->rate_bytes = 0;
		return;
	}
	s->rate_bytes += len;
	if (dt < RATE_NS)
		return;
	uint64_t rate = (uint64_t)((double)s->rate_bytes * 1e9 / (double)dt);
	s->rate = s->rate ? (s->rate + rate) / 2 : rate;
	s->rate_since_ns = now_ns;
	s->rate_bytes = 0;
}

/* Its reader asked for [.., end). Chunks that it has left behind go. */
static void stream_moves(struct ra *ra, struct ra_stream *s, uint64_t end, uint64_t now_ns)
{
	s->last_ns = now_ns;
	s->pos = MAX_OF(s->pos, end);
	s->ahead = MAX_OF(s->ahead, s->pos);
	while (s->oldest && s->oldest->state == RA_READY && !s->oldest->pins &&
	       (s->oldest->index + 1 + BEHIND) * ra->chunk_bytes <= s->pos)
		retire(ra, s->oldest, now_ns);
	if (s->wasted > WASTED_MAX)
		stream_end(ra, s, now_ns);
}

/* Of many streams that have come to nothing yet the oldest ends, so that what they cost is known soon. */
static void end_unproven(struct ra *ra, uint64_t now_ns)
{
	struct ra_stream *oldest = NULL;
	unsigned n = 0;

	for (unsigned i = 0; i < RA_STREAMS; i++) {
		struct ra_stream *s = &ra->stream[i];

		if (!s->live || s->used_bytes > ra->chunk_bytes)
			continue;
		n++;
		if (!oldest || s->last_ns < oldest->last_ns)
			oldest = s;
	}
	if (n >= UNPROVEN_MAX)
		stream_end(ra, oldest, now_ns);
}

static struct ra_stream *stream_slot(struct ra *ra, uint64_t now_ns)
{
	struct ra_stream *s = NULL;

	end_unproven(ra, now_ns);
	for (unsigned i = 0; i < RA_STREAMS; i++) {
		if (!ra->stream[i].live)
			return &ra->stream[i];
		if (!s || ra->stream[i].last_ns < s->last_ns)
			s = &ra->stream[i];
	}
	if (now_ns < s->last_ns + PAUSE_NS)
		return NULL;
	stream_end(ra, s, now_ns);
	return s;
}

void ra_stream_start(struct ra *ra, uint64_t pos, uint64_t seen_bytes, uint64_t now_ns)
{
	struct ra_stream *s;

	if (ra->stopped || pos >= ra->size_bytes)
		return;
	for (unsigned i = 0; i < RA_STREAMS; i++) {
		s = &ra->stream[i];
		if (s->live && pos <= s->ahead && pos + (uint64_t)BEHIND * ra->chunk_bytes >= s->pos)
			return;
	}
	s = stream_slot(ra, now_ns);
	if (!s)
		return;
	*s = (struct ra_stream){ .live = true, .pos = pos, .ahead = pos, .window = seen_bytes >= ra->chunk_bytes / 2 ? 2 : 1,
				 .last_ns = now_ns, .rate_since_ns = now_ns };
	ra->streams++;
	blk_count(&ra->count.streams, 1);
}

void ra_kill_idle(struct ra *ra, uint64_t now_ns)
{
	for (unsigned i = 0; i < RA_STREAMS; i++)
		if (ra->stream[i].live && now_ns >= ra->stream[i].last_ns + ra->idle_ns)
			stream_end(ra, &ra->stream[i], now_ns);
}

void ra_forget_all(struct ra *ra, uint64_t now_ns)
{
	for (unsigned i = 0; i < RA_STREAMS; i++)
		if (ra->stream[i].live)
			stream_end(ra, &ra->stream[i], now_ns);
}

/* ---- reading ---- */
enum ra_verdict ra_look(struct ra *ra, struct blk_req *r, uint64_t now_ns, struct ra_chunk *pinned[RA_SPAN_MAX], unsigned *ret_count)
{
	uint64_t end = r->off_bytes + r->len_bytes;
	struct ra_chunk *wait = NULL, *touched[RA_SPAN_MAX];
	struct ra_stream *s = NULL;
	unsigned n = 0;
	bool miss = false;

	for (uint64_t off = r->off_bytes, next; off < end; off = next) {
		struct ra_chunk *c = lookup(ra, off / ra->chunk_bytes);
		uint64_t base = off / ra->chunk_bytes * ra->chunk_bytes;

		next = MIN_OF(base + ra->chunk_bytes, end);
		if (c && !fresh(ra, c)) {
			s = c->stream;
			blk_count(&ra->count.stale, c->state == RA_READY);
			if (c->state == RA_READY)
				retire(ra, c, now_ns);
			c = NULL;
		}
		if (!c || off - base < c->from || next - base > c->to) {
			miss = true;
			continue;
		}
		s = c->stream;
		if (c->state == RA_LOADING)
			wait = wait ? wait : c;
		else
			touched[n++] = c;
	}
	if (!miss && wait) {
		stream_moves(ra, s, end, now_ns);
		blk_list_push(&wait->waiters, r);
		return RA_WAIT;
	}
	/* pinned first: moving the stream may release chunks */
	for (unsigned i = 0; i < n; i++) {
		uint64_t base = touched[i]->index * ra->chunk_bytes;

		touched[i]->pins += !miss;
		touched[i]->passed += (uint32_t)(MIN_OF(end, base + touched[i]->to) - MAX_OF(r->off_bytes, base + touched[i]->from));
		pinned[i] = touched[i];
	}
	*ret_count = n;
	if (s) {
		stream_rate(s, r->len_bytes, now_ns);
		stream_moves(ra, s, end, now_ns);
	}
	blk_count(&ra->count.partial, miss && n);
	return miss ? RA_MISS : RA_HIT;
}

void ra_unpin(struct ra *ra, struct ra_chunk *const pinned[], unsigned count, const struct blk_req *r, uint64_t now_ns)
{
	blk_count(&ra->count.hits, 1);
	blk_count(&ra->count.used_bytes, r->len_bytes);
	for (unsigned i = 0; i < count; i++) {
		struct ra_chunk *c = pinned[i];

		assert(c->pins);
		if (c->stream && !i)
			c->stream->used_bytes += r->len_bytes;
		if (--c->pins)
			continue;
		if (c->dead)
			now_free(ra, c, now_ns);
		else if (c->passed >= c->to - c->from)
			retire(ra, c, now_ns);
	}
}

/* A write that is about to go below, counted already, behind the reader of a chunk: the rest of that chunk stays good. So who
 * rewrites what it reads keeps its stream. */
void ra_write_behind(struct ra *ra, uint64_t off_bytes, uint64_t len_bytes)
{
	uint64_t first = off_bytes / ra->chunk_bytes, last = (off_bytes + len_bytes - 1) / ra->chunk_bytes;

	if (last - first >= WIDE)
		return;
	for (uint64_t i = first; i <= last; i++) {
		struct ra_chunk *c = lookup(ra, i);
		uint64_t base = i * ra->chunk_bytes, end = MIN_OF(off_bytes + len_bytes, base + ra->chunk_bytes);

		if (!c || end > c->stream->pos || end - base >= c->to)
			continue;
		if (end - base > c->from) {
			c->passed -= MIN_OF(c->passed, (uint32_t)(end - base) - c->from);
			c->from = (uint32_t)(end - base);
		}
		c->generation++; /* for this write and no other */
	}
}

/* ---- loading ---- */
static struct ra_chunk *free_take(struct ra *ra, const struct ra_stream *wanting, uint64_t now_ns)
{
	struct ra_stream *idlest = NULL;
	struct ra_chunk *c;

	for (unsigned i = 0; !ra->free_first && i < RA_STREAMS; i++) {
		struct ra_stream *s = &ra->stream[i];

		if (s->live && s != wanting && now_ns >= s->last_ns + PAUSE_NS && (!idlest || s->last_ns < idlest->last_ns))
			idlest = s;
	}
	if (idlest)
		stream_end(ra, idlest, now_ns);
	c = ra->free_first;
	if (!c)
		return NULL;
	ra->free_first = c->newer;
	if (!ra->free_first)
		ra->free_last = NULL;
	c->newer = NULL;
	return c;
}

static void chunk_start(struct ra *ra, struct ra_stream *s, struct ra_chunk *c, uint64_t now_ns)
{
	uint64_t base = c->index * ra->chunk_bytes;

	c->from = (uint32_t)(s->ahead - base);
	c->to = (uint32_t)MIN_OF((uint64_t)ra->chunk_bytes, ra->size_bytes - base);
	c->passed = 0;
	c->state = RA_LOADING;
	c->warm = true;
	c->alone = !ra->loading;
	c->since_ns = now_ns;
	c->stream = s;
	c->older = s->newest;
	if (s->newest)
		s->newest->newer = c;
	else
		s->oldest = c;
	s->newest = c;
	s->chunks++;
	s->ahead = base + c->to;
	table_add(ra, c);
	ra->loading++;
	blk_count(&ra->count.ahead_bytes, c->to - c->from);
}

static struct ra_chunk *stream_next(struct ra *ra, struct ra_stream *s, uint64_t now_ns)
{
	unsigned window = MIN_OF(s->window, share(ra));
	struct ra_chunk *c;

	while (s->ahead < ra->size_bytes && s->ahead < s->pos + (uint64_t)window * ra->chunk_bytes && s->chunks < window + BEHIND) {
		uint64_t index = s->ahead / ra->chunk_bytes;

		if (lookup(ra, index)) { /* another stream's: it will serve both */
			s->ahead = (index + 1) * ra->chunk_bytes;
			continue;
		}
		c = free_take(ra, s, now_ns);
		if (!c)
			return NULL;
		c->index = index;
		if (!generation_take(ra, c)) { /* being written: later */
			free_put(ra, c);
			return NULL;
		}
		chunk_start(ra, s, c, now_ns);
		return c;
	}
	return NULL;
}

struct ra_chunk *ra_next_load(struct ra *ra, uint64_t now_ns)
{
	if (ra->stopped)
		return NULL;
	for (unsigned i = 0; i < RA_STREAMS; i++) {
		struct ra_stream *s = &ra->stream[i];
		struct ra_chunk *c = s->live ? stream_next(ra, s, now_ns) : NULL;

		if (c)
			return c;
		if (s->live && !s->chunks)
			stream_end(ra, s, now_ns); /* the detector finds it again */
	}
	return NULL;
}

void ra_loaded(struct ra *ra, struct ra_chunk *c, int result, uint64_t now_ns, struct blk_list *ret_waiters)
{
	assert(c->state == RA_LOADING);
	*ret_waiters = c->waiters;
	c->waiters = (struct blk_list){ 0 };
	ra->loading--;
	c->state = RA_READY;
	if (c->alone && !result)
		ra->latency_ns = ra->latency_ns ? (ra->latency_ns * 3 + (now_ns - c->since_ns)) / 4 : now_ns - c->since_ns;
	blk_count(&ra->count.errors, result != 0);
	blk_count(&ra->count.stale, !result && !fresh(ra, c));
	if (c->dead)
		now_free(ra, c, now_ns);
	else if (result)
		stream_end(ra, c->stream, now_ns); /* the guest's own read will say what is wrong */
	else if (!fresh(ra, c))
		retire(ra, c, now_ns);
}

/* ---- memory ---- */
bool ra_give_back(struct ra *ra, uint64_t now_ns)
{
	struct ra_chunk *cold = NULL, *keep = NULL, *c;
	bool wanted = ra->streams || ra->loading;

	while ((c = ra->free_first) && c->warm) {
		bool old = now_ns >= c->since_ns + WARM_NS;

		ra->free_first = c->newer;
		c->newer = old ? cold : keep;
		*(old ? &cold : &keep) = c;
		wanted |= !old;
	}
	if (!ra->free_first)
		ra->free_last = NULL;
	while ((c = keep)) {
		keep = c->newer;
		free_put(ra, c);
	}
	while ((c = cold)) {
		cold = c->newer;
		pthread_mutex_unlock(&ra->lock);
		madvise(c->data, ra->chunk_bytes, MADV_DONTNEED);
		pthread_mutex_lock(&ra->lock);
		blk_count(&ra->count.given_back, 1);
		c->warm = false;
		free_put(ra, c);
	}
	return wanted;
}

int ra_cache_open(struct ra *ra, uint64_t cache_bytes)
{
	ra->chunk_count = (unsigned)(cache_bytes / ra->chunk_bytes);
	ra->memory_bytes = (size_t)ra->chunk_count * ra->chunk_bytes;
	ra->chunk = calloc(ra->chunk_count, sizeof(*ra->chunk));
	if (!ra->chunk)
		return -ENOMEM;
	ra->memory = mmap(NULL, ra->memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ra->memory == MAP_FAILED) {
		free(TAKE_PTR(ra->chunk));
		ra->memory = NULL;
		return -ENOMEM;
	}
	for (unsigned i = 0; i < ra->chunk_count; i++) {
		ra->chunk[i].data = ra->memory + (size_t)i * ra->chunk_bytes;
		free_put(ra, &ra->chunk[i]);
	}
	return 0;
}

void ra_cache_close(struct ra *ra)
{
	if (ra->memory)
		munmap(ra->memory, ra->memory_bytes);
	free(ra->chunk);
}
