/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "measure/model_bench.h"

#define assert_near(a, b, tolerance) assert_true(fabs((a) - (b)) <= (tolerance))

/* The modelled disk at 112 MB/s, a path of 660 us for 64 KiB. */
static const struct model_bench_row virtio = {
	.configuration = "disk-virtio-phy",
	.workload = "direct-read",
	.depth = 1,
	.request_bytes = 65536,
	.disk_mb_s = 112,
	.flush_us = 8000,
	.latency_us = 660,
};

static struct model_figures predict(struct model_bench_row r)
{
	struct model_disk d;
	struct model_path p;

	assert_int_equal(model_bench_path(&r, &d, &p), 0);
	return model_predict(&d, &p);
}

static struct model_figures with(const char *configuration, const char *workload, double depth)
{
	struct model_bench_row r = virtio;

	r.configuration = configuration;
	r.workload = workload;
	r.depth = depth;
	return predict(r);
}

static void test_reference(void **state)
{
	assert_string_equal(model_bench_reference("aio32-read"), "direct-read");
	assert_string_equal(model_bench_reference("dd-write"), "direct-write");
	assert_null(model_bench_reference("tcp-to-guest"));
	double latency = model_bench_latency_us(65536, 52, 112, 0);
	struct model_bench_row r = virtio;
	r.latency_us = latency;
	assert_near(predict(r).mb_s, 52, 1e-6);
	assert_near(model_bench_latency_us(65536, 120, 112, 99), 0, 0); /* a cache answered */
	assert_near(model_bench_latency_us(65536, 0, 112, 0), 0, 0);
	assert_near(model_bench_latency_us(65536, 1, 112, 90), 6553.6, 1e-6); /* busy with more than the transfer */
}

static void test_depth_is_what_helps(void **state)
{
	struct model_figures f = with("disk-virtio-phy", "direct-read", 1);

	assert_int_equal(f.bound, MODEL_DEPTH);
	assert_near(f.avgrq_sectors, 128, 0);
	assert_near(f.util_percent, 47, 1);
	f = with("disk-virtio-phy", "aio8-read", 8);
	assert_int_equal(f.bound, MODEL_DISK);
	assert_near(f.mb_s, 112, 1e-6);
	assert_near(f.avgqu, 8 - 660 / (65536 / 112.0), 1e-6);
	assert_near(with("mallee", "direct-read", 1).mb_s, 112, 1e-6); /* read ahead for the same guest */
	assert_near(with("mallee", "direct-read", 1).avgrq_sectors, 512, 0);
}

static void test_sizes_follow_the_path(void **state)
{
	assert_near(with("disk-scsi-phy", "dd-write", 1).avgrq_sectors, 256, 0);
	assert_near(with("disk-virtio-phy", "dd-write", 1).avgrq_sectors, 1008, 0);
	struct model_bench_row r = virtio;
	r.configuration = "disk-scsi-tap";
	r.workload = "dd-write";
	r.host_cache = true;
	assert_near(predict(r).avgrq_sectors, 1024, 0);
	r.cache_write_sectors = 950;
	r.cache_write_depth = 12;
	assert_near(predict(r).avgrq_sectors, 950, 0);
	/* Written through, it is the guest's requests again. */
	r.flushes_per_byte = 1.0 / 131072;
	assert_near(predict(r).avgrq_sectors, 256, 0);
}

/* The emulated controller takes one write at a time, and as many reads as there are. */
static void test_depth_that_a_device_has(void **state)
{
	assert_near(with("disk-scsi-phy", "aio8-write", 8).mb_s, with("disk-scsi-phy", "aio32-write", 32).mb_s, 1e-6);
	assert_true(with("disk-scsi-phy", "aio8-write", 8).avgqu < 2);
	assert_int_equal(with("disk-scsi-phy", "direct-write", 1).bound, MODEL_DEPTH);
	/* Three of 256 sectors, cut by the emulator from one, wait for the guest once. */
	assert_near(with("disk-scsi-phy", "dd-write", 1).mb_s, 393216 / (393216 / 112.0 + 660), 1e-6);
	assert_int_equal(with("disk-scsi-phy", "aio8-read", 8).bound, MODEL_DISK);
}

static void test_sparse_file(void **state)
{
	struct model_bench_row r = virtio;

	r.configuration = "file-scsi";
	r.workload = "dd-write";
	r.host_cache = true;
	r.flushes_per_byte = 2.0 / 131072;
	r.metadata_per_byte = 4.0 / 131072;
	r.seek_us = 8000;
	struct model_figures f = predict(r);
	assert_near(f.mb_s, 131072 / (16000 + 3 * 8000 + 131072 / 112.0 + 2 * 8192 / 112.0 + 660 / 3.0), 0.01); /* a third of what the guest sent */
	assert_near(f.avgrq_sectors, (256 + 2 * 16) / 3.0, 1e-9);
	r.flush_us = 0; /* a disk of which that is not known */
	struct model_disk d;
	struct model_path p;
	assert_int_equal(model_bench_path(&r, &d, &p), -ENODATA);
}

static void test_processor_and_limits(void **state)
{
	struct model_bench_row r = virtio;

	r.workload = "aio32-read";
	r.depth = 32;
	r.cpu_us_per_byte = 1 / 50.0;
	assert_near(predict(r).mb_s, 50, 1e-6);
	assert_int_equal(predict(r).bound, MODEL_CPU);
	r.cpu_us_per_byte = 0;
	r.limit_mb_s = 20;
	assert_near(predict(r).mb_s, 20, 1e-6);
	r.limit_iops = 100;
	assert_near(predict(r).requests_s, 100, 1e-6);
	/* A buffered writer works ahead of the disk. */
	r = virtio;
	r.workload = "dd-write";
	r.cpu_us_per_byte = 1 / 200.0;
	assert_near(predict(r).mb_s, 112, 1e-6);
	r.cpu_us_per_byte = 1 / 56.0;
	assert_near(predict(r).mb_s, 56, 1e-6);
	assert_near(predict(r).util_percent, 50, 1e-6);
	/* The reference's latency holds the processor's part already. */
	r = virtio;
	r.cpu_us_per_byte = 300 / 65536.0;
	assert_near(predict(r).mb_s, predict(virtio).mb_s, 1e-6);
}

static void test_random(void **state)
{
	struct model_bench_row r = virtio;
	struct model_disk d;
	struct model_path p;

	r.workload = "rand-read";
	r.depth = 8;
	assert_int_equal(model_bench_path(&r, &d, &p), -ENODATA);
	r.random_us = 8000;
	assert_near(predict(r).requests_s, 125, 1e-6);
	r.request_bytes = 4096;
	assert_near(predict(r).requests_s, 125, 1e-6);
	assert_near(predict(r).avgrq_sectors, 8, 0);
	r.configuration = "mallee"; /* read ahead for streams alone */
	assert_near(predict(r).avgrq_sectors, 8, 0);
	r.workload = "rand-write"; /* taken up by a buffer */
	assert_int_equal(model_bench_path(&r, &d, &p), -ENODATA);
	r.configuration = "disk-virtio-tap";
	r.host_cache = true;
	assert_int_equal(model_bench_path(&r, &d, &p), -ENODATA);
}

static void test_network_volume(void **state)
{
	struct model_bench_row r = virtio;
	struct model_disk d;
	struct model_path p;

	r.configuration = "net-virtio-phy";
	r.workload = "aio32-read";
	r.depth = 32;
	assert_int_equal(model_bench_path(&r, &d, &p), -ENODATA);
	r.mtu = 9000;
	assert_int_equal(predict(r).bound, MODEL_DISK); /* a wire without a limit */
	r.wire_mb_s = 125;
	r.disk_mb_s = 500;
	struct model_figures f = predict(r);
	assert_int_equal(f.bound, MODEL_WIRE);
	assert_near(f.mb_s, 65536 / (8 * 9038 / 125.0), 1e-6);
	r.mtu = 1500; /* a frame of 1 KiB */
	assert_near(predict(r).mb_s, 65536 / (64 * 1538 / 125.0), 1e-6);
	r.host_cache = true; /* the storage host's disk sees that one's requests */
	assert_near(predict(r).avgrq_sectors, 512, 0);
	r.mtu = 68; /* too small for a sector */
	assert_int_equal(model_bench_path(&r, &d, &p), -ENODATA);
}

static void test_unknown(void **state)
{
	struct model_bench_row r = virtio;
	struct model_disk d;
	struct model_path p;

	r.configuration = "ec2-ebs";
	assert_int_equal(model_bench_path(&r, &d, &p), -ENOENT);
	r = virtio;
	r.workload = "tcp-to-guest";
	assert_int_equal(model_bench_path(&r, &d, &p), -ENOENT);
	r = virtio;
	r.disk_mb_s = 0;
	assert_int_equal(model_bench_path(&r, &d, &p), -ENODATA);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_depth_is_what_helps),
		cmocka_unit_test(test_sizes_follow_the_path),
		cmocka_unit_test(test_depth_that_a_device_has),
		cmocka_unit_test(test_sparse_file),
		cmocka_unit_test(test_processor_and_limits),
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_network_volume),
		cmocka_unit_test(test_unknown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
