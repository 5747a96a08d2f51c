/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small vhost-user master: drives the rings of any vhost-user-blk back end as a guest would, without a guest, so that what is
 * measured is the path and not an emulated CPU. One queue, one thread, requests of one kind.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "master.h"

#define HEADER_BYTES 64u /* a request's header, and its status byte at 32 */

uint64_t master_now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* xorshift64*: good enough to choose places, and cheap. */
uint64_t master_random(uint64_t *state)
{
	uint64_t x = *state;

	x ^= x >> 12;
	x ^= x << 25;
	x ^= x >> 27;
	*state = x;
	return x * 0x2545f4914f6cdd1du;
}

int master_connect(struct vhost_client *c, const struct master_options *o, int timeout_ms)
{
	uint64_t end = master_now_ns() + (uint64_t)timeout_ms * 1000000u;
	int err;

	do {
		err = vhost_client_connect(c);
		if (!err)
			err = vhost_client_start(c);
		if (err)
			usleep(2000);
	} while (err && master_now_ns() < end);
	if (err)
		fprintf(stderr, "vhost-master: connecting to %s: %s\n", o->socket, strerror(-err));
	return err;
}

/* ---- CPU time ---- */

/* Of all threads of pid, in ns: what the scheduler counted, else in its clock ticks. */
static uint64_t cpu_of_task(const char *folder, const char *tid)
{
	char path[320], line[1024];
	unsigned long long ns = 0, utime, stime;

	snprintf(path, sizeof(path), "%s/%s/schedstat", folder, tid);
	FILE *f = fopen(path, "re");
	int n = f ? fscanf(f, "%llu", &ns) : 0;
	if (f)
		fclose(f);
	if (n == 1)
		return ns;
	snprintf(path, sizeof(path), "%s/%s/stat", folder, tid);
	f = fopen(path, "re");
	const char *rest = f && fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	if (f)
		fclose(f);
	if (!rest || sscanf(rest, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu", &utime, &stime) != 2)
		return 0;
	return (utime + stime) * (1000000000u / (unsigned long long)sysconf(_SC_CLK_TCK));
}

static uint64_t cpu_of(pid_t pid)
{
	char folder[64];
	uint64_t sum = 0;
	struct dirent *e;

	snprintf(folder, sizeof(folder), "/proc/%d/task", (int)pid);
	DIR *d = pid ? opendir(folder) : NULL;
	while (d && (e = readdir(d))) {
		if (e->d_name[0] != '.')
			sum += cpu_of_task(folder, e->d_name);
	}
	if (d)
		closedir(d);
	return sum;
}

static uint64_t own_cpu(void)
{
	struct rusage r;

	getrusage(RUSAGE_SELF, &r);
	return (uint64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000000000u +
	       (uint64_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) * 1000u;
}

/* ---- the run ---- */

struct run {
	const struct master_options *o;
	struct vhost_client c;
	uint64_t blocks, next, random;
	uint64_t ops, errors;
	uint16_t *slot_of_head;
	uint16_t *free_slots;
	unsigned free_count;
};

static void submit_one(struct run *r)
{
	unsigned slot = r->free_slots[--r->free_count];
	uint64_t block = r->o->sequential ? r->next++ % r->blocks : master_random(&r->random) % r->blocks;
	struct virtio_blk_outhdr *h = (void *)(r->c.data + slot * HEADER_BYTES);
	uint64_t at = r->c.data_guest + slot * HEADER_BYTES;
	uint64_t data = r->c.data_guest + r->o->depth * 4096u + slot * r->o->block_bytes;
	struct vdriver_buf b[3] = { { at, sizeof(*h), false },
				    { data, (uint32_t)r->o->block_bytes, !r->o->write },
				    { at + 32, 1, true } };

	h->type = r->o->write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN;
	h->ioprio = 0;
	h->sector = block * (r->o->block_bytes / 512);
	int head = vdriver_add(&r->c.queue[0].driver, b, 3);
	if (head < 0)
		abort(); /* the queue was made large enough */
	r->slot_of_head[head] = (uint16_t)slot;
}

static unsigned reap(struct run *r)
{
	unsigned n = 0;
	uint32_t len;
	int head;

	while ((head = vdriver_get(&r->c.queue[0].driver, &len)) >= 0) {
		unsigned slot = r->slot_of_head[head];
		r->errors += r->c.data[slot * HEADER_BYTES + 32] != VIRTIO_BLK_S_OK;
		r->free_slots[r->free_count++] = (uint16_t)slot;
		n++;
	}
	r->ops += n;
	return n;
}

/* Waits for answers as a guest does: called, or (--poll) looking. False: none for ten seconds. */
static bool wait_answers(struct run *r)
{
	for (uint64_t begin = master_now_ns(); !reap(r);) {
		if (r->o->poll)
			__builtin_ia32_pause();
		else if (!vdriver_call_on(&r->c.queue[0].driver) && !vhost_client_wait(&r->c, 0, 1000) &&
			 master_now_ns() - begin > 10000000000u)
			return false;
		if (!r->o->poll)
			vdriver_call_off(&r->c.queue[0].driver);
	}
	return true;
}

static int drive_until(struct run *r, uint64_t end_ns, bool drain)
{
	while (master_now_ns() < end_ns) {
		while (r->free_count)
			submit_one(r);
		if (vdriver_show(&r->c.queue[0].driver))
			vhost_client_kick(&r->c, 0);
		if (!wait_answers(r))
			return -ETIMEDOUT;
	}
	while (drain && r->free_count < r->o->depth) {
		if (!wait_answers(r))
			return -ETIMEDOUT;
	}
	return 0;
}

static int prepare(struct run *r)
{
	const struct master_options *o = r->o;
	struct virtio_blk_config config;
	struct vhost_client_settings s = { .socket = o->socket, .queues = 1, .num = o->num, .table = o->no_indirect ? 0 : 4,
					   .event_idx = !o->no_event_idx, .inflight = !o->no_inflight,
					   .data_bytes = o->depth * (4096 + o->block_bytes) };
	int err = vhost_client_init(&r->c, &s);

	if (!err)
		err = master_connect(&r->c, o, 5000);
	if (!err)
		err = vhost_client_config(&r->c, &config);
	if (err)
		return err;
	uint64_t span = config.capacity * 512;
	if (o->span_bytes && o->span_bytes < span)
		span = o->span_bytes;
	r->blocks = span / o->block_bytes;
	r->random = o->seed * 0x9e3779b97f4a7c15u + 1;
	r->slot_of_head = calloc(o->num, sizeof(*r->slot_of_head));
	r->free_slots = calloc(o->depth, sizeof(*r->free_slots));
	if (!r->blocks || !r->slot_of_head || !r->free_slots)
		return -EINVAL;
	while (r->free_count < o->depth) {
		r->free_slots[r->free_count] = (uint16_t)r->free_count;
		r->free_count++;
	}
	memset(r->c.data, 0x5a, s.data_bytes); /* its pages are there before the clock runs */
	return 0;
}

static void print_result(const struct run *r, double seconds, uint64_t own_ns, uint64_t server_ns)
{
	double ops = r->ops ? (double)r->ops : 1;

	printf("{\"ops\":%" PRIu64 ",\"errors\":%" PRIu64 ",\"seconds\":%.4f,\"iops\":%.1f,\"bytes_per_second\":%.0f,"
	       "\"latency_us\":%.2f,\"own_cpu_us_per_op\":%.3f",
	       r->ops, r->errors, seconds, (double)r->ops / seconds, (double)r->ops * (double)r->o->block_bytes / seconds,
	       seconds * 1e6 * r->o->depth / ops, (double)own_ns / 1e3 / ops);
	if (r->o->server)
		printf(",\"server_cpu_us_per_op\":%.3f,\"server_cpu_share\":%.3f", (double)server_ns / 1e3 / ops,
		       (double)server_ns / 1e9 / seconds);
	printf("}\n");
}

static int measure(const struct master_options *o)
{
	struct run r = { .o = o };
	int err = prepare(&r);

	if (!err)
		err = drive_until(&r, master_now_ns() + (uint64_t)(o->ramp_seconds * 1e9), false);
	if (!err) {
		r.ops = 0;
		uint64_t begin = master_now_ns(), own = own_cpu(), server = cpu_of(o->server);
		err = drive_until(&r, begin + (uint64_t)(o->seconds * 1e9), true);
		double seconds = (double)(master_now_ns() - begin) / 1e9;
		if (!err)
			print_result(&r, seconds, own_cpu() - own, cpu_of(o->server) - server);
	}
	if (err)
		fprintf(stderr, "vhost-master: %s\n", strerror(-err));
	uint16_t base;
	if (r.c.queue[0].running && !err)
		vhost_client_stop_queue(&r.c, 0, &base);
	vhost_client_done(&r.c);
	free(r.slot_of_head);
	free(r.free_slots);
	return err || r.errors ? 1 : 0;
}

/* ---- the command line ---- */

static const char usage[] =
	"usage: vhost-master --socket PATH [OPTION]...\n"
	"Drives one queue of a vhost-user-blk back end and prints what it did, as JSON.\n"
	"  --rw read|write       --access random|sequential   --bs BYTES (4096)   --depth N (32)\n"
	"  --seconds S (5)       --ramp S (0.5)               --span BYTES (the whole disk)\n"
	"  --num N (128)         descriptors of the queue: a power of two, at least three times the depth without indirect\n"
	"  --poll                look for answers instead of waiting to be called\n"
	"  --no-event-idx --no-indirect --no-inflight\n"
	"  --pid PID             tell the CPU time of this process, too\n"
	"  --verify              write patterns, read them back, for --seconds\n"
	"  --spawn COMMAND       verify: start the back end so; --kills N: kill it N times meanwhile\n"
	"  --seed N\n";

static uint64_t number(const char *text)
{
	char *end;
	uint64_t v = strtoull(text, &end, 10);

	switch (*end) {
	case 'G':
		v <<= 10;
		__attribute__((fallthrough));
	case 'M':
		v <<= 10;
		__attribute__((fallthrough));
	case 'k':
		v <<= 10;
		end++;
		break;
	default:
		break;
	}
	if (end == text || *end) {
		fprintf(stderr, "vhost-master: %s is not a number\n", text);
		exit(2);
	}
	return v;
}

static const struct option long_options[] = {
	{ "socket", 1, NULL, 's' }, { "rw", 1, NULL, 'r' }, { "access", 1, NULL, 'a' }, { "bs", 1, NULL, 'b' },
	{ "depth", 1, NULL, 'd' }, { "seconds", 1, NULL, 't' }, { "ramp", 1, NULL, 'R' }, { "span", 1, NULL, 'S' },
	{ "num", 1, NULL, 'n' }, { "poll", 0, NULL, 'p' }, { "no-event-idx", 0, NULL, 'E' }, { "no-indirect", 0, NULL, 'I' },
	{ "no-inflight", 0, NULL, 'F' }, { "pid", 1, NULL, 'P' }, { "verify", 0, NULL, 'v' }, { "spawn", 1, NULL, 'x' },
	{ "kills", 1, NULL, 'k' }, { "seed", 1, NULL, 'e' }, { "help", 0, NULL, 'h' }, { 0 },
};

static void take_option(struct master_options *o, int c, const char *arg)
{
	switch (c) {
	case 's': o->socket = arg; break;
	case 'r': o->write = !strcmp(arg, "write"); break;
	case 'a': o->sequential = !strcmp(arg, "sequential"); break;
	case 'b': o->block_bytes = number(arg); break;
	case 'd': o->depth = (unsigned)number(arg); break;
	case 't': o->seconds = strtod(arg, NULL); break;
	case 'R': o->ramp_seconds = strtod(arg, NULL); break;
	case 'S': o->span_bytes = number(arg); break;
	case 'n': o->num = (unsigned)number(arg); break;
	case 'p': o->poll = true; break;
	case 'E': o->no_event_idx = true; break;
	case 'I': o->no_indirect = true; break;
	case 'F': o->no_inflight = true; break;
	case 'P': o->server = (pid_t)number(arg); break;
	case 'v': o->verify = true; break;
	case 'x': o->spawn = arg; break;
	case 'k': o->kills = (unsigned)number(arg); break;
	case 'e': o->seed = (unsigned)number(arg); break;
	case 'h':
		fputs(usage, stdout);
		exit(0);
	default:
		fputs(usage, stderr);
		exit(2);
	}
}

int main(int argc, char **argv)
{
	struct master_options o = { .depth = 32, .num = 128, .block_bytes = 4096, .seconds = 5, .ramp_seconds = 0.5, .seed = 1 };
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) >= 0)
		take_option(&o, c, optarg);
	bool fits = o.depth * (o.no_indirect ? 3 : 1) <= o.num;
	if (!o.socket || optind != argc || !o.depth || !o.num || o.num > 1024 || o.num & (o.num - 1) || !fits || !o.block_bytes ||
	    o.block_bytes % 512) {
		fputs(usage, stderr);
		return 2;
	}
	return o.verify ? master_verify(&o) : measure(&o);
}
