/* SPDX-License-Identifier: Apache-2.0 */
#include "object/test_util_priv.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include "base/clock.h"

/*
 * A child writes, overwrites, deletes and completes uploads on several threads and is killed at a
 * random moment, again and again on the same store. It notes in shared memory, which outlives it,
 * what it is about to do to a key and what was acknowledged. After each death the parent opens the
 * store: every key is as acknowledged, or as the one operation that was under way would have made
 * it, whole; and no data file is there that no object needs.
 */
#define ROUNDS 300
#define MIN_ROUNDS 50
#define MAX_MS 15000 /* on a slow machine fewer rounds have to do */
#define THREADS 3
#define KEYS 4 /* of each thread */
#define PART STORE_PART_MIN

struct version {
	bool exists;
	uint64_t size, seed;
};
struct note {
	struct version acknowledged, intended;
	atomic_bool under_way;
};
struct notes {
	struct note keys[THREADS][KEYS];
	atomic_uint done;
	atomic_bool opened; /* by this round's child */
};

struct child {
	struct store *s;
	int64_t bucket;
	struct notes *notes;
	unsigned thread, seed;
};

static void key_name(unsigned thread, unsigned key, char out[static 32])
{
	snprintf(out, 32, "t%u/k%u", thread, key);
}

static int put_multipart(struct child *c, struct arena *a, const char *key, uint64_t size,
			 uint64_t seed)
{
	_cleanup_(store_writer_freep) struct store_writer *w1 = NULL, *w2 = NULL;
	char id[STORE_UPLOAD_ID_LEN];
	unsigned char *data = malloc(size);
	struct store_part p1, p2;
	struct store_object o;
	const struct store_pairs none = {0};
	struct error e = {0};
	int r = store_upload_create(c->s, c->bucket, key, &none, id, &e);

	pattern_fill(data, size, 0, seed);
	if (r >= 0 && (r = store_writer_new(c->s, PART, 0, &w1, &e)) >= 0 &&
	    (r = store_writer_write(w1, data, PART, &e)) >= 0 &&
	    (r = store_writer_commit_part(w1, a, c->bucket, key, id, 1, &none, &p1, &e)) >= 0 &&
	    (r = store_writer_new(c->s, size - PART, 0, &w2, &e)) >= 0 &&
	    (r = store_writer_write(w2, data + PART, size - PART, &e)) >= 0 &&
	    (r = store_writer_commit_part(w2, a, c->bucket, key, id, 2, &none, &p2, &e)) >= 0) {
		struct store_part_ref refs[] = {{1, p1.etag}, {2, p2.etag}};
		struct store_complete done = {
		    .bucket = c->bucket, .key = key, .upload = id, .parts = refs, .part_count = 2};

		r = store_upload_complete(c->s, a, &done, &o, &e);
	}
	free(data);
	return r;
}

static int one_operation(struct child *c)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	unsigned k = (unsigned)rand_r(&c->seed) % KEYS, what = (unsigned)rand_r(&c->seed) % 20;
	struct note *n = &c->notes->keys[c->thread][k];
	struct error e = {0};
	char key[32];
	int r;

	key_name(c->thread, k, key);
	n->intended = (struct version){.exists = what > 2, .seed = (uint64_t)rand_r(&c->seed)};
	if (what == 19)
		n->intended.size = PART + (unsigned)rand_r(&c->seed) % 100000;
	else if (n->intended.exists)
		n->intended.size = (unsigned)rand_r(&c->seed) % (what % 2 ? 1000 : 200000);
	atomic_store(&n->under_way, true);
	if (what <= 2)
		r = store_objects_delete(c->s, c->bucket, (const char *[]){key}, 1, NULL, &e);
	else if (what == 19)
		r = put_multipart(c, a, key, n->intended.size, n->intended.seed);
	else
		r = pattern_put(c->s, a, c->bucket, key, n->intended.size, n->intended.seed,
				(struct store_condition){0}, &e);
	if (r < 0)
		return r;
	n->acknowledged = n->intended;
	atomic_store(&n->under_way, false);
	atomic_fetch_add(&c->notes->done, 1);
	return 0;
}

static void *child_thread(void *ctx)
{
	while (one_operation(ctx) >= 0)
		;
	_exit(3); /* an operation failed: the parent tells it from a kill */
}

static void child_run(const char *dir, struct notes *notes, unsigned seed)
{
	struct child c[THREADS];
	struct arena *a = arena_new();
	struct store_bucket b;
	struct store *s;
	struct error e = {0};

	if (store_open(dir, &s, &e) < 0 || store_bucket_get(s, a, "bucket", &b, &e) < 0)
		_exit(2);
	atomic_store(&notes->opened, true);
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_t t;

		c[i] = (struct child){
		    .s = s, .bucket = b.id, .notes = notes, .thread = i, .seed = seed + i};
		pthread_create(&t, NULL, child_thread, &c[i]);
	}
	for (;;)
		pause();
}

static bool is_version(struct fixture *f, const char *key, const struct version *v)
{
	_cleanup_(store_reader_freep) struct store_reader *r = NULL;
	struct store_object o;
	struct error e = {0};

	if (store_object_open(f->s, f->a, f->b.id, key, &o, &r, &e) < 0)
		return !v->exists && strcmp(e.code, "NoSuchKey") == 0;
	return v->exists && o.size == v->size && pattern_read(r, 0, v->size, v->seed);
}

/* Settles each key's note to what is there. */
static void check(struct fixture *f, struct notes *notes)
{
	struct store_upload_list q = {.bucket = f->b.id, .max = 1000};
	struct store_upload_listing uploads;
	struct error e = {0};
	struct store_status status;
	int objects = 0;

	for (unsigned t = 0; t < THREADS; t++)
		for (unsigned k = 0; k < KEYS; k++) {
			struct note *n = &notes->keys[t][k];
			char key[32];

			key_name(t, k, key);
			if (!is_version(f, key, &n->acknowledged)) {
				if (!atomic_load(&n->under_way) ||
				    !is_version(f, key, &n->intended))
					fail_msg("%s is neither as acknowledged nor as intended",
						 key);
				n->acknowledged = n->intended;
			}
			atomic_store(&n->under_way, false);
			objects += n->acknowledged.exists;
		}
	assert_ok(&e, store_status(f->s, &status, &e));
	assert_int_equal(status.objects, objects);
	assert_ok(&e, store_upload_list(f->s, f->a, &q, &uploads, &e));
	for (size_t i = 0; i < uploads.upload_count; i++)
		assert_ok(&e, store_upload_abort(f->s, f->b.id, uploads.uploads[i].key,
						 uploads.uploads[i].id, &e));
	assert_true(fixture_files(f) <= 2 * objects);
}

/* Mostly some milliseconds into its work, at times while it still opens the store. */
static void let_it_run(struct notes *notes, unsigned *seed)
{
	bool while_opening = rand_r(seed) % 8 == 0;

	for (int i = 0; !while_opening && i < 50000 && !atomic_load(&notes->opened); i++)
		usleep(200);
	usleep((unsigned)rand_r(seed) % 15000);
}

static void test_kill(void **state)
{
	struct fixture *f = *state;
	struct notes *notes =
	    mmap(NULL, sizeof(*notes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int64_t until_ms = clock_mono_ms() + MAX_MS;
	unsigned seed = 20261122;
	struct error e = {0};
	int rounds = 0;

	assert_ptr_not_equal(notes, MAP_FAILED);
	for (; rounds < ROUNDS && (rounds < MIN_ROUNDS || clock_mono_ms() < until_ms); rounds++) {
		int status;

		store_close(TAKE_PTR(f->s));
		atomic_store(&notes->opened, false);
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0)
			child_run(f->dir, notes, seed + (unsigned)rounds * 16);
		let_it_run(notes, &seed);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status));
		assert_ok(&e, store_open(f->dir, &f->s, &e));
		check(f, notes);
	}
	print_message("%u operations acknowledged before %d kills\n", atomic_load(&notes->done),
		      rounds);
	assert_true(atomic_load(&notes->done) > (unsigned)rounds); /* else this tested nothing */
	munmap(notes, sizeof(*notes));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_kill, fixture_up, fixture_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
