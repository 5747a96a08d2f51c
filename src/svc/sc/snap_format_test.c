/* SPDX-License-Identifier: Apache-2.0 */
/* The format: what is written is read again; what is cut, changed or made up is refused, whatever its checksum says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/text.h"
#include "svc/sc/snap_format_priv.h"
#include "svc/sc/testkit_priv.h"

static struct snap_page *some_page(uint64_t *seed, uint64_t index, unsigned chunks)
{
	struct snap_page *p = snap_page_new(index, chunks);

	for (unsigned i = 0; i < chunks; i++) {
		struct upload_id u = { "snap-x", bucket_random(seed) % 3 };
		struct snap_chunk_ref *c = &p->chunk[i];

		if (bucket_random(seed) % 4 == 0)
			continue;
		c->codec = bucket_random(seed) % 2 ? SNAP_RAW : SNAP_ZSTD;
		c->off = SNAP_PACK_HEADER + (uint32_t)(bucket_random(seed) % (1 << 24));
		c->len = 1 + (uint32_t)(bucket_random(seed) % 4096);
		c->sha[5] = (unsigned char)i;
		c->pack = snap_page_pack(p, &u, (uint32_t)(bucket_random(seed) % 20));
	}
	return p;
}

static struct snap_root *some_root(uint64_t *seed)
{
	struct snap_root *r = calloc(1, sizeof(*r));
	struct upload_id unused = { "snap-unused", 9 }, own = { "snap-a", 4 };

	snap_id_copy(r->id, "snap-a");
	snap_id_copy(r->volume, "vol-0123456789abcdef0");
	snap_id_copy(r->lineage, "snap-0");
	r->chunk_bytes = 4096;
	r->page_chunks = 64;
	r->size_bytes = 64 * 4096 * 29 + 512;
	r->time_ms = 1795341600000;
	r->page_count = 30;
	r->pages = calloc(30, sizeof(*r->pages));
	snap_root_upload(r, &unused);
	for (unsigned i = 0; i < 30; i++) {
		struct snap_page_ref *ref = &r->pages[i];
		struct snap_page *p;

		if (bucket_random(seed) % 3 == 0)
			continue;
		p = some_page(seed, i, 64);
		*ref = (struct snap_page_ref){ .stored = true, .upload = snap_root_upload(r, &own), .pack = i, .off = 16, .len = 100 };
		ref->sha[3] = (unsigned char)i;
		snap_page_ref_describe(r, ref, p);
		snap_page_free(p);
	}
	return r;
}

static void sign_again(struct buf *b)
{
	snap_sha256(b->data, b->len - SHA256_LEN, (unsigned char *)b->data + b->len - SHA256_LEN);
}

static void test_root(void **state)
{
	uint64_t seed = (uint64_t)time(NULL) | 1;

	print_message("seed %llu\n", (unsigned long long)seed);
	for (unsigned n = 0; n < 50; n++) {
		struct snap_root *r = some_root(&seed), *back;
		struct buf raw = BUF_INIT, again = BUF_INIT;
		struct packset a = PACKSET_INIT, b = PACKSET_INIT;

		snap_root_encode(r, &raw);
		assert_int_equal(snap_root_decode(raw.data, raw.len, "snap-a", &back, NULL), 0);
		snap_root_encode(back, &again);
		assert_int_equal(raw.len, again.len);
		assert_memory_equal(raw.data, again.data, raw.len);
		snap_root_packs(r, &a);
		snap_root_packs(back, &b);
		assert_int_equal(packset_size(&a), packset_size(&b));
		packset_subtract(&a, &b);
		assert_int_equal(packset_size(&a), 0);
		for (uint64_t i = 0; i < 64 * 30; i++)
			assert_int_equal(snap_root_present(r, i), snap_root_present(back, i));
		snap_root_free(back);
		/* another snapshot's, cut, changed */
		assert_int_equal(snap_root_decode(raw.data, raw.len, "snap-b", &back, NULL), -EBADMSG);
		for (unsigned i = 0; i < 50; i++)
			assert_int_equal(snap_root_decode(raw.data, bucket_random(&seed) % raw.len, "snap-a", &back, NULL), -EBADMSG);
		raw.data[bucket_random(&seed) % raw.len] ^= 1;
		assert_int_equal(snap_root_decode(raw.data, raw.len, "snap-a", &back, NULL), -EBADMSG);
		snap_root_free(r);
		buf_done(&raw);
		buf_done(&again);
		packset_done(&a);
		packset_done(&b);
	}
}

/* With a checksum that is right: nothing but the sanitizers and a sound result to go by. */
static void test_made_up_roots(void **state)
{
	uint64_t seed = (uint64_t)time(NULL) | 1;

	for (unsigned n = 0; n < 3000; n++) {
		struct snap_root *r = some_root(&seed), *back;
		struct buf raw = BUF_INIT;

		snap_root_encode(r, &raw);
		for (unsigned i = 0; i < 1 + n % 3; i++)
			raw.data[bucket_random(&seed) % (raw.len - SHA256_LEN)] = (char)bucket_random(&seed);
		if (n % 5 == 0)
			raw.len -= bucket_random(&seed) % 100;
		sign_again(&raw);
		if (snap_root_decode(raw.data, raw.len, "snap-a", &back, NULL) == 0) {
			for (uint64_t i = 0; i < back->page_count; i++) {
				assert_true(!back->pages[i].stored || back->pages[i].upload < back->upload_count);
				for (unsigned j = 0; j < back->pages[i].run_count; j++)
					assert_true(back->pages[i].runs[j].upload < back->upload_count);
			}
			snap_root_free(back);
		}
		snap_root_free(r);
		buf_done(&raw);
	}
}

static void test_versions_and_ciphers(void **state)
{
	uint64_t seed = 7;

	for (unsigned off = 8; off <= 16; off += 8) { /* version; cipher */
		struct snap_root *r = some_root(&seed), *back;
		struct buf raw = BUF_INIT;
		struct error e = { 0 };

		snap_root_encode(r, &raw);
		raw.data[off] = 2;
		sign_again(&raw);
		assert_int_equal(snap_root_decode(raw.data, raw.len, "snap-a", &back, &e), -EPROTONOSUPPORT);
		assert_string_equal(e.code, "UnsupportedOperation");
		snap_root_free(r);
		buf_done(&raw);
	}
}

/* Plain snapshots are what they were in the first release, to the byte. */
static void expect_digest(const struct buf *b, size_t len, const char *hex)
{
	unsigned char sha[SHA256_LEN], wanted[SHA256_LEN];

	assert_int_equal(b->len, len);
	assert_int_equal(hex_decode(hex, 2 * SHA256_LEN, wanted), 0);
	snap_sha256(b->data, b->len, sha);
	assert_memory_equal(sha, wanted, SHA256_LEN);
}

static void test_plain_bytes(void **state)
{
	struct upload_id u = { "snap-0123456789abcdef0", 42 }, parents = { "snap-b", 7 };
	struct snap_root *r = calloc(1, sizeof(*r));
	struct snap_page *p = snap_page_new(1, 8);
	struct snap_blob blobs[] = { { .kind = SNAP_BLOB_CHUNK, .codec = SNAP_RAW, .off = 16, .len = 5, .number = 1 },
				     { .kind = SNAP_BLOB_PAGE, .off = 21, .len = 4, .number = 2 } };
	struct buf b = BUF_INIT;

	for (unsigned i = 0; i < 5; i++) {
		p->chunk[i] = (struct snap_chunk_ref){ .codec = i % 2 ? SNAP_RAW : SNAP_ZSTD, .pack = snap_page_pack(p, i < 3 ? &u : &parents, i),
						       .off = 16 + 100 * i, .len = 4096 - i };
		memset(p->chunk[i].sha, (int)i, SHA256_LEN);
	}
	snap_page_encode(p, &b);
	expect_digest(&b, 299, "dc93aa6ae29d925d6d1331e1bce9d7af57266fe132141901c3a6a0c26f22ecf3");
	snap_id_copy(r->id, "snap-0123456789abcdef0");
	snap_id_copy(r->volume, "vol-1");
	snap_id_copy(r->parent, "snap-b");
	snap_id_copy(r->lineage, "snap-b");
	r->chunk_bytes = 4096;
	r->page_chunks = 8;
	r->size_bytes = 4096 * 30;
	r->time_ms = 1700000000123;
	r->data_chunks = 9;
	r->added_chunks = 3;
	r->added_bytes = 12345;
	r->page_count = 4;
	r->pages = calloc(4, sizeof(*r->pages));
	snap_root_upload(r, &parents);
	snap_root_upload(r, &u);
	r->pages[1] = (struct snap_page_ref){ .stored = true, .upload = 1, .pack = 3, .off = 16, .len = (uint32_t)b.len };
	snap_sha256(b.data, b.len, r->pages[1].sha);
	snap_page_ref_describe(r, &r->pages[1], p);
	buf_reset(&b);
	snap_root_encode(r, &b);
	expect_digest(&b, 240, "7e93af35049b81e9547746d85bc15fd40cbd4005714f9393666f07004616846a");
	snap_pack_begin(&b, false);
	buf_append(&b, "123456789", 9);
	snap_pack_finish(&b, blobs, 2, NULL, NULL);
	expect_digest(&b, 177, "63e774c587add342066aad04ec7e142f2566fe209db06142eba7921081566644");
	buf_reset(&b);
	snap_mark_encode("snap-a", &(struct snap_mark){ .parent = "snap-b", .time_ms = 77 }, &b);
	expect_digest(&b, 33, "7cac4850ad8e57a1916683889913d4e56312a3e24a9c91607262c023e87033d0");
	snap_page_free(p);
	snap_root_free(r);
	buf_done(&b);
}

static void test_page(void **state)
{
	uint64_t seed = (uint64_t)time(NULL) | 1;

	for (unsigned n = 0; n < 5000; n++) {
		struct snap_page *p = some_page(&seed, 5, 64), *back;
		struct buf raw = BUF_INIT;

		snap_page_encode(p, &raw);
		assert_int_equal(snap_page_decode(raw.data, raw.len, 5, 64, &back), 0);
		for (unsigned i = 0; i < 64; i++) {
			const struct snap_chunk_ref *a = &p->chunk[i], *b = &back->chunk[i];

			assert_int_equal(a->codec, b->codec);
			if (a->codec == SNAP_ZERO)
				continue;
			assert_true(a->off == b->off && a->len == b->len && !memcmp(a->sha, b->sha, SHA256_LEN));
			assert_true(p->packs[a->pack].number == back->packs[b->pack].number &&
				    upload_id_eq(&p->packs[a->pack].upload, &back->packs[b->pack].upload));
		}
		snap_page_free(back);
		assert_int_equal(snap_page_decode(raw.data, raw.len, 6, 64, &back), -EBADMSG);
		assert_int_equal(snap_page_decode(raw.data, raw.len, 5, 128, &back), -EBADMSG);
		assert_int_equal(snap_page_decode(raw.data, raw.len - 1, 5, 64, &back), -EBADMSG);
		raw.data[bucket_random(&seed) % raw.len] = (char)bucket_random(&seed);
		if (snap_page_decode(raw.data, raw.len, 5, 64, &back) == 0) {
			for (unsigned i = 0; i < 64; i++)
				assert_true(back->chunk[i].codec == SNAP_ZERO || back->chunk[i].pack < back->pack_count);
			snap_page_free(back);
		}
		snap_page_free(p);
		buf_done(&raw);
	}
}

static void test_full_page_of_a_thousand_packs(void **state)
{
	struct snap_page *p = snap_page_new(0, 1024), *back;
	struct buf raw = BUF_INIT;

	for (unsigned round = 0; round < 30; round++) { /* tables are made small again */
		for (unsigned i = 0; i < 1024; i++) {
			struct upload_id u = { "snap-0123456789abcdef0", i };
			uint16_t pack = snap_page_pack(p, &u, round);

			p->chunk[i] = (struct snap_chunk_ref){ .codec = SNAP_RAW, .pack = pack, .off = 16, .len = 4096 };
		}
	}
	snap_page_encode(p, &raw);
	assert_int_equal(p->pack_count, 1024);
	assert_int_equal(snap_page_decode(raw.data, raw.len, 0, 1024, &back), 0);
	assert_int_equal(back->packs[back->chunk[77].pack].upload.attempt, 77);
	snap_page_free(p);
	snap_page_free(back);
	buf_done(&raw);
}

static void test_pack_index(void **state)
{
	uint64_t seed = (uint64_t)time(NULL) | 1;
	struct snap_blob blobs[40], *back;
	struct buf pack = BUF_INIT;
	unsigned count;
	size_t need;

	snap_pack_begin(&pack, false);
	for (unsigned i = 0; i < 40; i++) {
		blobs[i] = (struct snap_blob){ .kind = SNAP_BLOB_CHUNK, .codec = SNAP_RAW, .off = (uint32_t)pack.len, .len = 9, .number = i };
		blobs[i].sha[0] = (unsigned char)i;
		buf_append(&pack, "123456789", 9);
	}
	snap_pack_finish(&pack, blobs, 40, NULL, NULL);
	const unsigned char *end = (const unsigned char *)pack.data + pack.len;
	assert_int_equal(snap_pack_index(end - 48, 48, pack.len, NULL, NULL, &back, &count, &need), -EAGAIN);
	assert_int_equal(snap_pack_index(end - need, need, pack.len, NULL, NULL, &back, &count, &need), 0);
	assert_int_equal(count, 40);
	assert_true(back[7].number == 7 && back[7].off == blobs[7].off && back[7].len == 9 && back[7].sha[0] == 7);
	free(back);
	assert_int_equal(snap_pack_index(end - need, need, pack.len + 1, NULL, NULL, &back, &count, &need), -EBADMSG);
	for (unsigned i = 0; i < 2000; i++) {
		size_t at = pack.len - 1 - bucket_random(&seed) % (40 * SNAP_BLOB_LEN + SNAP_PACK_FOOTER);
		char was = pack.data[at];

		pack.data[at] ^= (char)(1 << i % 8);
		int r = snap_pack_index((const unsigned char *)pack.data, pack.len, pack.len, NULL, NULL, &back, &count, &need);
		assert_int_equal(r, -EBADMSG);
		pack.data[at] = was;
	}
	buf_done(&pack);
}

static void test_keys(void **state)
{
	struct upload_id u = { "snap-0123456789abcdef0", 0xfedcba9876543210 }, back;
	char key[SNAP_KEY_MAX];
	uint32_t number;
	static const char *const bad[] = { "packs/", "packs/a/", "packs/a/0123456789abcdef/0000000", "packs/a/0123456789abcdef/0000000g",
					   "packs//0123456789abcdef/00000000", "packs/A/0123456789abcdef/00000000",
					   "snapshots/a/0123456789abcdef/00000000", "packs/a/0123456789abcdef/000000000" };

	snap_pack_key(&u, 42, key);
	assert_string_equal(key, "packs/snap-0123456789abcdef0/fedcba9876543210/0000002a");
	assert_int_equal(snap_parse_pack_key(key, &back, &number), 0);
	assert_true(upload_id_eq(&u, &back) && number == 42);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++)
		assert_int_equal(snap_parse_pack_key(bad[i], &back, &number), -EINVAL);
	assert_false(snap_id_ok("") || snap_id_ok("a/b") || snap_id_ok("0123456789012345678901234567890123"));
}

static void test_compression(void **state)
{
	uint64_t seed = 99;
	unsigned char in[8192], out[8192], back[8192];
	struct snap_packer *p = snap_packer_new();

	memset(in, 'a', sizeof(in));
	size_t n = snap_compress(p, in, sizeof(in), out);
	assert_true(n > 0 && n < 100);
	assert_int_equal(snap_decompress(SNAP_ZSTD, out, n, back, sizeof(back)), 0);
	assert_memory_equal(in, back, sizeof(in));
	assert_int_equal(snap_decompress(SNAP_ZSTD, out, n - 1, back, sizeof(back)), -EBADMSG);
	assert_int_equal(snap_decompress(SNAP_ZSTD, out, n, back, sizeof(back) - 1), -EBADMSG);
	assert_int_equal(snap_decompress(SNAP_RAW, out, n, back, sizeof(back)), -EBADMSG);
	for (unsigned i = 0; i < sizeof(in); i++)
		in[i] = (unsigned char)(bucket_random(&seed) >> 13);
	assert_int_equal(snap_compress(p, in, sizeof(in), out), 0);
	snap_packer_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_root),	cmocka_unit_test(test_made_up_roots),
		cmocka_unit_test(test_page),	cmocka_unit_test(test_full_page_of_a_thousand_packs),
		cmocka_unit_test(test_keys),	cmocka_unit_test(test_versions_and_ciphers),
		cmocka_unit_test(test_plain_bytes),
		cmocka_unit_test(test_pack_index), cmocka_unit_test(test_compression),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
