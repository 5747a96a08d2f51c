/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A raw disk image of Walrus becomes a snapshot: streamed, cut into chunks, zero ones left out. What is seen of it decides: its
 * length, its first bytes, and in the end its SHA-256.
 */
#include <gnutls/crypto.h>
#include <gnutls/gnutls.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "svc/sc/sc_priv.h"
#include "svc/sc/snap_format_priv.h"

struct stream {
	struct sc *sc;
	struct sc_import *m;
	struct http_exchange *x;
	struct snap_store *store;
	struct snap_writer *writer; /* NULL until the first bytes are there */
	gnutls_hash_hd_t hash;
	char *chunk;
	size_t have;                /* bytes in chunk */
	uint64_t done, size_bytes;
	struct buf said;            /* the beginning of an error's reply */
	int err;
	struct error *e;
};

static int refuse(struct stream *s, const char *why)
{
	s->m->hopeless = true;
	return error_set(s->e, "ClientError", "ClientError: %s", why);
}

/* Formats that tell themselves apart by their first bytes. */
static const char *why_not_raw(const unsigned char *head, size_t len)
{
	static const struct {
		const char *magic;
		size_t len;
		const char *why;
	} formats[] = {
		{ "QFI\xfb", 4, "The object is a qcow2 file: convert it to a raw disk image (qemu-img convert -O raw)" },
		{ "KDMV", 4, "The object is a VMDK file: convert it to a raw disk image (qemu-img convert -O raw)" },
		{ "# Disk DescriptorFile", 21, "The object is a VMDK descriptor: convert the disk to a raw image (qemu-img convert -O raw)" },
		{ "conectix", 8, "The object is a VHD file: convert it to a raw disk image (qemu-img convert -O raw)" },
		{ "vhdxfile", 8, "The object is a VHDX file: convert it to a raw disk image (qemu-img convert -O raw)" },
		{ "\x1f\x8b", 2, "The object is compressed by gzip: upload the raw disk image" },
		{ "\xfd" "7zXZ", 5, "The object is compressed by xz: upload the raw disk image" },
		{ "\x28\xb5\x2f\xfd", 4, "The object is compressed by zstd: upload the raw disk image" },
		{ "BZh", 3, "The object is compressed by bzip2: upload the raw disk image" },
		{ "PK\x03\x04", 4, "The object is a ZIP archive (an OVA, perhaps): upload the raw disk image" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		if (len >= formats[i].len && memcmp(head, formats[i].magic, formats[i].len) == 0)
			return formats[i].why;
	}
	return NULL;
}

static void hold(struct stream *s, struct http_client *http, struct snap_writer *writer)
{
	pthread_mutex_lock(&s->sc->lock);
	s->m->snapshot->http = http;
	s->m->snapshot->writer = writer;
	if (s->m->snapshot->cancel && http)
		http_client_cancel(http);
	if (s->m->snapshot->cancel && writer)
		snap_writer_cancel(writer);
	pthread_mutex_unlock(&s->sc->lock);
}

static int check_length(struct stream *s)
{
	if (s->x->reply_len < 0)
		return error_set(s->e, "ServiceUnavailable", "Walrus does not say how long the object is");
	if (s->x->reply_len < 1024)
		return refuse(s, "The object is too short for a disk image");
	if (s->x->reply_len % 512)
		return refuse(s, "The object is not a whole number of 512-byte sectors: it is no raw disk image");
	s->size_bytes = (uint64_t)s->x->reply_len;
	return s->size_bytes > SNAP_SIZE_MAX ? refuse(s, "The object is longer than a snapshot may be") : 0;
}

static int begin(struct stream *s)
{
	struct snap_writer_config c = { .snapshot = s->m->id, .size_bytes = s->size_bytes, .resume = true, .encrypted = s->m->encrypted };
	struct snap_writer *w;
	int err = snap_writer_begin(s->store, &c, &w, s->e);

	if (err)
		return err;
	s->writer = w;
	pthread_mutex_lock(&s->sc->lock);
	s->m->snapshot->writer = w;
	pthread_mutex_unlock(&s->sc->lock);
	sc_progress(s->sc, s->m->snapshot, 0, 1, s->size_bytes);
	return 0;
}

static int store_chunk(struct stream *s)
{
	uint64_t number = (s->done - s->have) / SNAP_CHUNK_BYTES;
	const char *why = s->writer ? NULL : why_not_raw((unsigned char *)s->chunk, s->have);
	int err = why ? refuse(s, why) : 0;

	if (!err && !s->writer)
		err = begin(s);
	if (!err)
		err = snap_writer_put(s->writer, number, s->chunk, s->have, s->e);
	s->have = 0;
	sc_progress(s->sc, s->m->snapshot, s->done, s->size_bytes, 0);
	return err;
}

static int take(struct stream *s, const char *data, size_t len)
{
	int err = s->size_bytes ? 0 : check_length(s);

	if (!err && len > s->size_bytes - s->done)
		err = error_set(s->e, "ServiceUnavailable", "Walrus sends more than it said");
	if (!err)
		gnutls_hash(s->hash, data, len);
	while (!err && len) {
		size_t part = MIN_OF(len, SNAP_CHUNK_BYTES - s->have);
		memcpy(s->chunk + s->have, data, part);
		s->have += part;
		s->done += part;
		data += part;
		len -= part;
		if (s->have == SNAP_CHUNK_BYTES || s->done == s->size_bytes)
			err = store_chunk(s);
	}
	return err;
}

static int on_data(void *ctx, const void *data, size_t len)
{
	struct stream *s = ctx;

	if (s->x->status != 200) {
		if (s->said.len < 1024)
			buf_append(&s->said, data, MIN_OF(len, (size_t)1024));
		return 0;
	}
	s->err = take(s, data, len);
	return s->err || s->m->snapshot->cancel ? -1 : 0;
}

/* An error reply of S3 is XML with a <Code>; that word says more than the status. */
static int bad_status(struct stream *s)
{
	int status = s->x->status;
	char code[64] = "";
	const char *at = s->said.data ? strstr(s->said.data, "<Code>") : NULL;

	if (at)
		sscanf(at, "<Code>%63[A-Za-z0-9.]", code);
	/* A signature may have run out: the cloud controller may send another. */
	s->m->hopeless = status >= 400 && status < 500 && status != 403 && status != 408 && status != 429;
	return error_set(s->e, "ClientError", "ClientError: The object cannot be read: Walrus answers %d %s", status, code);
}

static int check_sum(struct stream *s)
{
	unsigned char digest[32];
	char hex[65];

	gnutls_hash_output(s->hash, digest);
	hex_encode(digest, sizeof(digest), hex);
	if (!s->m->sha256 || str_eq(hex, s->m->sha256))
		return 0;
	s->m->hopeless = true;
	return error_set(s->e, "ClientError", "ClientError: The object is another than the one that was named: its SHA-256 is %s, not %s", hex,
			 s->m->sha256);
}

static int finish(struct stream *s, int err, struct error *http_error)
{
	if (s->err)
		return s->err;
	if (err) {
		if (!error_is_set(s->e))
			*s->e = *http_error;
		return err;
	}
	if (s->x->status != 200)
		return bad_status(s);
	if (!s->size_bytes)
		return refuse(s, "The object is empty");
	if (s->done < s->size_bytes)
		return error_set(s->e, "ServiceUnavailable", "Walrus sent less than it said");
	err = check_sum(s);
	return err ? err : snap_writer_commit(s->writer, &s->m->stored, s->e);
}

int sc_import(struct sc *sc, struct sc_import *m, struct error *e)
{
	struct http_exchange x = { .method = "GET", .url = m->url, .timeout_ms = -1, .on_data = on_data };
	struct stream s = { .sc = sc, .m = m, .x = &x, .e = e };
	struct http_client *http = NULL;
	struct error why = { 0 };

	s.store = sc_store(sc, e);
	if (!s.store)
		return -EREMOTEIO;
	int err = sc_find_stored(s.store, m->id, &m->stored, e); /* by a predecessor that could not say so any more */
	if (err != -ENOENT)
		return err;
	if (http_client_new(NULL, &http) || gnutls_hash_init(&s.hash, GNUTLS_DIG_SHA256) < 0 || !(s.chunk = malloc(SNAP_CHUNK_BYTES)))
		abort();
	x.on_data_ctx = &s;
	hold(&s, http, NULL);
	err = http_client_do(http, &x, &why);
	err = finish(&s, err, &why);
	hold(&s, NULL, NULL);
	snap_writer_free(s.writer);
	http_client_free(http);
	gnutls_hash_deinit(s.hash, NULL);
	buf_done(&s.said);
	buf_done(&x.reply);
	free(s.chunk);
	return m->snapshot->cancel && err ? -ECANCELED : err;
}
