/* SPDX-License-Identifier: Apache-2.0 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/macros.h"
#include "block/filter/xts_priv.h"
#include "cases.h"
#include "os/file.h"
#include "snapshots.h"

#define CHILD_MAX_S 300

uint64_t harness_number(const char *variable, uint64_t fallback)
{
	const char *text = getenv(variable);

	return text && *text ? strtoull(text, NULL, 10) : fallback;
}

uint64_t harness_seed(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return harness_number("MALLEE_SEED", (uint64_t)t.tv_nsec / 1000 + (uint64_t)getpid() * 1000003);
}

static void wait_us(int64_t us)
{
	nanosleep(&(struct timespec){ us / 1000000, us % 1000000 * 1000 }, NULL);
}

static void expand(const struct harness *h, const char *text, char *out, size_t max)
{
	size_t n = 0;

	for (; *text && n + sizeof(h->dir) < max; text++) {
		if (*text == '%' || *text == '$')
			n += (size_t)snprintf(out + n, max - n, "%s", *text == '%' ? h->dir : h->direct ? "on" : "off");
		else
			out[n++] = *text;
	}
	out[n] = '\0';
}

/* 36 characters and a line's end, as the kernel's. */
static void new_boot(struct harness *h)
{
	FILE *f = fopen(h->world->boot_file, "we");

	if (!f || fprintf(f, "00000000-0000-0000-0000-%012llu\n", (unsigned long long)++h->boots) < 0 || fclose(f))
		die("writing %s", h->world->boot_file);
}

/* A key, and a disk whose sectors decrypt to zeroes: nothing but cow, where there is one, makes them so. */
static void make_key(struct harness *h)
{
	static uint8_t zeroes[SECTOR];
	uint8_t key[XTS_KEY_BYTES];
	struct tape *disk = &h->world->disk;
	struct xts *x = NULL;
	char path[512];

	for (unsigned i = 0; i < sizeof(key); i++)
		key[i] = (uint8_t)random_next(&h->random);
	expand(h, h->c->key_file, path, sizeof(path));
	if (file_write_atomic(path, key, sizeof(key), 0400) || xts_new(key, SECTOR, 1, &x))
		die("making the key %s", path);
	for (uint64_t off = 0; off < disk->size_bytes; off += SECTOR) {
		if (xts_encrypt(x, 0, off, zeroes, disk->now + off, SECTOR))
			die("encrypting zeroes");
	}
	memcpy(disk->base, disk->now, disk->size_bytes);
	xts_free(x);
}

/* What a guest wrote is nowhere on the disk as it wrote it. */
static void check_hidden(const struct tape *disk, uint64_t stamps)
{
	for (uint64_t s = 0; s < disk->size_bytes / SECTOR; s++) {
		uint64_t stamp = stamp_read(disk->now + s * SECTOR, s);
		if (stamp < stamps)
			die("sector %llu of the disk is not encrypted: stamp %llu", (unsigned long long)s, (unsigned long long)stamp);
	}
}

/* ---- what a real back end stands on ---- */

static void make_file(struct harness *h, const char *name, uint64_t bytes, bool stamps)
{
	char path[512];
	uint8_t sector[SECTOR];

	snprintf(path, sizeof(path), "%s/%s", h->dir, name);
	FILE *f = fopen(path, "we");
	for (uint64_t at = 0; f && stamps && at < bytes; at += SECTOR) {
		stamp_fill(sector, STAMP_SOURCE, at / SECTOR);
		fwrite(sector, sizeof(sector), 1, f);
	}
	if (!f || ftruncate(fileno(f), (off_t)bytes) || fclose(f))
		die("making %s: %s", path, strerror(errno));
}

static bool can_read_sectors(const struct harness *h)
{
	char path[512], *memory = aligned_alloc(4096, 4096);

	snprintf(path, sizeof(path), "%s/disk", h->dir);
	int fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	bool can = fd >= 0 && pread(fd, memory, SECTOR, SECTOR) == SECTOR;
	if (fd >= 0)
		close(fd);
	free(memory);
	return can;
}

static void start_server(struct harness *h, unsigned which)
{
	char text[1024], *argv[16] = { (char *)BLOCKD }, *at = text;
	unsigned n = 1;

	expand(h, h->c->servers[which], text, sizeof(text));
	while (n + 1 < ARRAY_SIZE(argv) && (argv[n] = strtok_r(at, " ", &at)))
		n++;
	h->server[which] = fork();
	if (h->server[which])
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (freopen("/dev/null", "w", stderr)) /* who comes and goes; its exit code tells the rest */
		execv(BLOCKD, argv);
	_exit(127);
}

static void stop_server(struct harness *h, unsigned which, int signo)
{
	int status;

	if (h->server[which] <= 0)
		return;
	kill(h->server[which], signo);
	pid_t pid = waitpid(h->server[which], &status, 0);
	bool by_us = WIFSIGNALED(status) && WTERMSIG(status) == signo; /* by SIGTERM: before it looks at signals */
	if (pid != h->server[which] || (!by_us && (signo != SIGTERM || status)))
		die("%s: a server ended with status %x", h->c->name, (unsigned)status);
	h->server[which] = 0;
}

static void kill_a_server(struct harness *h)
{
	unsigned which = (unsigned)random_below(&h->random, SERVERS_MAX);

	if (!h->c->servers[which])
		return;
	stop_server(h, which, SIGKILL);
	start_server(h, which);
	h->results[RESULT_SERVERS]++;
}

static void make_place(struct harness *h)
{
	if (!h->c->back)
		return;
	make_file(h, "disk", h->c->size_bytes, false);
	make_file(h, "source", h->c->source_bytes, true);
	h->direct = can_read_sectors(h);
	h->model->torn_reads = true;
	for (unsigned i = 0; i < SERVERS_MAX && h->c->servers[i]; i++)
		start_server(h, i);
}

struct harness *harness_new(const struct stack_case *c, uint64_t seed)
{
	struct harness *h = calloc(1, sizeof(*h));
	const char *parent = c->back ? "/var/tmp" : access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
	char path[512];

	h->c = c;
	h->random = seed;
	snprintf(h->dir, sizeof(h->dir), "%s/mallee-block-XXXXXX", parent);
	if (!mkdtemp(h->dir))
		die("making %s: %s", h->dir, strerror(errno));
	h->world = world_new(c->size_bytes, seed);
	h->world->fail_permille = c->fail_permille;
	h->world->write_through = c->write_through;
	for (unsigned i = 0; i < FILES_MAX && c->files[i]; i++) {
		expand(h, c->files[i], path, sizeof(path));
		world_file(h->world, path, 4u << 20);
	}
	snprintf(h->world->boot_file, sizeof(h->world->boot_file), "%s/boot_id", h->dir);
	new_boot(h);
	h->model = model_new(c->size_bytes / SECTOR, c->source_bytes / SECTOR, &h->world->clock);
	h->stamps = shared_memory(c->size_bytes / SECTOR * sizeof(*h->stamps));
	h->results = shared_memory(4096);
	if (c->key_file)
		make_key(h);
	h->snapshots = shared_memory(snapshots_bytes(h->model->sectors));
	make_place(h);
	return h;
}

static void remove_folder(const char *dir)
{
	DIR *d = opendir(dir);
	char path[512];

	for (struct dirent *e; d && (e = readdir(d));) {
		snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
		if (e->d_name[0] != '.')
			unlink(path);
	}
	if (d)
		closedir(d);
	rmdir(dir);
}

void harness_free(struct harness *h)
{
	for (unsigned i = 0; i < SERVERS_MAX; i++)
		stop_server(h, i, SIGTERM);
	remove_folder(h->dir);
	munmap(h->stamps, h->model->sectors * sizeof(*h->stamps));
	munmap(h->results, 4096);
	munmap(h->snapshots, snapshots_bytes(h->model->sectors));
	model_free(h->model);
	world_free(h->world);
	free(h);
}

void harness_lose_files(struct harness *h)
{
	char path[512];

	new_boot(h);

	for (unsigned i = 0; i < ARRAY_SIZE(h->c->volatile_files) && h->c->volatile_files[i]; i++) {
		expand(h, h->c->volatile_files[i], path, sizeof(path));
		unlink(path);
	}
}

/* ---- children ---- */

static int wait_for(struct harness *h, pid_t pid, int64_t kill_after_us)
{
	int status = 0;

	if (kill_after_us >= 0) {
		wait_us(kill_after_us);
		kill(pid, SIGKILL);
	}
	for (unsigned i = 0; waitpid(pid, &status, WNOHANG) == 0; i++) {
		if (i > CHILD_MAX_S * 2000) {
			kill(pid, SIGABRT);
			waitpid(pid, &status, 0);
			fprintf(stderr, "%s: hangs\n", h->c->name);
			return -1;
		}
		wait_us(500);
		if (random_below(&h->random, 200) == 0)
			kill_a_server(h);
	}
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		return SIGKILL;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (!h->may_fail)
		fprintf(stderr, "%s: the process ended with %s %d\n", h->c->name, WIFSIGNALED(status) ? "signal" : "exit code",
		WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	return -1;
}

int harness_child(struct harness *h, void (*fn)(struct harness *h, void *ctx), void *ctx, int64_t kill_after_us)
{
	fflush(stdout);
	fflush(stderr);
	pid_t pid = fork();
	if (pid < 0)
		die("fork: %s", strerror(errno));
	if (!pid) {
		if (h->may_fail && !freopen("/dev/null", "w", stderr))
			_exit(1);
		fn(h, ctx);
		fflush(stdout);
		_exit(0);
	}
	int end = wait_for(h, pid, kill_after_us);
	h->failed |= end < 0;
	if (end < 0 && !h->may_fail)
		die("%s: run again with MALLEE_STACK=%s MALLEE_SEED=%llu", h->c->name, h->c->name, (unsigned long long)h->results[RESULT_SEED]);
	return end;
}

struct blk_stack *harness_open(struct harness *h, unsigned queues)
{
	static char specs[8][512];
	const char *filters[9] = { NULL };
	static char back[512];
	struct blk_stack_settings settings = { case_drivers, back, filters, queues, h->c->back ? BLK_IO_AUTO : BLK_IO_THREADS };
	struct error e = { 0 };
	struct blk_stack *s;

	for (unsigned i = 0; h->c->filters[i]; i++) {
		expand(h, h->c->filters[i], specs[i], sizeof(specs[i]));
		filters[i] = specs[i];
	}
	expand(h, h->c->back ? h->c->back : "recorder", back, sizeof(back));
	int err = blk_stack_open(&settings, &s, &e);
	for (unsigned i = 0; err && h->c->servers[0] && i < 500; i++) { /* who is opened must be there */
		error_clear(&e);
		wait_us(20000);
		err = blk_stack_open(&settings, &s, &e);
	}
	if (err || blk_stack_start(s, &e))
		die("the stack does not open: %s", e.message);
	return s;
}

void harness_close(struct harness *h, struct blk_stack *s)
{
	struct error e = { 0 };

	if (blk_stack_close(s, &e) && !h->world->fail_permille)
		die("the stack does not close cleanly: %s", e.message);
	error_clear(&e);
}

void harness_verify(struct harness *h, enum history_mode mode, uint64_t at, const char *what)
{
	struct blk_stack *s = harness_open(h, 1);
	struct history_view v = history_view(&h->model->history, mode, at);
	struct load l = { .stack = s, .world = h->world, .model = h->model, .seed = h->random };

	v.write_through = !blk_stack_info(s)->volatile_cache;
	load_verify(&l, &v, h->stamps, what);
	harness_close(h, s);
	if (h->c->key_file)
		check_hidden(&recorder_world->disk, h->model->stamps);
}

/* ---- lives ---- */

struct run {
	unsigned ops;
	uint64_t seed;
};

static void print_stats(struct blk_stack *s)
{
	struct buf out = BUF_INIT;

	blk_stack_stats_json(s, NULL, 0, &out);
	const char *layers = strstr(out.data, "\"layers\"");
	printf("%s\n", layers ? layers : out.data);
	buf_done(&out);
}

static void run_load(struct harness *h, void *ctx)
{
	struct run *run = ctx;
	struct load l = { .world = h->world, .model = h->model, .ops = run->ops, .seed = run->seed, .barriers = 10,
			  .meanwhile = h->c->meanwhile, .ctx = h };

	recorder_world = h->world;
	l.stack = harness_open(h, h->c->queues);
	load_run(&l);
	if (h->c->finish)
		h->c->finish(&l);
	h->results[RESULT_FAILED] += l.failed;
	if (getenv("MALLEE_STATS"))
		print_stats(l.stack);
	harness_close(h, l.stack);
	h->world->kill_after = -1;
}

static void run_verify(struct harness *h, void *ctx)
{
	enum history_mode mode = *(enum history_mode *)ctx;
	unsigned fail = h->world->fail_permille;

	recorder_world = h->world;
	h->world->fail_permille = 0;
	harness_verify(h, mode, atomic_load(&h->world->clock), mode == VIEW_POWER ? "after power loss" : "after kill or restart");
	h->world->fail_permille = fail;
}

void harness_life(struct harness *h, unsigned ops, enum ending ending)
{
	struct run run = { ops, random_next(&h->random) };
	if (h->c->back && ending == END_POWER)
		ending = END_KILL;
	enum history_mode mode = ending == END_POWER ? VIEW_POWER : VIEW_KILL;
	bool by_event = ending != END_CLEAN && random_below(&h->random, 4);

	h->world->kill_after = by_event ? (int64_t)random_below(&h->random, ops * h->c->queues * (h->c->back ? 4 : 8)) : -1;
	int64_t after_us = ending != END_CLEAN && !by_event ? (int64_t)random_below(&h->random, h->c->back ? 200000 : 20000) : -1;
	int signo = harness_child(h, run_load, &run, after_us);
	if (h->failed)
		return;
	h->world->kill_after = -1;
	world_cut_off(h->world, &h->random);
	history_cut_off(&h->model->history);
	h->results[RESULT_KILLS] += signo != 0;
	if (ending == END_POWER) {
		static const enum power_choice choices[] = { POWER_NONE, POWER_ALL, POWER_WRITES, POWER_WRITES, POWER_TORN, POWER_TORN };
		world_power(h->world, h->world, atomic_load(&h->world->clock), choices[random_below(&h->random, ARRAY_SIZE(choices))], 0, &h->random);
		harness_lose_files(h);
		world_forget(h->world);
		h->results[RESULT_POWER]++;
	}
	if (ending == END_KILL && h->lose_at_kill)
		harness_lose_files(h);
	bool full = world_is_full(h->world) || model_is_full(h->model);
	if (ending != END_POWER && !full && random_below(&h->random, 2))
		return; /* the next run goes on with what is there, unseen */
	harness_child(h, run_verify, &mode, -1);
	if (ending == END_POWER || full || h->model->history.ops > 8192) {
		/* It was closed in peace. */
		model_forget(h->model, h->stamps);
		world_forget(h->world);
	} else {
		model_found(h->model, h->stamps);
	}
}
