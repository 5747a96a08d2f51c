/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "block/filter/cow_testkit.h"
#include "block/filter/filter.h"
#include "block/filter/snap_priv.h"

#define CHUNK 4096u /* four regions */
#define CHUNKS (CK_BYTES / CHUNK)

static const struct blk_layer_ops *const drivers[] = { &blk_snap_ops, &ck_disk_ops, NULL };
static char folder[64], map[96], image[96], text[1024];

enum { VOLUME, AFTER };

static struct blk_stack *open_stack(const char *back, const char *path, unsigned queues)
{
	char spec[512];
	const char *filters[] = { spec, NULL };
	struct blk_stack_settings settings = { drivers, back, filters, queues, BLK_IO_AUTO };
	struct blk_stack *s = NULL;
	struct error e = { 0 };

	snprintf(spec, sizeof(spec), "snap:chunk=4k%s%s", path ? ",map=" : "", path ? path : "");
	if (blk_stack_open(&settings, &s, &e) || blk_stack_start(s, &e))
		fail_msg("%s: %s", spec, e.message);
	return s;
}

static void close_stack(struct blk_stack *s)
{
	struct error e = { 0 };

	if (blk_stack_close(s, &e))
		fail_msg("%s", e.message);
}

static void remove_maps(const char *path)
{
	char name[128];

	unlink(path);
	snprintf(name, sizeof(name), "%s.2", path);
	unlink(name);
}

static void make_disk(unsigned delay_us)
{
	ck_disk_init(VOLUME, CK_BYTES, delay_us);
	for (uint64_t i = 0; i < CK_SECTORS; i++) {
		ck_pattern(ck_disk[VOLUME].now + i * 512, i, 0);
		ck_pattern(ck_disk[VOLUME].durable + i * 512, i, 0);
	}
	ck_model_init(CK_SECTORS, CK_SECTORS);
	remove_maps(map);
}

/* Its answer is in `text`. */
static int command(struct blk_stack *s, const char *verb, const char *fmt, ...) _printf_(3, 4);
static int command(struct blk_stack *s, const char *verb, const char *fmt, ...)
{
	struct buf out = BUF_INIT;
	struct error e = { 0 };
	char args[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(args, sizeof(args), fmt, ap);
	va_end(ap);
	int err = blk_stack_command(s, "snap", verb, args, &out, &e);
	snprintf(text, sizeof(text), "%s", err ? e.message : out.data);
	buf_done(&out);
	return err;
}

static void begin(struct blk_stack *s, const char *name, const char *size)
{
	if (command(s, "begin", "name=%s,scratch=%s/scratch-%s,scratch-size=%s", name, folder, name, size))
		fail_msg("%s", text);
}

static void end(struct blk_stack *s, const char *name, const char *more)
{
	if (command(s, "end", "name=%s%s", name, more))
		fail_msg("%s", text);
}

static struct blk_layer *hold(struct blk_stack *s, const char *name)
{
	struct blk_layer *l = blk_stack_layer(s, "snap");
	struct error e = { 0 };
	struct blk_layer *view = l->ops->view(l, name, &e);

	assert_non_null(view);
	return view;
}

static void release(struct blk_stack *s, struct blk_layer *view)
{
	struct blk_layer *l = blk_stack_layer(s, "snap");

	l->ops->view_release(l, view);
}

static void changed_map(struct blk_layer *l, bool changed[CHUNKS])
{
	for (uint64_t off = 0; off < CK_BYTES;) {
		struct blk_extent out[3];
		int n = l->ops->extents(l, BLK_MAP_CHANGED, off, CK_BYTES - off, out, 3);
		assert_true(n >= 1 && n <= 3);
		for (int i = 0; i < n; i++) {
			for (uint64_t c = off / CHUNK; c < (off + out[i].len_bytes) / CHUNK; c++)
				changed[c] = out[i].kind == BLK_EXTENT_DATA;
			off += out[i].len_bytes;
		}
	}
	assert_true(CK_BYTES % CHUNK == 0);
}

static unsigned changed_count(struct blk_layer *l)
{
	bool changed[CHUNKS];
	unsigned n = 0;

	changed_map(l, changed);
	for (unsigned i = 0; i < CHUNKS; i++)
		n += changed[i];
	return n;
}

static void put(struct blk_stack *s, uint64_t sector, uint32_t version)
{
	uint8_t data[512];

	ck_pattern(data, sector, version);
	assert_int_equal(ck_io(s, NULL, BLK_WRITE, sector * 512, data, 512), 0);
}

static int64_t get(struct blk_stack *s, struct blk_layer *view, uint64_t sector)
{
	uint8_t data[512];

	assert_int_equal(ck_io(s, view, BLK_READ, sector * 512, data, 512), 0);
	return ck_version(data, sector);
}

#define PER (CHUNK / 512) /* sectors of a chunk */

static void test_epochs(void **state)
{
	make_disk(0);
	struct blk_stack *s = open_stack("ck:n=0", map, 1);
	struct blk_layer *l = blk_stack_layer(s, "snap");
	bool changed[CHUNKS];

	assert_int_equal(changed_count(l), CHUNKS); /* no base */
	begin(s, "one", "1M");
	put(s, 3 * PER + 5, 1);
	begin(s, "two", "1M");
	struct blk_layer *one = hold(s, "one"), *two = hold(s, "two");
	put(s, 3 * PER + 5, 2);
	put(s, 7 * PER, 1);
	assert_int_equal(ck_io(s, NULL, BLK_WRITE_ZEROES, 9 * CHUNK, NULL, 2 * CHUNK), 0);
	assert_int_equal(ck_io(s, NULL, BLK_DISCARD, 12 * CHUNK, NULL, 512), 0);
	assert_int_equal(get(s, one, 3 * PER + 5), 0);
	assert_int_equal(get(s, two, 3 * PER + 5), 1);
	assert_int_equal(get(s, NULL, 3 * PER + 5), 2);
	assert_int_equal(get(s, one, 7 * PER), 0);
	assert_int_equal(get(s, two, 10 * PER), 0);
	assert_int_equal(get(s, NULL, 10 * PER), -1);
	assert_int_equal(changed_count(one), CHUNKS);
	assert_true(command(s, "end", "name=one") < 0); /* it is held */
	release(s, one);
	end(s, "one", ",commit=on");
	assert_non_null(strstr(text, "\"base\":\"one\""));
	changed_map(two, changed); /* since one */
	assert_true(changed[3]);
	assert_int_equal(changed_count(two), 1);
	changed_map(l, changed);
	assert_true(changed[3] && changed[7] && changed[9] && changed[10] && changed[12]);
	assert_int_equal(changed_count(l), 5);
	begin(s, "three", "1M");
	put(s, 20 * PER, 1);
	struct blk_layer *three = hold(s, "three");
	assert_int_equal(changed_count(three), 5);
	release(s, two);
	release(s, three);
	end(s, "three", ""); /* given up: nothing is forgotten */
	end(s, "two", ",commit=on");
	changed_map(l, changed);
	assert_true(changed[3] && changed[7] && changed[9] && changed[10] && changed[12] && changed[20]);
	assert_int_equal(changed_count(l), 6);
	close_stack(s);
	s = open_stack("ck:n=0", map, 1); /* exact after a clean stop */
	assert_int_equal(changed_count(blk_stack_layer(s, "snap")), 6);
	assert_int_equal(command(s, "status", "%s", ""), 0);
	assert_non_null(strstr(text, "\"base\":\"two\""));
	close_stack(s);
}

/* The newer view becomes the base, and then the older one does. */
static void test_base_goes_back(void **state)
{
	make_disk(0);
	struct blk_stack *s = open_stack("ck:n=0", map, 1);
	bool changed[CHUNKS];

	begin(s, "older", "1M");
	put(s, PER, 1);
	begin(s, "newer", "1M");
	put(s, 2 * PER, 1);
	end(s, "newer", ",commit=on");
	put(s, 3 * PER, 1);
	end(s, "older", ",commit=on");
	changed_map(blk_stack_layer(s, "snap"), changed);
	assert_true(changed[1] && changed[2] && changed[3]);
	assert_int_equal(changed_count(blk_stack_layer(s, "snap")), 3);
	close_stack(s);
}

static void test_refusals(void **state)
{
	make_disk(0);
	struct blk_stack *s = open_stack("ck:n=0", NULL, 1);
	uint8_t data[512];

	begin(s, "one", "1M");
	assert_true(command(s, "begin", "name=one,scratch=%s/x,scratch-size=1M", folder) < 0);
	assert_true(command(s, "begin", "name=t\"wo,scratch=%s/x,scratch-size=1M", folder) < 0);
	assert_true(command(s, "begin", "name=two,scratch=%s/x,scratch-size=2k", folder) < 0);
	assert_true(command(s, "begin", "name=two,scratch=%s/no/x,scratch-size=1M", folder) < 0);
	assert_true(command(s, "begin", "name=two,scratch=/proc/self/exe,scratch-size=1M") < 0);
	assert_true(command(s, "end", "name=two") < 0);
	assert_true(command(s, "end", "name=one,commit=on") < 0); /* no map */
	struct blk_layer *one = hold(s, "one");
	put(s, 0, 1);
	assert_int_equal(get(s, one, 0), 0);
	assert_int_equal(ck_io(s, one, BLK_WRITE, 0, data, 512), -EROFS);
	assert_int_equal(ck_io(s, one, BLK_FLUSH, 0, NULL, 0), 0);
	end(s, "one", ",force=on");
	assert_int_equal(ck_io(s, one, BLK_READ, 0, data, 512), -EIO);
	put(s, 1, 1);
	release(s, one);
	close_stack(s);
}

struct beginning {
	struct blk_stack *s;
	int err;
	_Atomic bool ended;
};

static void *begin_slowly(void *arg)
{
	struct beginning *b = arg;
	struct buf out = BUF_INIT;
	char args[256];

	snprintf(args, sizeof(args), "name=slow,scratch=%s/scratch-slow,scratch-size=1M", folder);
	b->err = blk_stack_command(b->s, "snap", "begin", args, &out, NULL);
	buf_done(&out);
	b->ended = true;
	return NULL;
}

/* Guests do not wait for the scratch: a lease keeps its opening in the kernel for as long as it is held. What they write
 * meanwhile is in the view. */
static void test_slow_scratch(void **state)
{
	pthread_t thread;
	char path[128];

	make_disk(0);
	snprintf(path, sizeof(path), "%s/scratch-slow", folder);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	signal(SIGIO, SIG_IGN);
	if (fcntl(fd, F_SETLEASE, F_WRLCK)) {
		print_message("skipped: no leases here\n");
		close(fd);
		unlink(path);
		return;
	}
	struct beginning b = { .s = open_stack("ck:n=0", map, 2) };
	assert_int_equal(pthread_create(&thread, NULL, begin_slowly, &b), 0);
	usleep(50000);
	for (unsigned i = 0; i < 20; i++)
		put(b.s, i, 7);
	assert_false(b.ended);
	assert_int_equal(fcntl(fd, F_SETLEASE, F_UNLCK), 0);
	close(fd);
	pthread_join(thread, NULL);
	assert_int_equal(b.err, 0);
	struct blk_layer *view = hold(b.s, "slow");
	put(b.s, 3, 8);
	assert_int_equal(get(b.s, view, 3), 7);
	assert_int_equal(get(b.s, NULL, 3), 8);
	release(b.s, view);
	end(b.s, "slow", "");
	close_stack(b.s);
}

static void test_full_scratch(void **state)
{
	uint8_t data[512];

	make_disk(0);
	struct blk_stack *s = open_stack("ck:n=0", map, 1);
	begin(s, "small", "8k");
	begin(s, "large", "1M");
	struct blk_layer *small = hold(s, "small"), *large = hold(s, "large");
	for (unsigned i = 0; i < 3; i++)
		put(s, i * PER, 1);
	assert_int_equal(ck_io(s, small, BLK_READ, 0, data, 512), -EIO);
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(get(s, large, i * PER), 0);
	assert_int_equal(command(s, "status", "%s", ""), 0);
	assert_non_null(strstr(text, "\"small\",\"state\":\"failed\""));
	assert_non_null(strstr(text, "\"large\",\"state\":\"open\""));
	/* What cannot be read below cannot be kept; the guest's write is none the worse. */
	ck_disk[VOLUME].fail_op = BLK_READ;
	ck_disk[VOLUME].fail_percent = 100;
	put(s, 9 * PER, 1);
	ck_disk[VOLUME].fail_percent = 0;
	assert_int_equal(ck_io(s, large, BLK_READ, 0, data, 512), -EIO);
	release(s, small);
	release(s, large);
	assert_true(command(s, "end", "name=large,commit=on") < 0);
	end(s, "small", "");
	end(s, "large", "");
	close_stack(s);
}

static void test_grow(void **state)
{
	struct error e = { 0 };

	make_disk(0);
	struct blk_stack *s = open_stack("ck:n=0", map, 1);
	begin(s, "one", "1M");
	assert_int_equal(blk_stack_resize(s, CK_BYTES * 2, &e), 0);
	put(s, CK_SECTORS + 5, 1);
	put(s, 5, 1);
	struct blk_layer *one = hold(s, "one");
	assert_int_equal(one->info.size_bytes, CK_BYTES);
	assert_int_equal(get(s, one, 5), 0);
	release(s, one);
	end(s, "one", ",commit=on");
	assert_int_equal(command(s, "status", "%s", ""), 0);
	char want[64];
	snprintf(want, sizeof(want), "\"changed_bytes\":%llu,", (unsigned long long)CK_BYTES + CHUNK);
	assert_non_null(strstr(text, want));
	close_stack(s);
}

/* ---- random changes, views and bases ---- */

struct frozen {
	char name[16];
	struct blk_layer *layer;
	uint8_t *data;
	uint32_t *from, *to;
	bool changed[CHUNKS];
};

static void load_start(struct blk_stack *s, struct ck_load *load[2], unsigned seed, bool errors)
{
	for (unsigned i = 0; i < 2; i++)
		load[i] = ck_load_new(s, i, seed + i, UINT32_MAX, errors);
}

/* So busy that everything changes all the time, or so that most does not. */
static void load_pace(struct ck_load *load[2], unsigned *seed)
{
	unsigned pace_us = rand_r(seed) % 3 ? 150000 : 0;

	load[0]->pace_us = load[1]->pace_us = pace_us;
}

static void load_stop(struct ck_load *load[2])
{
	for (unsigned i = 0; i < 2; i++) {
		load[i]->stop = true;
		ck_load_wait(load[i]);
	}
}

static void read_all(struct blk_stack *s, struct blk_layer *layer, uint8_t *to)
{
	for (uint64_t at = 0; at < CK_BYTES; at += 256 * 1024)
		assert_int_equal(ck_io(s, layer, BLK_READ, at, to + at, 256 * 1024), 0);
}

static void model(uint32_t *to, bool sent)
{
	pthread_mutex_lock(&ck.lock);
	memcpy(to, sent ? ck.sent : ck.done, CK_SECTORS * sizeof(*to));
	pthread_mutex_unlock(&ck.lock);
}

/* It has what was acknowledged before, and nothing that was sent later. */
static void freeze(struct blk_stack *s, struct frozen *f, unsigned number)
{
	*f = (struct frozen){ .data = malloc(CK_BYTES), .from = malloc(CK_SECTORS * 4), .to = malloc(CK_SECTORS * 4) };
	snprintf(f->name, sizeof(f->name), "v%u", number);
	model(f->from, false);
	begin(s, f->name, "4M");
	model(f->to, true);
	f->layer = hold(s, f->name);
	read_all(s, f->layer, f->data);
	for (uint64_t i = 0; i < CK_SECTORS; i++)
		assert_true(ck_allowed(f->data + i * 512, i, CK_SECTORS, f->from[i], f->to[i]));
	changed_map(f->layer, f->changed);
}

static void check_frozen(struct blk_stack *s, struct frozen *f)
{
	uint8_t *again = malloc(CK_BYTES);

	read_all(s, f->layer, again);
	assert_memory_equal(again, f->data, CK_BYTES);
	free(again);
}

static void check_changes(const uint8_t *base, const uint8_t *now, const bool changed[CHUNKS])
{
	for (uint64_t c = 0; c < CHUNKS; c++) {
		if (!changed[c])
			assert_memory_equal(now + c * CHUNK, base + c * CHUNK, CHUNK);
	}
}

static void thaw(struct blk_stack *s, struct frozen *f, uint8_t *base, bool *have_base, bool commit)
{
	check_frozen(s, f);
	changed_map(f->layer, f->changed);
	if (*have_base)
		check_changes(base, f->data, f->changed);
	release(s, f->layer);
	end(s, f->name, commit ? ",commit=on" : "");
	if (commit) {
		memcpy(base, f->data, CK_BYTES);
		*have_base = true;
	}
	free(f->data);
	free(f->from);
	free(f->to);
}

static void test_model(void **state)
{
	unsigned seed = ck_seed(), rounds = ck_ops(1200) / 60, open = 0, commits = 0;
	uint8_t *base = malloc(CK_BYTES);
	bool have_base = false;
	struct ck_load *load[2];
	struct frozen f[3];

	make_disk(60);
	struct blk_stack *s = open_stack("ck:n=0", map, 2);
	load_start(s, load, seed, false);
	for (unsigned i = 0; i < rounds; i++) {
		if (open < 3 && (!open || rand_r(&seed) % 2)) {
			freeze(s, &f[open++], i);
		} else {
			unsigned which = (unsigned)rand_r(&seed) % open;
			bool commit = rand_r(&seed) % 2;
			thaw(s, &f[which], base, &have_base, commit);
			commits += commit;
			memmove(&f[which], &f[which + 1], (--open - which) * sizeof(*f));
		}
		load_pace(load, &seed);
		usleep((unsigned)rand_r(&seed) % 4000);
	}
	while (open)
		thaw(s, &f[--open], base, &have_base, false);
	load_stop(load);
	assert_true(commits > 0 || rounds < 50);
	close_stack(s);
	free(base);
}

/* The disk fails now and then: views may fail, what guests see may not be wrong. */
static void test_errors_at_random(void **state)
{
	unsigned seed = ck_seed();
	struct ck_load *load[2];
	uint8_t data[512];

	make_disk(20);
	ck_disk[VOLUME].fail_percent = 3;
	struct blk_stack *s = open_stack("ck:n=0", map, 2);
	load_start(s, load, seed, true);
	for (unsigned i = 0; i < 30; i++) {
		if (command(s, "begin", "name=v,scratch=%s/scratch-v,scratch-size=4M", folder))
			continue; /* the barrier's flush failed */
		struct blk_layer *view = hold(s, "v");
		usleep(3000);
		ck_io(s, view, BLK_READ, (unsigned)rand_r(&seed) % CK_SECTORS * 512, data, 512);
		release(s, view);
		while (command(s, "end", "name=v"))
			;
	}
	load_stop(load);
	ck_disk[VOLUME].fail_percent = 0;
	close_stack(s);
}

/* ---- deaths: no change since the base goes unnoticed ---- */

static void forget_boot(const char *path, const char *suffix)
{
	char name[128];
	struct bits_settings settings = { .path = name, .kind = "changes", .unit_bytes = CHUNK, .count = CHUNKS, .boot_id = "another" };
	struct bits *b = NULL;
	struct error e = { 0 };

	snprintf(name, sizeof(name), "%s%s", path, suffix);
	if (bits_open(&settings, &b, &e))
		fail_msg("%s", e.message);
	bits_close(b);
}

static void copy_maps(void)
{
	char from[128], to[128];

	snprintf(from, sizeof(from), "%s.2", map);
	snprintf(to, sizeof(to), "%s.2", image);
	ck_copy_file(map, image);
	ck_copy_file(from, to);
}

static void die_at_random(bool power)
{
	unsigned seed = ck_seed(), deaths = ck_ops(900) / 100;
	uint8_t *base = malloc(CK_BYTES);
	bool have_base = false, changed[CHUNKS];
	unsigned same = 0;
	struct ck_load *load[2];
	struct frozen f;

	make_disk(60);
	struct blk_stack *s = open_stack("ck:n=0", map, 2);
	load_start(s, load, seed, false);
	for (unsigned i = 0; i < deaths; i++) {
		if (i)
			load[0]->pace_us = load[1]->pace_us = 50000;
		freeze(s, &f, i);
		thaw(s, &f, base, &have_base, i <= 1 || rand_r(&seed) % 3 == 0); /* the second: with little changing since */
		usleep((unsigned)rand_r(&seed) % 40000);
		/* The disk first: a change that comes later than this may be marked, one that is there must be. */
		ck_disk_init(AFTER, CK_BYTES, 0);
		if (power) {
			ck_disk_lose(&ck_disk[VOLUME], &seed, ck_disk[AFTER].now);
		} else {
			pthread_mutex_lock(&ck_disk[VOLUME].lock);
			memcpy(ck_disk[AFTER].now, ck_disk[VOLUME].now, CK_BYTES);
			pthread_mutex_unlock(&ck_disk[VOLUME].lock);
		}
		copy_maps();
		if (power) {
			forget_boot(image, "");
			forget_boot(image, ".2");
		}
		struct blk_stack *after = open_stack("ck:n=1", image, 1);
		changed_map(blk_stack_layer(after, "snap"), changed);
		check_changes(base, ck_disk[AFTER].now, changed);
		same += CHUNKS - changed_count(blk_stack_layer(after, "snap"));
		close_stack(after);
	}
	load_stop(load);
	assert_true(same > 0 || power || deaths < 5); /* or nothing was checked */
	close_stack(s);
	free(base);
}

static void test_power_loss(void **state)
{
	die_at_random(true);
}

static void test_process_dies(void **state)
{
	die_at_random(false);
}

/* Few writes of the map for many of the guest's; doubtful regions count after a loss of power, and only they do. */
static void test_announcements(void **state)
{
	make_disk(0);
	struct blk_stack *s = open_stack("ck:n=0", map, 1);
	begin(s, "one", "4M");
	end(s, "one", ",commit=on");
	for (unsigned i = 0; i < 100; i++)
		put(s, i * PER, 1);
	assert_int_equal(changed_count(blk_stack_layer(s, "snap")), 100);
	const struct snap *snap = blk_stack_layer(s, "snap")->state;
	assert_int_equal(snap->queue[0]->marks, 1);
	copy_maps();
	struct blk_stack *after = open_stack("ck:n=0", image, 1); /* the process died */
	assert_int_equal(changed_count(blk_stack_layer(after, "snap")), 100);
	close_stack(after);
	copy_maps();
	forget_boot(image, "");
	forget_boot(image, ".2");
	after = open_stack("ck:n=0", image, 1); /* the power failed */
	assert_int_equal(changed_count(blk_stack_layer(after, "snap")), SNAP_REGION);
	close_stack(after);
	close_stack(s);
}

static int setup(void **state)
{
	strcpy(folder, "/tmp/mallee-snap-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(map, sizeof(map), "%s/map", folder);
	snprintf(image, sizeof(image), "%s/image", folder);
	return 0;
}

static int teardown(void **state)
{
	remove_maps(map);
	remove_maps(image);
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_epochs), cmocka_unit_test(test_base_goes_back),
		cmocka_unit_test(test_refusals), cmocka_unit_test(test_slow_scratch), cmocka_unit_test(test_full_scratch),
		cmocka_unit_test(test_grow), cmocka_unit_test(test_announcements), cmocka_unit_test(test_model),
		cmocka_unit_test(test_errors_at_random), cmocka_unit_test(test_power_loss), cmocka_unit_test(test_process_dies),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
