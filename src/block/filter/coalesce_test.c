/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "block/filter/coalesce_testkit.h"
#include "block/filter/coalesce_priv.h"
#include "block/filter/filter.h"

#define MIB (1u << 20)
#define RATE 110000000u

static char path[64]; /* of the buffer; the test program's own */

static struct blk_stack *try_open(struct tk_disk *d, const char *options, unsigned queues, struct error *e)
{
	char spec[256];

	snprintf(spec, sizeof(spec), "coalesce:buffer=%s%s%s", path, *options ? "," : "", options);
	return tk_open(&blk_coalesce_ops, spec, queues, d, e);
}

static struct blk_stack *open_on(struct tk_disk *d, const char *options, unsigned queues)
{
	struct error e = { 0 };
	struct blk_stack *s = try_open(d, options, queues, &e);

	if (!s)
		print_message("%s\n", e.message);
	assert_non_null(s);
	return s;
}

static int close_stack(struct blk_stack *s)
{
	struct error e = { 0 };

	return blk_stack_close(s, &e);
}

static int fresh_file(void **state)
{
	unlink(path);
	return 0;
}

static void pause_ms(struct blk_stack *s, int ms)
{
	bool never = false;

	blk_queue_run_until(blk_stack_queue(s, 0), &never, ms);
}

static void put(struct blk_stack *s, uint64_t off, uint64_t len, int byte, uint32_t flags, int expected)
{
	uint8_t *data = malloc(len);

	memset(data, byte, len);
	assert_int_equal(tk_sync_op(s, BLK_WRITE, flags, off, len, data), expected);
	free(data);
}

static void see(struct blk_stack *s, uint64_t off, uint64_t len, int byte)
{
	uint8_t *data = malloc(len);

	assert_int_equal(tk_sync_op(s, BLK_READ, 0, off, len, data), 0);
	for (uint64_t i = 0; i < len; i++)
		if (data[i] != (uint8_t)byte)
			fail_msg("at %llu: %x, not %x", (unsigned long long)(off + i), data[i], byte);
	free(data);
}

static int flush(struct blk_stack *s)
{
	return tk_sync_op(s, BLK_FLUSH, 0, 0, 0, NULL);
}

static void test_small_writes_are_seen_and_merged(void **state)
{
	struct tk_disk *d = tk_disk_new(4 * MIB);
	struct blk_stack *s = open_on(d, "", 1);

	assert_true(blk_stack_info(s)->volatile_cache);
	d->delay_ns = 0;
	d->slow_write_ns = 300000000;
	memset(d->now, 9, d->size);
	put(s, 2 * MIB, 512, 1, 0, 0); /* goes at once; the rest waits behind it */
	for (unsigned i = 0; i < 64; i++)
		put(s, MIB + i * 512, 512, (int)i, 0, 0);
	for (unsigned i = 0; i < 64; i++)
		see(s, MIB + i * 512, 512, (int)i);
	put(s, 512 * 5, 512 * 2, 3, 0, 0);
	put(s, 512 * 9, 512, 4, 0, 0);
	see(s, 0, 512 * 5, 9); /* parts from the disk, parts from here */
	see(s, 512 * 7, 512 * 2, 9);
	see(s, 512 * 5, 512 * 2, 3);
	see(s, 512 * 9, 512, 4);
	see(s, 512 * 10, 20000, 9);
	assert_int_equal(d->now[512 * 5], 9);
	assert_int_equal(flush(s), 0);
	assert_int_equal(d->stable[512 * 5], 3);
	assert_int_equal(d->stable[512 * 8], 9);
	assert_int_equal(d->stable[512 * 9], 4);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(d->stable[MIB + i * 512], i);
	assert_true(d->ops[BLK_WRITE] <= 6);
	assert_int_equal(tk_counter(s, "buffered_bytes"), 0);
	assert_int_equal(close_stack(s), 0);
	tk_disk_free(d);
}

static void test_synchronous_writer_gets_the_disk(void **state)
{
	static const struct {
		uint64_t len, total;
	} run[] = { { 65536, 32 * MIB }, { 4096, 8 * MIB }, { 262144, 24 * MIB } };

	for (unsigned i = 0; i < ARRAY_SIZE(run); i++) {
		struct tk_disk *d = tk_disk_new(64 * MIB);
		struct blk_stack *s = open_on(d, "size=4M", 1);

		d->rate = RATE;
		d->seek_ns = 8000000;
		d->overhead_ns = 50000;
		uint64_t rate = tk_sync_rate(s, BLK_WRITE, 0, run[i].total, run[i].len, true);
		print_message("%u kB writes at depth 1: %.1f MB/s of %.1f, %.0f kB each on the disk, %llu seeks\n", (unsigned)(run[i].len >> 10),
			      (double)rate / 1e6, RATE / 1e6, (double)d->bytes[BLK_WRITE] / 1024 / (double)d->ops[BLK_WRITE],
			      (unsigned long long)d->seeks);
		if (getenv("MALLEE_MEASURE")) { /* on a quiet machine */
			assert_true(rate > RATE * 9 / 10);
			assert_true(d->ops[BLK_WRITE] < run[i].total / 131072 + 32);
		}
		assert_int_equal(d->bytes[BLK_WRITE], run[i].total);
		assert_true(tk_counter(s, "merged") > 0);
		assert_int_equal(close_stack(s), 0);
		tk_disk_free(d);
	}
}

static void test_random_writes_go_in_order(void **state)
{
	struct tk_disk *d = tk_disk_new(256 * MIB);
	struct blk_stack *s = open_on(d, "", 1);
	uint64_t seed = 5;

	d->rate = RATE;
	d->seek_ns = 8000000;
	for (unsigned i = 0; i < 2000; i++)
		put(s, tk_random(&seed) % (d->size / 4096) * 4096, 4096, (int)i, 0, 0);
	assert_int_equal(flush(s), 0);
	print_message("2000 random writes: %llu seeks beyond 8 MiB\n", (unsigned long long)d->seeks);
	assert_true(d->seeks < 400);
	assert_int_equal(close_stack(s), 0);
	tk_disk_free(d);
}

static void test_fua_and_discard_keep_their_order(void **state)
{
	struct tk_disk *d = tk_disk_new(4 * MIB);
	struct blk_stack *s = open_on(d, "", 1);
	uint64_t seed = 77;

	d->delay_ns = 2000000;
	for (unsigned i = 1; i < 100; i++) {
		uint64_t at = 8192 + tk_random(&seed) % 8 * 512, len = 512 * (1 + tk_random(&seed) % 20);

		put(s, 0, 65536, (int)i, 0, 0);
		put(s, at, len, 200, BLK_FUA, 0);
		assert_memory_equal(d->stable + at, d->now + at, len);
		assert_int_equal(d->stable[at], 200);
		see(s, at, len, 200);
		see(s, 0, at, (int)i);
		see(s, at + len, 65536 - at - len, (int)i);
		assert_int_equal(tk_sync_op(s, BLK_WRITE_ZEROES, 0, 4096, 4096 * 3 + 512, NULL), 0);
		see(s, 4096, 4096 * 3 + 512, 0);
		assert_int_equal(tk_sync_op(s, BLK_DISCARD, 0, 0, 4 * MIB, NULL), 0);
	}
	assert_int_equal(close_stack(s), 0);
	tk_disk_free(d);
}

static void test_failed_write_back_fails_flushes(void **state)
{
	struct tk_disk *d = tk_disk_new(4 * MIB);
	struct blk_stack *s = open_on(d, "", 1);

	d->delay_ns = 100000;
	d->fail_all = true;
	put(s, MIB, 8192, 7, 0, 0);
	assert_int_equal(flush(s), -EIO);
	assert_int_equal(flush(s), -EIO);
	see(s, MIB, 8192, 7);
	assert_true(tk_counter(s, "failures") >= 2);
	assert_int_equal(tk_counter(s, "failed_bytes"), 8192);
	put(s, MIB + 4096, 4096, 8, 0, 0); /* anew, over one that failed */
	assert_int_equal(flush(s), -EIO);
	/* the process ends, with an error; the next one has the data and the same fate */
	assert_int_equal(close_stack(s), -EIO);
	s = open_on(d, "", 1);
	assert_int_equal(tk_counter(s, "replayed"), 2);
	see(s, MIB, 4096, 7);
	see(s, MIB + 4096, 4096, 8);
	assert_int_equal(flush(s), -EIO);
	d->fail_all = false;
	assert_int_equal(flush(s), 0);
	assert_int_equal(d->stable[MIB + 4096], 8);
	/* and without a flush, by itself */
	d->fail_all = true;
	put(s, 0, 4096, 5, 0, 0);
	pause_ms(s, 50);
	d->fail_all = false;
	pause_ms(s, 400);
	assert_int_equal(d->now[0], 5);
	assert_int_equal(tk_counter(s, "buffered_bytes"), 0);
	assert_int_equal(close_stack(s), 0);
	tk_disk_free(d);
}

static void test_full_and_failing_answers_as_the_disk(void **state)
{
	struct tk_disk *d = tk_disk_new(4 * MIB);
	struct blk_stack *s = open_on(d, "size=1M", 1);

	d->delay_ns = 100000;
	d->fail_all = true;
	for (uint64_t at = 0; at < MIB; at += 65536)
		put(s, at, 65536, 1, 0, 0);
	put(s, MIB, 65536, 2, 0, -EIO);
	put(s, 0, 65536, 3, 0, -EIO);
	see(s, 0, MIB, 1);
	d->fail_all = false;
	put(s, MIB, 65536, 4, 0, 0);
	assert_int_equal(flush(s), 0);
	see(s, 0, MIB, 1);
	see(s, MIB, 65536, 4);
	assert_memory_equal(d->now, d->stable, d->size);
	assert_int_equal(close_stack(s), 0);
	tk_disk_free(d);
}

static uint64_t blocks(void)
{
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	return (uint64_t)st.st_blocks * 512;
}

static void test_idle_gives_room_back(void **state)
{
	struct tk_disk *d = tk_disk_new(8 * MIB);
	struct blk_stack *s = open_on(d, "size=4M,idle=100", 1);

	assert_true(blocks() >= 4 * MIB);
	pause_ms(s, 250);
	assert_true(blocks() < MIB);
	for (unsigned i = 1; i < 4; i++) {
		put(s, 0, 65536, (int)i, 0, 0);
		assert_true(blocks() >= MIB);
		see(s, 0, 65536, (int)i);
		pause_ms(s, 300);
		assert_true(blocks() < MIB);
		see(s, 0, 65536, (int)i);
	}
	assert_true(tk_counter(s, "punched") >= 4);
	assert_int_equal(close_stack(s), 0);
	tk_disk_free(d);
}

static void poke(off_t at, const void *data, size_t len)
{
	int fd = open(path, O_RDWR);

	assert_int_equal(pwrite(fd, data, len, at), (ssize_t)len);
	close(fd);
}

static void test_foreign_and_damaged_files_are_refused(void **state)
{
	struct tk_disk *d = tk_disk_new(4 * MIB), *small = tk_disk_new(MIB);
	struct blk_stack *s = open_on(d, "volume=one", 1);
	uint64_t word = 0x1234;
	struct error e = { 0 };

	d->fail_all = true;
	put(s, 3 * MIB, 8192, 7, 0, 0);
	assert_int_equal(close_stack(s), -EIO);
	assert_null(try_open(d, "volume=two", 1, &e));
	assert_non_null(strstr(e.message, "another volume"));
	error_clear(&e);
	assert_null(try_open(small, "volume=one", 1, &e));
	assert_true(error_is_set(&e));
	/* a second process while the first lives is tried in the kill test's way: not here, it waits */
	poke(4096 + 32 * 5, &word, 8); /* a record that was never finished */
	poke(4096 + 32 * 5 + 8, &word, 8);
	s = open_on(d, "volume=one", 1);
	assert_int_equal(tk_counter(s, "replayed"), 2);
	see(s, 3 * MIB, 8192, 7);
	assert_int_equal(close_stack(s), -EIO);
	for (unsigned at = 0; at < 128; at += 8) {
		int fd = open(path, O_RDONLY);
		uint64_t old, bad;

		assert_int_equal(pread(fd, &old, 8, at), 8);
		close(fd);
		bad = old ^ 1ull << (at % 60);
		poke(at, &bad, 8);
		error_clear(&e);
		/* [4] is the volume's size: any not larger than the disk is fine */
		if (at != 32 && at < 120) {
			assert_null(try_open(d, "volume=one", 1, &e));
			assert_true(error_is_set(&e));
		}
		poke(at, &old, 8);
	}
	d->fail_all = false;
	s = open_on(d, "volume=one", 1);
	assert_int_equal(flush(s), 0);
	assert_int_equal(d->stable[3 * MIB], 7);
	assert_int_equal(close_stack(s), 0);
	/* an empty one is anybody's, and may change its size */
	s = open_on(small, "volume=two,size=2M", 1);
	assert_int_equal(tk_counter(s, "room_bytes"), 2 * MIB);
	assert_int_equal(close_stack(s), 0);
	assert_int_equal(truncate(path, 0), 0);
	poke(0, "This is somebody's letter, and no buffer at all.", 48);
	error_clear(&e);
	assert_null(try_open(d, "", 1, &e));
	assert_true(error_is_set(&e));
	tk_disk_free(d);
	tk_disk_free(small);
}

/* A process died between publishing a page anew and freeing its older record: the newer counts, wherever it is. */
static void test_newer_record_counts(void **state)
{
	static const uint64_t seq[][2] = { { 5, 6 }, { 6, 5 } };

	for (unsigned i = 0; i < ARRAY_SIZE(seq); i++) {
		struct tk_disk *d = tk_disk_new(MIB);
		struct blk_info info = { .size_bytes = d->size, .block_bytes = 512 };
		struct co_buffer b;
		struct error e = { 0 };

		assert_int_equal(co_buffer_open(&b, path, "", MIB, &info, &e), 0);
		for (unsigned slot = 0; slot < 2; slot++) {
			memset(co_data(&b, slot), (int)seq[i][slot], CO_PAGE);
			co_buffer_publish(&b, slot, &(struct co_record){ .page = 3, .seq = seq[i][slot], .mask = seq[i][slot] == 6 ? CO_FULL : 1 });
		}
		co_buffer_close(&b);
		struct blk_stack *s = open_on(d, "size=1M", 1);
		see(s, 3 * CO_PAGE, CO_PAGE, 6);
		assert_int_equal(flush(s), 0);
		assert_int_equal(d->stable[3 * CO_PAGE], 6);
		assert_int_equal(close_stack(s), 0);
		tk_disk_free(d);
		unlink(path);
	}
}

static void test_resize_and_drain(void **state)
{
	struct tk_disk *d = tk_disk_new(2 * MIB + 512 * 3);
	struct blk_stack *s = open_on(d, "", 1);
	struct error e = { 0 };
	struct buf b = BUF_INIT;

	put(s, 2 * MIB, 512 * 3, 1, 0, 0); /* the last page is not whole */
	assert_int_equal(blk_stack_command(s, "coalesce", "drain", NULL, &b, &e), 0);
	assert_string_equal(b.data, "{\"buffered_bytes\":0}");
	assert_int_equal(blk_stack_resize(s, 3 * MIB, &e), 0);
	put(s, 3 * MIB - 4096, 4096, 2, 0, 0);
	see(s, 3 * MIB - 4096, 4096, 2);
	assert_int_equal(close_stack(s), 0);
	buf_done(&b);
	tk_disk_free(d);
}

static void test_model(void **state)
{
	static const struct {
		unsigned queues, sequential, writes, fails;
		uint64_t delay_ns;
		const char *options, *below;
	} round[] = {
		{ 1, 60, 50, 0, 200000, "size=1M" },
		{ 3, 40, 60, 0, 300000, "size=2M,bypass=64k" },
		{ 4, 60, 40, 8, 50000, "size=1M" },
		{ 2, 30, 70, 0, 0, "size=1M,merge=32k,idle=10" },
		{ 3, 80, 30, 0, 100000, "size=1M", "readahead:chunk=64k,cache=512k" },
	};
	uint64_t seed = tk_seed();

	for (unsigned i = 0; i < ARRAY_SIZE(round); i++) {
		struct tk_disk *d = tk_disk_new(3 * MIB + 512 * 5);
		struct tk_model *m = tk_model_new(d->size);
		tk_second = round[i].below ? &blk_readahead_ops : NULL;
		tk_second_spec = round[i].below;
		struct blk_stack *s = open_on(d, round[i].options, round[i].queues);
		struct tk_load shape = { .sequential_percent = round[i].sequential, .write_percent = round[i].writes, .fua = true,
					 .fails_expected = round[i].fails, .check_flushes = true };
		struct error e = { 0 };
		int rc;

		d->delay_ns = round[i].delay_ns;
		d->seed ^= seed;
		assert_int_equal(blk_stack_start(s, &e), 0);
		for (unsigned left = tk_ops(6000) / round[i].queues, ops; left; left -= ops) {
			ops = MIN_OF(left, 700u);
			d->fail_percent = round[i].fails;
			tk_run(s, m, d, ops, seed + i + left, &shape);
			d->fail_percent = 0;
			/* a write-back that was sent before may still fail, and then this flush does */
			for (unsigned tries = 0; (rc = blk_stack_barrier(s, 20000, &e)) == -EIO && tries < 5; tries++)
				assert_true(round[i].fails);
			assert_int_equal(rc, 0);
			tk_model_reset(m, d->now);
			blk_stack_resume(s);
		}
		print_message("round %u: absorbed %llu direct %llu merged %llu full %llu overlap %llu failures %llu, %llu units checked\n", i,
			      (unsigned long long)tk_counter(s, "absorbed"), (unsigned long long)tk_counter(s, "direct"),
			      (unsigned long long)tk_counter(s, "merged"), (unsigned long long)tk_counter(s, "full_waits"),
			      (unsigned long long)tk_counter(s, "overlap_waits"), (unsigned long long)tk_counter(s, "failures"),
			      (unsigned long long)m->checked);
		assert_int_equal(close_stack(s), 0);
		tk_disk_free(d);
		tk_model_free(m);
	}
	tk_second_spec = NULL;
}

/* A process writes until it is killed; the next finds all that was answered, on the disk and in the buffer. */
static void run_victim(struct tk_disk *d, struct tk_model *m, uint64_t seed)
{
	struct blk_stack *s = open_on(d, "size=1M", 2);
	struct tk_load shape = { .sequential_percent = 40, .write_percent = 75, .fua = true };
	struct error e = { 0 };

	if (blk_stack_start(s, &e))
		_exit(1);
	tk_run(s, m, d, 1000000, seed, &shape);
	_exit(2);
}

static void test_killed_process_loses_nothing(void **state)
{
	uint64_t seed = tk_seed();
	unsigned kills = MAX_OF(tk_ops(6000) / 600, 4u), replayed = 0;
	struct tk_disk *d = tk_disk_new(3 * MIB);
	struct tk_model *m = tk_model_new(d->size);

	for (unsigned i = 0; i < kills; i++) {
		struct timespec t = { .tv_nsec = (long)(20000000 + tk_random(&seed) % 60000000) };
		int status;
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (!pid)
			run_victim(d, m, seed);
		nanosleep(&t, NULL);
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
		pthread_mutex_init(&d->lock, NULL);
		pthread_mutex_init(&m->lock, NULL);
		tk_finish_sectors(m, d);

		struct blk_stack *s = open_on(d, "size=1M", 1);
		uint8_t *all = malloc(d->size);
		uint64_t began = ++m->clock;

		for (uint64_t at = 0; at < d->size; at += MIB)
			assert_int_equal(tk_sync_op(s, BLK_READ, 0, at, MIB, all + at), 0);
		tk_check(m, 0, m->units, all, began);
		replayed += (unsigned)tk_counter(s, "replayed");
		assert_int_equal(flush(s), 0);
		assert_memory_equal(d->now, all, d->size);
		assert_memory_equal(d->stable, all, d->size);
		assert_int_equal(close_stack(s), 0);
		tk_model_reset(m, d->now);
		free(all);
	}
	print_message("%u kills, %u records replayed\n", kills, replayed);
	assert_true(replayed > 0);
	tk_disk_free(d);
	tk_model_free(m);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_small_writes_are_seen_and_merged, fresh_file),
		cmocka_unit_test_setup(test_synchronous_writer_gets_the_disk, fresh_file),
		cmocka_unit_test_setup(test_random_writes_go_in_order, fresh_file),
		cmocka_unit_test_setup(test_fua_and_discard_keep_their_order, fresh_file),
		cmocka_unit_test_setup(test_failed_write_back_fails_flushes, fresh_file),
		cmocka_unit_test_setup(test_full_and_failing_answers_as_the_disk, fresh_file),
		cmocka_unit_test_setup(test_idle_gives_room_back, fresh_file),
		cmocka_unit_test_setup(test_foreign_and_damaged_files_are_refused, fresh_file),
		cmocka_unit_test_setup(test_newer_record_counts, fresh_file),
		cmocka_unit_test_setup(test_resize_and_drain, fresh_file),
		cmocka_unit_test_setup(test_model, fresh_file),
		cmocka_unit_test_setup(test_killed_process_loses_nothing, fresh_file),
	};

	snprintf(path, sizeof(path), "%s/mallee-coalesce-test.%d", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", (int)getpid());
	int rc = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	return rc;
}
