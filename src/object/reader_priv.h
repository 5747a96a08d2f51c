/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_READER_PRIV_H
#define MALLEE_OBJECT_READER_PRIV_H

#include "object/store_priv.h"

struct extent {
	uint64_t off; /* in the object */
	uint64_t len;
	int64_t file;
	enum blob_kind kind;
	const void *memory; /* BLOB_INLINE */
};

struct store_reader {
	struct store *s;
	struct arena *a;
	int64_t blob;
	uint64_t size;
	struct extent *extents;
	size_t count;
	bool multipart;
	bool pinned;
	/* The extent that was read last, and its open file. */
	size_t current;
	int fd;
};

#endif
