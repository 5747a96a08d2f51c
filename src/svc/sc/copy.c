/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A copy of a snapshot that shares nothing with it: an encrypted one of a plain one. (Other copies are children without changes.) All
 * of it is read and stored again.
 */
#include <semaphore.h>
#include <stdlib.h>

#include "svc/sc/sc_priv.h"
#include "svc/sc/snap_reader.h"

static void read_done(struct snap_read *read)
{
	sem_post(read->ctx);
}

static int read_chunk(struct snap_reader *r, uint64_t off, void *data, size_t len, struct error *e)
{
	struct iovec iov = { data, len };
	char problem[512];
	sem_t ended;
	struct snap_read read = { .off_bytes = off, .len_bytes = len, .iov = &iov, .iov_count = 1, .done = read_done, .ctx = &ended };

	sem_init(&ended, 0, 0);
	if (!snap_reader_read(r, &read))
		sem_wait(&ended);
	sem_destroy(&ended);
	if (!read.result)
		return 0;
	snap_reader_last_problem(r, problem);
	return error_set(e, "InternalError", "%.400s", problem);
}

static int copy_all(struct sc *sc, struct sc_snapshot *s, struct snap_reader *r, struct snap_writer *w, struct error *e)
{
	uint64_t size = snap_reader_size(r), chunks = snap_writer_chunks(w), chunk_bytes = snap_writer_chunk_bytes(w);
	void *data = malloc(chunk_bytes);
	int err = 0;

	if (!data)
		abort();
	for (uint64_t i = 0; i < chunks && !err; i++) {
		uint64_t off = i * chunk_bytes, len = MIN_OF(chunk_bytes, size - off);
		bool zero;

		if (snap_reader_extent(r, off, len, &zero) == len && zero)
			continue; /* without a parent what is not told is zero */
		err = read_chunk(r, off, data, len, e);
		if (!err)
			err = snap_writer_put(w, i, data, len, e);
		if (s->cancel)
			err = -ECANCELED;
		sc_progress(sc, s, i, chunks, 0);
	}
	free(data);
	return err;
}

static void hold(struct sc *sc, struct sc_snapshot *s, struct snap_writer *w)
{
	pthread_mutex_lock(&sc->lock);
	s->writer = w;
	if (s->cancel && w)
		snap_writer_cancel(w);
	pthread_mutex_unlock(&sc->lock);
}

int sc_copy(struct sc *sc, struct sc_snapshot *s, const char *id, const char *source, struct snap_info *ret, struct error *e)
{
	struct snap_reader_config rc = { .snapshot = source };
	struct snap_store *store = sc_store(sc, e);
	struct snap_reader *r = NULL;
	struct snap_writer *w = NULL;
	int err = store ? snap_reader_open(store, &rc, &r, e) : -EREMOTEIO;

	if (err)
		return err;
	struct snap_writer_config wc = { .snapshot = id, .size_bytes = snap_reader_size(r), .resume = true, .encrypted = true };
	err = snap_writer_begin(store, &wc, &w, e);
	if (!err) {
		hold(sc, s, w);
		err = copy_all(sc, s, r, w, e);
		if (!err)
			err = snap_writer_commit(w, ret, e);
		hold(sc, s, NULL);
	}
	snap_writer_free(w);
	snap_reader_close(r);
	return err;
}
