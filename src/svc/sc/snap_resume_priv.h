/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SNAP_RESUME_PRIV_H
#define MALLEE_SVC_SC_SNAP_RESUME_PRIV_H

#include "svc/sc/objects.h"
#include "svc/sc/snap_format_priv.h"

/* What earlier attempts at a snapshot have sent, out of the indexes of their packs. 80 bytes a chunk. */
struct snap_resume;
struct snap_sent {
	uint64_t number; /* chunk */
	struct upload_id upload;
	uint32_t pack, off, len;
	uint8_t codec;
	unsigned char sha[SHA256_LEN];
};
/* Packs that are damaged or of nobody's are passed over. */
int snap_resume_load(struct objects *o, const char *snapshot, const struct snap_cipher *cipher /* NULL: plain */, struct snap_resume **ret,
		     struct error *e);
void snap_resume_free(struct snap_resume *r);
const struct snap_sent *snap_resume_find(const struct snap_resume *r, uint64_t chunk, const unsigned char sha[static SHA256_LEN]);

#endif
