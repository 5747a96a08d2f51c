/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_VIEW_READER_H
#define MALLEE_SVC_SC_VIEW_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * An NBD client that reads a frozen view: what changed in it, what is zero, and the bytes, several reads at once. Other than the back
 * end `nbd` it never connects again: a view whose server died is gone. One thread; view_reader_cancel() from any.
 */
struct view_reader;

/* socket: a unix socket's path. -ENOENT: nobody serves it there any more, or not this view. */
int view_reader_open(const char *socket, const char *export_name, struct view_reader **ret, struct error *e);
void view_reader_close(struct view_reader *r); /* NULL is fine */
uint64_t view_reader_size(const struct view_reader *r);
bool view_reader_tells_changes(const struct view_reader *r); /* else all counts as changed */

struct view_extent {
	uint64_t len_bytes;
	bool changed, zero;
};
/* From off on, at most len: their number, or as below. */
int view_reader_extents(struct view_reader *r, uint64_t off_bytes, uint64_t len_bytes, struct view_extent *out, unsigned max, struct error *e);

#define VIEW_READ_MAX (4u << 20)
struct view_read { /* the caller's, in place until it was waited for */
	uint64_t off_bytes;
	uint32_t len_bytes;
	void *data;
	/* the reader's */
	uint64_t cookie;
	bool sent, done;
	int err;
	struct view_read *next;
};
/* -EIO: the view has failed, or the volume cannot be read; -ENOENT: its server has gone. */
int view_reader_send(struct view_reader *r, struct view_read *read, struct error *e);
int view_reader_wait(struct view_reader *r, struct view_read *read, struct error *e);
void view_reader_cancel(struct view_reader *r); /* what is under way ends soon, with -ENOENT */

#endif
