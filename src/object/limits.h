/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OBJECT_LIMITS_H
#define MALLEE_OBJECT_LIMITS_H

#include <stdint.h>

/* What a user can make, and how much of it. Bytes unless named otherwise. */
#define STORE_BUCKETS_PER_ACCOUNT 100
#define STORE_UPLOADS_PER_BUCKET 10000
#define STORE_KEY_MAX 1024		     /* a key, as UTF-8 */
#define STORE_META_MAX 2048		     /* user metadata: names and values together */
#define STORE_PUT_MAX (UINT64_C(5) << 30)    /* one PUT, one part */
#define STORE_OBJECT_MAX (UINT64_C(5) << 40) /* a completed multipart object */
#define STORE_PART_MIN (UINT64_C(5) << 20)   /* every part but the last */
#define STORE_PART_NUMBER_MAX 10000	     /* part numbers are 1 … this */
#define STORE_LIST_MAX 1000		     /* entries of one page of any listing */
#define STORE_DELETE_MAX 1000		     /* keys of one multi-object delete */

/* How we keep it. */
#define STORE_INLINE_MAX (32u << 10) /* smaller data lives in the database */
#define STORE_WRITEBACK_STEP                                                                       \
	(UINT64_C(8) << 20) /* written data is pushed to the disk this often                       \
			     */
/* Free space that uploads leave to the metadata: a sixteenth of the disk, within these. The
 * database's log grows to 4 MB, and moving it into the database takes as much again; so deleting
 * works on a full disk. */
#define STORE_RESERVE_MIN (UINT64_C(12) << 20)
#define STORE_RESERVE_MAX (UINT64_C(64) << 20)

#endif
