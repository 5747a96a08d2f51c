/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_WRITER_PRIV_H
#define MALLEE_OBJECT_WRITER_PRIV_H

#include "object/store_priv.h"

/* What a writer has written, ready to be named by metadata. */
struct writer_blob {
	enum blob_kind kind;
	int64_t number;
	uint64_t size;
	const char *etag;
	const void *memory; /* BLOB_INLINE: the writer's own */
};
/* Makes the data durable (BLOB_FILE). */
int writer_seal(struct store_writer *w, struct arena *a, struct writer_blob *ret, struct error *e);
int writer_blob_insert(struct db_conn *c, const struct writer_blob *b, struct error *e);
/* The metadata names the data now, or may after a crash: freeing the writer leaves it. */
void writer_committed(struct store_writer *w);
struct store *writer_store(const struct store_writer *w);

#endif
