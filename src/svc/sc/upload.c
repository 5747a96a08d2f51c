/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frozen view on its way to Walrus, chunk by chunk in order. What has not changed since the parent is not told, what is zero is told
 * without being read; reads are several at once, in a ring whose oldest is stored first.
 */
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "svc/sc/sc_priv.h"
#include "svc/sc/view_reader.h"

#define READS 8u
#define EXTENTS 64u

struct slot { /* a chunk that is being read, or a run of zero ones */
	uint64_t first, count;
	bool zero;
	struct view_read read;
};

struct move {
	struct sc *sc;
	struct sc_upload *u;
	struct view_reader *reader;
	struct snap_writer *writer;
	uint64_t size_bytes, chunks;
	uint32_t chunk_bytes;
	char *memory;
	struct slot ring[READS];
	unsigned head, used;
};

void sc_progress(struct sc *sc, struct sc_snapshot *s, uint64_t done, uint64_t of, uint64_t size_bytes)
{
	int percent = of ? (int)(done * 99 / of) : 0;

	pthread_mutex_lock(&sc->lock);
	if (percent > s->progress || (size_bytes && !s->rec.size_bytes)) {
		s->progress = MAX_OF(percent, s->progress);
		if (size_bytes)
			s->rec.size_bytes = (int64_t)size_bytes;
		sc_show(sc, &s->item);
	}
	pthread_mutex_unlock(&sc->lock);
}

int sc_find_stored(struct snap_store *store, const char *id, struct snap_info *ret, struct error *e)
{
	struct error why = { 0 };
	int err = snap_info(store, id, ret, &why);

	if (err && err != -ENOENT && e) {
		error_clear(e);
		*e = why;
	}
	return err;
}

/* ---- the ring ---- */

static int store_oldest(struct move *m, struct error *e)
{
	struct slot *s = &m->ring[m->head];
	int err;

	if (s->zero) {
		err = snap_writer_zero(m->writer, s->first, s->count, e);
	} else {
		err = view_reader_wait(m->reader, &s->read, e);
		m->u->lost = err == -ENOENT;
		if (!err)
			err = snap_writer_put(m->writer, s->first, s->read.data, s->read.len_bytes, e);
	}
	m->head = (m->head + 1) % READS;
	m->used--;
	sc_progress(m->sc, m->u->snapshot, s->first + s->count, m->chunks, 0);
	return err;
}

static int next_slot(struct move *m, struct slot **ret, struct error *e)
{
	int err = m->used == READS ? store_oldest(m, e) : 0;

	*ret = &m->ring[(m->head + m->used) % READS];
	m->used++;
	return err;
}

static int tell_zero(struct move *m, uint64_t chunk, struct error *e)
{
	struct slot *s = m->used ? &m->ring[(m->head + m->used - 1) % READS] : NULL;

	if (s && s->zero && s->first + s->count == chunk) {
		s->count++;
		return 0;
	}
	int err = next_slot(m, &s, e);
	s->zero = true;
	s->first = chunk;
	s->count = 1;
	return err;
}

static int tell_data(struct move *m, uint64_t chunk, struct error *e)
{
	uint64_t off = chunk * m->chunk_bytes;
	struct slot *s;
	int err = next_slot(m, &s, e);

	s->zero = false;
	s->first = chunk;
	s->count = 1;
	s->read = (struct view_read){ .off_bytes = off, .len_bytes = (uint32_t)MIN_OF((uint64_t)m->chunk_bytes, m->size_bytes - off),
				      .data = m->memory + (size_t)(s - m->ring) * m->chunk_bytes };
	if (err)
		return err;
	err = view_reader_send(m->reader, &s->read, e);
	m->u->lost = err == -ENOENT;
	return err;
}

/* ---- the whole ---- */

/* Extents are gathered into chunks: one that is touched by a change has changed, one with any data has data. */
static int walk(struct move *m, struct error *e)
{
	struct view_extent x[EXTENTS];
	bool changed = false, data = false;
	uint64_t off = 0;
	int err = 0;

	while (!err && off < m->size_bytes) {
		int n = view_reader_extents(m->reader, off, m->size_bytes - off, x, EXTENTS, e);
		if (n < 0) {
			m->u->lost = n == -ENOENT;
			return n;
		}
		for (int i = 0; i < n && !err; i++) {
			for (uint64_t left = x[i].len_bytes; left && !err;) {
				uint64_t chunk = off / m->chunk_bytes, end = MIN_OF((chunk + 1) * m->chunk_bytes, m->size_bytes);
				uint64_t part = MIN_OF(left, end - off);
				changed |= x[i].changed;
				data |= !x[i].zero;
				off += part;
				left -= part;
				if (off < end)
					continue;
				if (m->u->all || changed)
					err = data ? tell_data(m, chunk, e) : tell_zero(m, chunk, e);
				changed = data = false;
			}
		}
		if (m->u->snapshot->cancel)
			err = -ECANCELED;
		sc_progress(m->sc, m->u->snapshot, m->used ? m->ring[m->head].first : off / m->chunk_bytes, m->chunks, 0);
	}
	while (!err && m->used)
		err = store_oldest(m, e);
	return err;
}

static void hold(struct move *m, struct view_reader *reader, struct snap_writer *writer)
{
	pthread_mutex_lock(&m->sc->lock);
	m->u->snapshot->reader = reader;
	m->u->snapshot->writer = writer;
	if (m->u->snapshot->cancel && writer)
		snap_writer_cancel(writer);
	pthread_mutex_unlock(&m->sc->lock);
}

static int move(struct move *m, struct error *e)
{
	m->chunk_bytes = snap_writer_chunk_bytes(m->writer);
	m->chunks = snap_writer_chunks(m->writer);
	m->memory = malloc((size_t)READS * m->chunk_bytes);
	if (!m->memory)
		abort();
	if (m->chunk_bytes > VIEW_READ_MAX)
		return error_set(e, "InternalError", "the parent's chunks of %u bytes are too long", m->chunk_bytes);
	int err = walk(m, e);
	return err ? err : snap_writer_commit(m->writer, &m->u->stored, e);
}

int sc_upload(struct sc *sc, struct sc_upload *u, struct error *e)
{
	struct move m = { .sc = sc, .u = u };
	struct snap_store *store = sc_store(sc, e);

	if (!store)
		return -EREMOTEIO;
	u->lost = false;
	int err = view_reader_open(u->view->socket, u->view->export_name, &m.reader, e);
	if (err) {
		u->lost = err == -ENOENT;
		return err;
	}
	m.size_bytes = view_reader_size(m.reader);
	if (!view_reader_tells_changes(m.reader))
		u->all = true;
	struct snap_writer_config c = { .snapshot = u->id, .volume = u->volume, .parent = u->parent, .size_bytes = m.size_bytes, .resume = true,
					.encrypted = u->encrypted };
	err = snap_writer_begin(store, &c, &m.writer, e);
	if (err == -EEXIST) { /* a predecessor could not say that it had done it */
		err = sc_find_stored(store, u->id, &u->stored, e);
		view_reader_close(m.reader);
		return err;
	}
	if (!err) {
		hold(&m, m.reader, m.writer);
		err = move(&m, e);
		hold(&m, NULL, NULL);
	}
	snap_writer_free(m.writer);
	view_reader_close(m.reader);
	free(m.memory);
	if (u->snapshot->cancel && err) {
		u->lost = false;
		return -ECANCELED;
	}
	return err;
}
