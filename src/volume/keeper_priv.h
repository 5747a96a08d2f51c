/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_VOLUME_KEEPER_PRIV_H
#define MALLEE_VOLUME_KEEPER_PRIV_H

#include "volume/keeper.h"

/* What is on disk of a volume: RUN_DIR/ID/args. */
struct keeper_record {
	char id[65];
	uid_t uid;
	gid_t gid;
	char *args[KEEPER_ARGS_MAX + 1]; /* NULL-terminated, malloc()ed */
};

bool keeper_record_id_valid(const char *id);
int keeper_record_copy(const struct keeper_volume *v, struct keeper_record *ret, struct error *e);
bool keeper_record_equal(const struct keeper_record *a, const struct keeper_record *b);
void keeper_record_done(struct keeper_record *r);
/* Makes the folder, too. */
int keeper_record_write(const char *run_dir, const struct keeper_record *r, struct error *e);
int keeper_record_read(const char *run_dir, const char *id, struct keeper_record *ret, struct error *e);
/* The last line of a text file, cut to size; "" when there is none. */
void keeper_last_line(const char *path, char *out, size_t size);

#endif
