/* SPDX-License-Identifier: Apache-2.0 */
/* The sampler and its figures on counters that are made up: a folder for /proc and /sys, and answers of processes that are not there. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "os/file.h"
#include "svc/nc/nc_priv.h"

#define S UINT64_C(1000000000)
#define MS UINT64_C(1000000)
#define NEAR(a, b) assert_true(fabs((a) - (b)) < 1e-6)

static char root[] = "/tmp/mallee-figures-XXXXXX";

static void put(const char *file, const char *fmt, ...) _printf_(2, 3);
static void put(const char *file, const char *fmt, ...)
{
	_cleanup_(buf_done) struct buf path = BUF_INIT;
	va_list ap;

	buf_printf(&path, "%s/%s", root, file);
	*strrchr(path.data, '/') = '\0';
	assert_int_equal(dir_make(path.data, 0755), 0);
	buf_reset(&path);
	buf_printf(&path, "%s/%s", root, file);
	FILE *f = fopen(path.data, "w");
	assert_non_null(f);
	va_start(ap, fmt);
	vfprintf(f, fmt, ap);
	va_end(ap);
	fclose(f);
}

static const struct figures_disk_target volumes[] = {
    {.name = "vol-1", .device_name = "/dev/sda1", .control = "/nowhere/1.sock", .is_volume = true},
    {.name = "vol-2", .device_name = "/dev/sdf", .control = "/nowhere/2.sock", .is_volume = true},
};
static const struct figures_target two[] = {
    {.id = "i-1", .domain = "d1", .tap = "tap1", .interface_id = "eni-1", .vcpus = 2, .disks = volumes, .disk_count = 2},
    {.id = "i-2", .domain = "d2", .tap = "tap2", .interface_id = "eni-2", .vcpus = 1},
};

static int setup(void **state)
{
	struct figures *f = calloc(1, sizeof(*f));

	figures_init(f);
	figures_sync(f, two, 2);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	figures_done(*state);
	free(*state);
	return 0;
}

static struct figures_disk *first_disk(struct figures *f)
{
	return f->instances[0]->disks[0];
}

/* --- readings --- */

static void put_process(int pid, unsigned ticks, unsigned started, unsigned vcpu_ms)
{
	char file[64];

	snprintf(file, sizeof(file), "proc/%d/stat", pid);
	put(file, "%d (qemu (x) 1) S 1 2 3 0 -1 0 0 0 0 0 %u %u 0 0 20 0 4 0 %u 1 2\n", pid, ticks / 2, ticks - ticks / 2, started);
	for (int tid = pid; tid < pid + 3; tid++) {
		snprintf(file, sizeof(file), "proc/%d/task/%d/comm", pid, tid);
		put(file, tid == pid ? "qemu-system-x86" : tid == pid + 1 ? "CPU 0/KVM\n" : "CPU 1/KVM\n");
		snprintf(file, sizeof(file), "proc/%d/task/%d/schedstat", pid, tid);
		put(file, "%llu %llu 9\n", (unsigned long long)vcpu_ms * MS, (unsigned long long)vcpu_ms * MS / 10);
	}
}

static void test_readings(void **state)
{
	struct cpu_reading cpu;
	struct link_reading *links;
	struct disk_reading *disks;
	struct process_reading p, again;
	size_t n;

	put("proc/stat", "cpu  10 20 30 400 50 6 7 8 9 10\ncpu0 1 1 1 1\ncpu1 1 1 1 1\nintr 5\n");
	assert_int_equal(cpu_read(root, &cpu), 0);
	assert_int_equal(cpu.total, 531);
	assert_int_equal(cpu.idle, 450);
	assert_int_equal(cpu.steal, 8);
	assert_int_equal(cpu.cores, 2);

	put("proc/net/dev", "Inter-|   Receive | Transmit\n face |bytes packets\n"
			    "    lo: 1 2 0 0 0 0 0 0 1 2 0 0 0 0 0 0\n  tap1:1000 10 1 2 0 0 0 0 3000 30 4 5 0 0 0 0\n");
	assert_int_equal(links_read(root, &links, &n), 0);
	assert_int_equal(n, 2);
	assert_int_equal(link_find(links, n, "tap1")->rx_bytes, 1000);
	assert_int_equal(link_find(links, n, "tap1")->rx_dropped, 2);
	assert_int_equal(link_find(links, n, "tap1")->tx_packets, 30);
	assert_int_equal(link_find(links, n, "tap1")->tx_dropped, 5);
	assert_null(link_find(links, n, "tap2"));
	free(links);

	put("proc/diskstats", " 8 0 sda 1 0 8 3 4 0 16 6 0 7 9 0 0 0 0 2 1\n nonsense\n");
	assert_int_equal(disks_read(root, &disks, &n), 0);
	assert_int_equal(n, 1);
	assert_int_equal(disk_find(disks, n, "sda")->counters.op[DISK_READ].bytes, 4096);
	assert_null(disk_find(disks, n, "sdb"));
	free(disks);

	put("sys/class/net/eth1/device/vendor", "1\n");
	put("sys/class/net/eth1/speed", "1000\n");
	put("sys/class/net/eth0/device/vendor", "1\n");
	put("sys/class/net/eth0/speed", "-1\n");
	put("sys/class/net/tap1/speed", "10000\n");
	struct nic_reading nics[READINGS_NICS];
	assert_int_equal(nics_read(root, nics), 2);
	assert_string_equal(nics[0].name, "eth0");
	assert_int_equal(nics[0].speed_mbit, 0);
	assert_string_equal(nics[1].name, "eth1");
	assert_int_equal(nics[1].speed_mbit, 1000);
	assert_int_equal(nics_read("/nowhere", nics), 0);

	put_process(100, 200, 5, 300);
	assert_int_equal(process_read(root, 100, 2, NULL, &p), 0);
	assert_int_equal(p.cpu_ns, 200 * (S / (uint64_t)sysconf(_SC_CLK_TCK)));
	assert_int_equal(p.vcpus, 2);
	assert_int_equal(p.vcpu_run_ns[1], 300 * MS);
	assert_int_equal(process_read(root, 100, 2, &p, &again), 0);
	assert_memory_equal(&p, &again, sizeof(p));
	assert_int_equal(process_read(root, 101, 2, NULL, &p), -ESRCH);
}

static void test_device_under(void **state)
{
	char path[128], link[128], device[DISK_NAME_LEN];
	struct stat st;

	snprintf(path, sizeof(path), "%s/file", root);
	put("file", "x");
	assert_int_equal(stat(path, &st), 0);
	if (!major(st.st_dev)) { /* a tmpfs */
		assert_int_equal(device_under(root, path, device), -ENODEV);
		return;
	}
	assert_int_equal(device_under(root, path, device), -ENODEV); /* nothing in our sys/ */
	snprintf(link, sizeof(link), "%s/sys/dev/block", root);
	assert_int_equal(dir_make(link, 0755), 0);
	snprintf(link, sizeof(link), "%s/sys/dev/block/%u:%u", root, major(st.st_dev), minor(st.st_dev));
	put("sys/devices/block/sdq/sdq7/partition", "7\n");
	assert_int_equal(symlink("../../devices/block/sdq/sdq7", link), 0);
	assert_int_equal(device_under(root, path, device), 0);
	assert_string_equal(device, "sdq");
	assert_int_equal(unlink(link), 0);
	assert_int_equal(symlink("../../devices/block/sdq", link), 0);
	assert_int_equal(device_under(root, path, device), 0);
	assert_string_equal(device, "sdq");
	assert_true(device_under(root, "/nowhere", device) < 0);
}

/* --- a disk --- */

/* A process's counters after n seconds of one 64 KiB read at a time, 200 a second, 4 ms each, 2 ms of them below. */
static struct counters_ask after(pid_t pid, uint64_t n)
{
	struct counters_ask a = {.pid = pid, .at_ns = 1000 * S + n * S};

	a.got.guest.op[COUNTERS_READ] = (struct counters_op){.ops = 200 * n, .bytes = 200 * n << 16, .latency_ns = 200 * n * 4 * MS};
	a.got.guest.busy_ns = a.got.guest.weighted_ns = 200 * n * 4 * MS;
	a.got.disk = a.got.guest;
	a.got.disk.op[COUNTERS_READ].latency_ns = a.got.disk.busy_ns = a.got.disk.weighted_ns = 200 * n * 2 * MS;
	return a;
}

static void took(struct figures_disk *d, struct counters_ask a)
{
	figures_disk_took(d, &a);
}

static void test_disk(void **state)
{
	struct figures_disk *d = first_disk(*state);

	took(d, after(7, 1));
	assert_false(d->fresh);
	assert_string_equal(d->why, "not sampled twice yet");
	took(d, after(7, 6));
	assert_true(d->fresh);
	NEAR(d->guest_figures.iops, 200);
	NEAR(d->guest_figures.avgrq_sectors, 128);
	NEAR(d->guest_figures.util_percent, 80);
	NEAR(d->storage_figures.util_percent, 40);
	NEAR(d->storage_figures.avgqu, 0.4);
	NEAR(d->guest_figures.read_await_ms, 4);
	assert_int_equal(d->total.op[DISK_READ].ops, 1000);
	assert_int_equal(d->total.at_ns, 5 * S);
}

static void test_disk_dead_and_started_again(void **state)
{
	struct figures_disk *d = first_disk(*state);

	took(d, after(7, 1));
	took(d, after(7, 6));
	took(d, (struct counters_ask){.err = -ECONNREFUSED, .at_ns = 1011 * S});
	assert_false(d->fresh);
	assert_non_null(strstr(d->why, "does not answer"));
	/* The same one again, late: its figures are of all that time. */
	took(d, after(7, 16));
	assert_true(d->fresh);
	NEAR(d->guest_figures.elapsed_s, 10);
	NEAR(d->guest_figures.iops, 200);
	/* Another one has begun to count anew; also when it has counted further than its predecessor. */
	struct counters_ask next = after(8, 40);
	next.at_ns = 1021 * S;
	took(d, next);
	assert_false(d->fresh);
	assert_non_null(strstr(d->why, "started again"));
	assert_int_equal(d->total.op[DISK_READ].ops, 3000);
	next = after(8, 41);
	next.at_ns = 1022 * S;
	took(d, next);
	assert_true(d->fresh);
	assert_int_equal(d->total.op[DISK_READ].ops, 3200);
	/* Counters that went back, whoever they are of. */
	next = after(8, 2);
	next.at_ns = 1023 * S;
	took(d, next);
	assert_false(d->fresh);
	next = after(8, 3);
	next.at_ns = 1024 * S;
	took(d, next);
	assert_true(d->fresh);
	NEAR(d->guest_figures.util_percent, 80);
	assert_int_equal(d->total.op[DISK_READ].ops, 3400);
}

static void test_file(void **state)
{
	struct figures_disk *d = first_disk(*state);
	struct disk_counters c = {.at_ns = S};

	figures_file_took(d, -EBUSY, NULL);
	assert_false(d->fresh);
	figures_file_took(d, 0, &c);
	c.at_ns = 3 * S;
	c.op[DISK_WRITE] = (struct disk_op_counters){.ops = 100, .bytes = 409600, .wait_ns = 4 * S};
	c.weighted_ns = 4 * S;
	figures_file_took(d, 0, &c);
	assert_true(d->fresh);
	NEAR(d->guest_figures.write_iops, 50);
	NEAR(d->guest_figures.avgqu, 2);
	assert_true(isnan(d->guest_figures.util_percent));
}

/* --- CPU and NIC --- */

static void test_cpu(void **state)
{
	struct figures_cpu *c = &((struct figures *)*state)->instances[0]->cpu;
	struct process_reading p = {.pid = 5, .started_ticks = 1, .vcpus = 2};

	figures_cpu_took(c, 2, 10 * S, &p);
	assert_false(c->fresh);
	p.vcpu_run_ns[0] = 5 * S;
	p.vcpu_run_ns[1] = S;
	p.vcpu_wait_ns[1] = S;
	p.cpu_ns = 7 * S;
	figures_cpu_took(c, 2, 15 * S, &p);
	assert_true(c->fresh);
	NEAR(c->percent, 60);
	NEAR(c->busiest_percent, 100);
	NEAR(c->wait_percent, 20);
	NEAR(c->process_percent, 140);
	p.started_ticks = 2; /* another process of that number */
	figures_cpu_took(c, 2, 20 * S, &p);
	assert_false(c->fresh);
	figures_cpu_took(c, 2, 25 * S, NULL);
	assert_false(c->have);
	assert_int_equal(c->total_ns, 6 * S);
}

static void test_nic(void **state)
{
	struct figures_nic *n = &((struct figures *)*state)->instances[0]->nic;
	struct link_reading l = {.name = "tap1", .rx_bytes = 100};

	figures_nic_took(n, S, &l);
	l.rx_bytes = 1100;
	l.tx_packets = 10;
	figures_nic_took(n, 3 * S, &l);
	assert_true(n->fresh);
	assert_int_equal(n->delta.rx_bytes, 1000);
	l = (struct link_reading){.name = "tap1", .rx_bytes = 50}; /* made anew */
	figures_nic_took(n, 4 * S, &l);
	assert_false(n->fresh);
	figures_nic_took(n, 5 * S, NULL);
	assert_false(n->have);
	assert_int_equal(n->total.rx_bytes, 1000);
}

/* --- who is there --- */

static void test_gone_between_samples(void **state)
{
	struct figures *f = *state;
	struct figures_target now[] = {two[0], {.id = "i-3", .domain = "d3", .tap = "tap3", .vcpus = 1}};
	struct figures_disk *kept = f->instances[0]->disks[1];
	_cleanup_(buf_done) struct buf text = BUF_INIT;

	took(first_disk(f), after(7, 1));
	took(first_disk(f), after(7, 6));
	took(kept, after(9, 1));
	figures_print_metrics(f, &text);
	assert_non_null(strstr(text.data, "mallee_instance_disk_ops_total{instance=\"i-1\",volume=\"vol-1\",device=\"/dev/sda1\",op=\"read\"} 1000\n"));
	assert_non_null(strstr(text.data, "mallee_instance_disk_util_percent{instance=\"i-1\",volume=\"vol-1\",device=\"/dev/sda1\",side=\"storage\"} 40\n"));
	assert_non_null(strstr(text.data, "rule=\"queue-starved\"} 1\n"));
	now[0].disks = &volumes[1]; /* vol-1 was detached, i-2 ended, i-3 came */
	now[0].disk_count = 1;
	figures_sync(f, now, 2);
	assert_int_equal(f->count, 2);
	assert_null(figures_find(f, "i-2"));
	assert_non_null(figures_find(f, "i-3"));
	assert_ptr_equal(first_disk(f), kept);
	assert_true(kept->have);
	buf_reset(&text);
	figures_print_metrics(f, &text);
	assert_null(strstr(text.data, "vol-1"));
	assert_null(strstr(text.data, "i-2"));
	figures_sync(f, NULL, 0);
	assert_int_equal(f->count, 0);
}

static int pid_100(void *ctx, const char *domain, pid_t *ret)
{
	*ret = 100;
	return str_eq(domain, "d1") ? 0 : -ENOENT;
}

/* The whole of it, on a host that has one guest and whose volumes' processes are dead. */
static void test_round(void **state)
{
	struct figures *f = *state;
	const struct figures_instance *i = f->instances[0];

	strcpy(first_disk(f)->host_device, "sda");
	put("proc/stat", "cpu  0 0 0 100 0 0 0 0\ncpu0 0\n");
	put("proc/net/dev", " tap1: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
	put("proc/diskstats", " 8 0 sda 0 0 0 0 0 0 0 0 0 0 0\n");
	put_process(100, 0, 5, 0);
	sampler_round(f, root, pid_100, NULL);
	usleep(100000);
	put("proc/stat", "cpu  50 0 0 150 0 0 0 0\ncpu0 0\n");
	put("proc/net/dev", " tap1: 100 1 0 0 0 0 0 0 300 3 0 0 0 0 0 0\n");
	put("proc/diskstats", " 8 0 sda 10 0 80 20 0 0 0 0 0 20 20\n");
	put_process(100, 10, 5, 10);
	sampler_round(f, root, pid_100, NULL);
	assert_true(i->cpu.fresh && i->cpu.vcpus == 2 && i->cpu.percent > 0);
	assert_true(i->nic.fresh);
	assert_int_equal(i->nic.delta.tx_bytes, 300);
	assert_false(i->disks[0]->fresh);
	assert_non_null(strstr(i->disks[0]->why, "does not answer"));
	assert_false(f->instances[1]->cpu.have);
	assert_true(f->host.fresh);
	NEAR(f->host.cpu_percent, 50);
	assert_int_equal(f->host.disk_count, 1);
	assert_true(f->host.disks[0].fresh);
	NEAR(f->host.disks[0].figures.avgrq_sectors, 8);
	assert_int_equal(f->host.link_count, 2); /* from test_readings */
	assert_false(f->host.links[0].counted.have);
}

/* --- what it is called, and what holds it back --- */

static double metric(const struct figures_metric *list, size_t n, const char *name, bool total)
{
	for (size_t i = 0; i < n; i++)
		if (str_eq(list[i].name, name))
			return total ? list[i].total : list[i].value;
	fail_msg("there is no metric %s", name);
	return 0;
}

static void test_cloudwatch(void **state)
{
	struct figures *f = *state;
	struct figures_metric m[FIGURES_METRICS_MAX];
	size_t n;

	assert_int_equal(figures_disk_metrics(first_disk(f), m), 0);
	took(first_disk(f), after(7, 1));
	took(first_disk(f), after(7, 6));
	took(first_disk(f), after(7, 11));
	n = figures_disk_metrics(first_disk(f), m);
	assert_int_equal(n, 8);
	NEAR(metric(m, n, "VolumeReadOps", false), 1000);
	NEAR(metric(m, n, "VolumeReadOps", true), 2000);
	NEAR(metric(m, n, "VolumeReadBytes", false), 1000 * 65536.0);
	NEAR(metric(m, n, "VolumeWriteOps", false), 0);
	NEAR(metric(m, n, "VolumeTotalReadTime", false), 4);
	NEAR(metric(m, n, "VolumeIdleTime", false), 1);
	NEAR(metric(m, n, "VolumeQueueLength", false), 0.8);
	NEAR(metric(m, n, "VolumeQueueLength", true), 8);
	n = figures_instance_metrics(f->instances[0], m);
	NEAR(metric(m, n, "EBSReadOps", false), 1000);
	for (size_t i = 0; i < n; i++)
		assert_false(str_eq(m[i].name, "DiskReadOps"));
}

static void test_verdict(void **state)
{
	struct figures *f = *state;
	struct finding list[FINDINGS_MAX];
	struct figures_disk *d = first_disk(f);
	struct counters_ask a = after(7, 6), busy;

	assert_int_equal(figures_diagnose(f, f->instances[0], d, list), 0);
	took(d, after(7, 1));
	took(d, a);
	assert_true(figures_diagnose(f, f->instances[0], d, list) > 0);
	assert_string_equal(list[0].rule, "queue-starved");
	a.got.limit_iops = 200;
	a.at_ns += 5 * S;
	busy = a;
	took(d, a); /* and asks for nothing more */
	assert_int_equal(figures_diagnose(f, f->instances[0], d, list), 0);
	/* Held to 200 IOPS: eight at a time, of which the storage sees little. */
	busy.at_ns += 5 * S;
	busy.got.guest.op[COUNTERS_READ].ops += 1000;
	busy.got.guest.op[COUNTERS_READ].bytes += 1000 << 12;
	busy.got.guest.busy_ns += 5 * S;
	busy.got.guest.weighted_ns += 40 * S;
	busy.got.disk.busy_ns += S;
	struct counters_ask saved_up = busy;
	took(d, busy); /* nothing waited: it has some saved up */
	size_t n = figures_diagnose(f, f->instances[0], d, list);
	for (size_t i = 0; i < n; i++)
		assert_string_not_equal(list[i].rule, "volume-limit");
	busy.at_ns += 5 * S;
	busy.got.guest.op[COUNTERS_READ].ops += 1000;
	busy.got.guest.op[COUNTERS_READ].bytes += 1000 << 12;
	busy.got.guest.busy_ns += 5 * S;
	busy.got.guest.weighted_ns += 40 * S;
	busy.got.held = saved_up.got.held + 900;
	took(d, busy);
	NEAR(figures_held_percent(d), 90);
	assert_true(figures_diagnose(f, f->instances[0], d, list) > 0);
	assert_string_equal(list[0].rule, "volume-limit");
	/* Now and then. */
	busy.at_ns += 5 * S;
	busy.got.limit_iops = 0;
	busy.got.guest.op[COUNTERS_READ].ops += 10;
	busy.got.guest.busy_ns += S / 10;
	took(d, busy);
	assert_int_equal(figures_diagnose(f, f->instances[0], d, list), 1);
	assert_string_equal(list[0].rule, "none");
	assert_non_null(strstr(list[0].why, "only 2 %"));
	/* So it is on a busy host, unless the guest's own CPU waits for that. */
	f->host.fresh = true;
	f->host.cpu_percent = 100;
	f->instances[0]->cpu = (struct figures_cpu){.fresh = true, .vcpus = 1, .busiest_percent = 20, .wait_percent = 10};
	busy.at_ns += 5 * S;
	busy.got.guest.op[COUNTERS_READ].ops += 10;
	busy.got.guest.op[COUNTERS_READ].bytes += 10 << 12;
	busy.got.guest.busy_ns += S / 10;
	busy.got.disk.busy_ns += S / 10;
	took(d, busy);
	assert_int_equal(figures_diagnose(f, f->instances[0], d, list), 1);
	assert_string_equal(list[0].rule, "none");
	f->instances[0]->cpu.wait_percent = 75;
	assert_int_equal(figures_diagnose(f, f->instances[0], d, list), 1);
	assert_string_equal(list[0].rule, "host-cpu");
	assert_true(isnan(list[0].gain));
	assert_int_equal(figures_diagnose_cpu(f, f->instances[0], list), 1);
	assert_string_equal(list[0].rule, "host-cpu");
	f->instances[0]->cpu.wait_percent = 5;
	assert_int_equal(figures_diagnose_cpu(f, f->instances[0], list), 0);
	f->instances[0]->cpu.busiest_percent = 95;
	assert_int_equal(figures_diagnose_cpu(f, f->instances[0], list), 1);
	assert_string_equal(list[0].rule, "guest-cpu");
}

/* The host's disk over five seconds: so many requests of so many sectors in sequence, busy for so long. */
static void disk_does(struct figures *f, uint64_t requests, uint64_t sectors, uint64_t busy_ms)
{
	static struct disk_reading sda = {.device = "sda"};
	static uint64_t at_ns = 1000 * S;
	const struct cpu_reading cpu = {.total = 100, .cores = 2};

	sda.counters.op[DISK_READ].ops += requests;
	sda.counters.op[DISK_READ].bytes += requests * sectors * 512;
	sda.counters.busy_ns += busy_ms * MS;
	at_ns += 5 * S;
	figures_host_took(f, at_ns, &cpu, &sda, 1);
}

/* Eight 4 KiB reads at a time in sequence, all the time; over the same five seconds. */
static void guest_reads(struct figures_disk *d, uint64_t requests, uint64_t sequential)
{
	static struct counters_ask a = {.pid = 7, .at_ns = 1000 * S};
	struct counters_op *op = &a.got.guest.op[COUNTERS_READ];

	a.at_ns += 5 * S;
	a.got.guest.places_known = true;
	op->ops += requests;
	op->bytes += requests << 12;
	op->sequential += sequential;
	a.got.guest.busy_ns += 5 * S;
	a.got.guest.weighted_ns += 40 * S;
	a.got.disk = a.got.guest;
	took(d, a);
}

static bool names(const struct figures *f, const struct figures_disk *d, const char *rule)
{
	struct finding list[FINDINGS_MAX];
	size_t n = figures_diagnose(f, f->instances[0], d, list);

	for (size_t i = 0; i < n; i++)
		if (str_eq(list[i].rule, rule))
			return true;
	return false;
}

/* What a disk is able to do is learnt from what it was seen to do when it was busy. */
static void test_verdict_of_the_host_disk(void **state)
{
	struct figures *f = *state;
	struct figures_disk *d = first_disk(f);

	strcpy(d->host_device, "sda");
	disk_does(f, 0, 0, 0);
	guest_reads(d, 0, 0);
	/* 20 MB/s in pieces of 8 sectors keep it busy; nobody knows that there is more. */
	disk_does(f, 25000, 8, 5000);
	guest_reads(d, 25000, 25000);
	assert_false(names(f, d, "small-requests"));
	/* Somebody else gets 100 MB/s of it, in large ones: then it is shared, and waited for. */
	disk_does(f, 1000, 1000, 5000);
	guest_reads(d, 250, 250);
	assert_true(names(f, d, "shared-disk"));
	/* Alone again: small ones. */
	disk_does(f, 25000, 8, 5000);
	guest_reads(d, 25000, 25000);
	assert_true(names(f, d, "small-requests"));
	assert_false(names(f, d, "shared-disk"));
	/* Random ones are small by intent. */
	disk_does(f, 25000, 8, 5000);
	guest_reads(d, 25000, 100);
	assert_false(names(f, d, "small-requests"));
	/* It was never seen to be busy at its best: there may be more. */
	disk_does(f, 2000, 1000, 3000);
	guest_reads(d, 25000, 25000);
	disk_does(f, 25000, 8, 5000);
	guest_reads(d, 25000, 25000);
	assert_false(names(f, d, "small-requests"));
	/* Behind a cache nobody knows whose the disk's work is. */
	d->host_cached = true;
	disk_does(f, 1000, 1000, 5000);
	guest_reads(d, 250, 250);
	assert_false(names(f, d, "shared-disk"));
}

/* Over five seconds: Mb/s that the guest and the host's NIC send, and packets that its tap carried to it and dropped. */
static void nic_does(struct figures *f, uint64_t guest_mbit, uint64_t host_mbit, uint64_t packets, uint64_t dropped)
{
	static struct link_reading tap = {.name = "tap1"}, eth = {.name = "eth0"};
	static uint64_t at_ns = 1000 * S;

	at_ns += 5 * S;
	tap.rx_bytes += guest_mbit * 125000 * 5;
	eth.tx_bytes += host_mbit * 125000 * 5;
	tap.tx_packets += packets;
	tap.tx_dropped += dropped;
	figures_nic_took(&f->instances[0]->nic, at_ns, &tap);
	figures_nic_took(&f->host.links[0].counted, at_ns, &eth);
}

static void test_verdict_of_a_nic(void **state)
{
	struct figures *f = *state;
	const struct figures_instance *i = f->instances[0];
	struct finding list[FINDINGS_MAX];
	_cleanup_(buf_done) struct buf text = BUF_INIT;

	figures_sync_links(f, &(struct nic_reading){.name = "eth0", .speed_mbit = 1000}, 1);
	nic_does(f, 0, 0, 0, 0);
	assert_int_equal(figures_diagnose_nic(f, i, list), 0);
	nic_does(f, 300, 700, 1000, 0);
	assert_int_equal(figures_diagnose_nic(f, i, list), 0);
	nic_does(f, 300, 950, 1000, 5);
	assert_int_equal(figures_diagnose_nic(f, i, list), 1);
	assert_string_equal(list[0].rule, "wire");
	assert_non_null(strstr(list[0].why, "eth0 is full: it sends 950 of its 1000 Mb/s (this guest sends 300 Mb/s)"));
	figures_print_metrics(f, &text);
	assert_non_null(strstr(text.data, "mallee_instance_network_held_back{instance=\"i-1\",rule=\"wire\"} 1\n"));
	assert_non_null(strstr(text.data, "mallee_host_link_megabits_per_second{device=\"eth0\"} 1000\n"));
	nic_does(f, 20, 950, 1000, 0); /* others fill it: a guest that sends next to nothing does not feel that */
	assert_int_equal(figures_diagnose_nic(f, i, list), 0);
	nic_does(f, 20, 100, 950, 50);
	assert_int_equal(figures_diagnose_nic(f, i, list), 1);
	assert_string_equal(list[0].rule, "nic-drops");
	assert_non_null(strstr(list[0].why, "10 of 200 in a second"));
	/* What is known of a NIC stays when another is found; nothing is said of one that tells no speed. */
	const struct nic_reading now[] = {{.name = "dsl0"}, {.name = "eth0"}};
	figures_sync_links(f, now, 2);
	assert_true(f->host.links[1].counted.have);
	nic_does(f, 0, 0, 0, 0);
	assert_int_equal(figures_diagnose_nic(f, i, list), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_readings),
	    cmocka_unit_test(test_device_under),
	    cmocka_unit_test_setup_teardown(test_disk, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_disk_dead_and_started_again, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_file, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_cpu, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_nic, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_gone_between_samples, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_round, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_cloudwatch, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_verdict, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_verdict_of_the_host_disk, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_verdict_of_a_nic, setup, teardown),
	};

	if (!mkdtemp(root))
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	dir_remove(root);
	return failed;
}
