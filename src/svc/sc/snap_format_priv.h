/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_SC_SNAP_FORMAT_PRIV_H
#define MALLEE_SVC_SC_SNAP_FORMAT_PRIV_H

#include "base/buf.h"
#include "base/error.h"
#include "svc/sc/packset.h"
#include "svc/sc/snap_cipher_priv.h"

/*
 * How a snapshot lies in its bucket (README.md tells the whole): numbers are little-endian or varints (LEB128), every object
 * has a magic and is covered by SHA-256. What comes from the bucket is checked here, once: a decoded root or page is sound
 * (indexes in range, lengths within limits), though not necessarily true.
 */
#define SNAP_CHUNK_BYTES (512u << 10)   /* what we write: a block of the EBS direct API */
#define SNAP_CHUNK_MIN (4u << 10)
#define SNAP_CHUNK_MAX (4u << 20)
#define SNAP_PAGE_CHUNKS 1024u          /* chunks that one page tells of */
#define SNAP_PAGE_CHUNKS_MAX 4096u
#define SNAP_PACK_BYTES (16u << 20)
#define SNAP_PACK_MAX (64u << 20)       /* as long as any we read */
#define SNAP_SIZE_MAX (UINT64_C(64) << 40)
#define SNAP_PAGES_MAX (1u << 20)
#define SNAP_ROOT_MAX (64u << 20)
#define SNAP_UPLOADS_MAX 65535u
#define SNAP_READ_ATTEMPTS 3            /* before what comes damaged is held to be damaged */
#define SHA256_LEN 32

static inline void snap_error_clear(struct error *e)
{
	if (e)
		error_clear(e);
}
void snap_sha256(const void *data, size_t len, unsigned char out[static SHA256_LEN]);
bool snap_all_zero(const void *data, size_t len);
/* Ids as they go into keys: letters, digits, hyphens. */
bool snap_id_ok(const char *id);
void snap_id_copy(char out[static ID_LEN], const char *id); /* "", or one that is ok */

/* ---- keys ---- */
#define SNAP_ROOTS "snapshots/"
#define SNAP_PACKS "packs/"
#define SNAP_MARKS "uploads/"
#define SNAP_KEY_MAX 128
void snap_root_key(const char *snapshot, char out[static SNAP_KEY_MAX]);
void snap_mark_key(const char *snapshot, char out[static SNAP_KEY_MAX]);
void snap_pack_key(const struct upload_id *u, uint32_t number, char out[static SNAP_KEY_MAX]);
int snap_parse_pack_key(const char *key, struct upload_id *ret, uint32_t *ret_number); /* -EINVAL: none of ours */

/* ---- chunks ---- */
enum snap_codec { SNAP_ZERO, SNAP_RAW, SNAP_ZSTD };

/* Stored form into out (room for len): its length, or 0 when compressing does not pay (store it as it is). */
struct snap_packer; /* a compressor: one thread at a time */
struct snap_packer *snap_packer_new(void);
void snap_packer_free(struct snap_packer *p);
size_t snap_compress(struct snap_packer *p, const void *data, size_t len, void *out);
/* 0, or -EBADMSG unless exactly len bytes come out. */
int snap_decompress(enum snap_codec codec, const void *stored, size_t stored_len, void *out, size_t len);

/* ---- pages: where the chunks lie ---- */
struct snap_chunk_ref {
	uint8_t codec;       /* enum snap_codec; SNAP_ZERO: nothing else counts */
	uint16_t pack;       /* into the page's packs */
	uint32_t off, len;   /* in the pack */
	unsigned char sha[SHA256_LEN]; /* snap_digest() of the plain chunk, padded with zeroes to its full length */
};
struct snap_pack_ref {
	struct upload_id upload;
	uint32_t number;
};
struct snap_page {
	uint64_t index;
	unsigned chunks; /* room: the root's page_chunks */
	struct snap_pack_ref *packs;
	unsigned pack_count, pack_cap;
	struct snap_chunk_ref chunk[];
};
struct snap_page *snap_page_new(uint64_t index, unsigned chunks); /* all zero */
void snap_page_free(struct snap_page *p);
/* The index of that pack in p's table, added when it is new. A page never has more than it has chunks. */
uint16_t snap_page_pack(struct snap_page *p, const struct upload_id *u, uint32_t number);
void snap_page_compact(struct snap_page *p); /* drops packs that no chunk lies in */
void snap_page_encode(struct snap_page *p, struct buf *out);
int snap_page_decode(const void *data, size_t len, uint64_t index, unsigned chunks, struct snap_page **ret);
/* Same bytes: what a comparison of snapshots asks. */
bool snap_chunk_same(const struct snap_chunk_ref *a, const struct snap_chunk_ref *b);

/* ---- the root: the manifest object, over pages ---- */
struct snap_run {
	uint32_t upload; /* into the root's uploads */
	uint32_t first, count;
};
struct snap_page_ref {
	bool stored;             /* false: all its chunks are zero */
	uint32_t upload, pack;   /* where the page itself lies */
	uint32_t off, len;
	unsigned char sha[SHA256_LEN]; /* of what is stored */
	unsigned char *present;  /* bitmap: chunks that are not zero; NULL: all */
	struct snap_run *runs;   /* packs that its chunks lie in */
	unsigned run_count;
};
struct snap_root {
	bool abandoned;          /* a tombstone: this snapshot's upload was given up, and can never be committed */
	char id[ID_LEN], volume[ID_LEN], parent[ID_LEN] /* "": none */, lineage[ID_LEN];
	uint32_t chunk_bytes, page_chunks;
	uint64_t size_bytes;
	int64_t time_ms;
	uint64_t data_chunks;    /* not zero */
	uint64_t added_chunks, added_bytes; /* stored by this snapshot itself */
	struct upload_id *uploads;
	unsigned upload_count;
	struct snap_page_ref *pages;
	uint64_t page_count;
	/* snap_cipher_priv.h. One that was decoded has no cipher before snap_root_unlock(). */
	bool encrypted;
	char key_id[KEY_ID_LEN];
	unsigned char wrapped[SNAP_WRAPPED];
	unsigned char said[SHA256_LEN], mac[SHA256_LEN]; /* of what was decoded */
	struct snap_cipher *cipher;
};
/* Wraps key for r, and makes its cipher. */
int snap_root_lock(struct snap_root *r, struct keys *k, const unsigned char key[static SNAP_KEY_BYTES], struct error *e);
/* What was wrapped by an earlier snap_root_lock() of r, or of one of its lineage. */
int snap_root_unwrap(const struct snap_root *r, struct keys *k, const char *key_id, const unsigned char *wrapped, unsigned char *key,
		     struct error *e);
/* Makes the cipher of one that is encrypted, out of key (NULL: what k unwraps), and checks that all it says is authentic. k may be NULL.
 * -ENOKEY, -EKEYREJECTED: no such master key, or not the right one; -EBADMSG. 0 also when it is not encrypted. */
int snap_root_unlock(struct snap_root *r, struct keys *k, const unsigned char *key, struct error *e);
void snap_root_free(struct snap_root *r);
DEFINE_CLEANUP(struct snap_root *, snap_root_free, snap_root_freep)
bool snap_root_shape_ok(const struct snap_root *r); /* sizes within limits: asked before anything else below */
uint64_t snap_root_chunks(const struct snap_root *r);
unsigned snap_page_ref_chunks(const struct snap_root *r, uint64_t page); /* fewer on the last */
bool snap_root_present(const struct snap_root *r, uint64_t chunk); /* not zero */
void snap_page_ref_done(struct snap_page_ref *p);
void snap_page_ref_copy(struct snap_page_ref *to, const struct snap_page_ref *from);
/* A stored page's present bits and runs out of the page; upload indexes by root, which gets those that it lacks. */
void snap_page_ref_describe(struct snap_root *r, struct snap_page_ref *ref, const struct snap_page *p);
uint32_t snap_root_upload(struct snap_root *r, const struct upload_id *u);
void snap_root_packs(const struct snap_root *r, struct packset *add_to);
void snap_root_encode(const struct snap_root *r, struct buf *out); /* uploads that nothing refers to are left out */
/* -EBADMSG: damaged; -EPROTONOSUPPORT: of a version or cipher that we do not know. */
int snap_root_decode(const void *data, size_t len, const char *id, struct snap_root **ret, struct error *e);

/* ---- packs: blobs, and what they are (for resuming, and for finding things again without manifests) ---- */
enum snap_blob_kind { SNAP_BLOB_CHUNK = 1, SNAP_BLOB_PAGE = 2 };
struct snap_blob {
	enum snap_blob_kind kind;
	uint8_t codec;
	uint32_t off, len;
	uint64_t number; /* of the chunk or the page */
	unsigned char sha[SHA256_LEN];
};
#define SNAP_PACK_HEADER 16
#define SNAP_BLOB_LEN 52
#define SNAP_PACK_FOOTER 48
#define SNAP_PACK_INDEX 3 /* the kind of an index, where that is encrypted */
void snap_pack_begin(struct buf *pack, bool encrypted);
/* at: which pack it is; c NULL: a plain one. */
void snap_pack_finish(struct buf *pack, const struct snap_blob *blobs, unsigned count, const struct snap_cipher *c,
		      const struct snap_pack_ref *at);
/* The index out of a pack's last bytes, tail_len of them of a pack of size_bytes. -EBADMSG; -EAGAIN: *ret_need bytes of the end
 * are needed. *ret_blobs is malloc()ed. */
int snap_pack_index(const unsigned char *tail, size_t tail_len, uint64_t size_bytes, const struct snap_cipher *c,
		    const struct snap_pack_ref *at, struct snap_blob **ret_blobs, unsigned *ret_count, size_t *ret_need);

/* ---- marks: an upload that is under way ---- */
struct snap_mark {
	char parent[ID_LEN];    /* "": none */
	int64_t time_ms;
	char key_id[KEY_ID_LEN]; /* of an encrypted one without a parent; "": none */
	unsigned char wrapped[SNAP_WRAPPED];
};
#define SNAP_MARK_MAX 4096
void snap_mark_encode(const char *snapshot, const struct snap_mark *m, struct buf *out);
int snap_mark_decode(const char *data, size_t len, struct snap_mark *ret);

/* ---- numbers ---- */
struct snap_in { /* a reader that cannot leave its bytes; bad stays set */
	const unsigned char *at, *end;
	bool bad;
};
void snap_put_u32(struct buf *b, uint32_t v);
void snap_put_u64(struct buf *b, uint64_t v);
void snap_put_var(struct buf *b, uint64_t v);
void snap_put_text(struct buf *b, const char *s); /* at most 255 bytes */
const void *snap_get_bytes(struct snap_in *in, size_t len); /* NULL when bad */
uint32_t snap_get_u32(struct snap_in *in);
uint64_t snap_get_u64(struct snap_in *in);
uint64_t snap_get_var(struct snap_in *in, uint64_t max);
void snap_get_id(struct snap_in *in, bool may_be_empty, char out[static ID_LEN]);

#endif
