/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/top_screen.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define N(v) ((struct wire_double){.set = true, .value = (v)})

static struct node_io_figures guest = {
    .iops = N(200), .read_iops = N(200), .write_iops = N(0), .mb_s = N(13.1), .request_sectors = N(128), .queue_size = N(0.8),
    .util_percent = N(80), .await_ms = N(4), .sequential_percent = N(97)};
static struct node_io_figures storage = {.iops = N(12345), .mb_s = N(13.1), .util_percent = N(40)};
static struct node_io_figures host = {.iops = N(999)};
static struct node_finding full = {.rule = "wire", .why = "The host's eth0 is full.", .mend = "A faster link."};
static struct node_finding starved = {.rule = "queue-starved",
				      .why = "One request at a time: while it travels through the layers the disk is idle.",
				      .mend = "Read ahead.",
				      .gain = N(2.5)};

/* its disk's, and its CPUs' */
static struct node_finding of_instance[] = {
    {.rule = "queue-starved", .why = "As its disk's.", .mend = "Read ahead."},
    {.rule = "wire", .why = "As its NIC's.", .mend = "A faster link."},
    {.rule = "host-cpu", .why = "A virtual CPU waits.", .mend = "Run fewer guests."}};

/* Two instances: an idle one with a disk without figures, and a busy one. */
struct answer {
	struct node_disk_figures disks[2];
	struct node_host_disk_figures host_disk;
	struct node_host_link_figures host_link;
	struct node_nic_figures nic;
	struct node_host_figures host;
	struct node_instance_figures instances[2];
	struct node_get_figures_response r;
};

static struct node_get_figures_response *answer(struct answer *a)
{
	*a = (struct answer){
	    .disks = {{.name = "vol-1", .kind = "volume", .device_name = "/dev/sdf\033[2J", .why_empty = "its process does not answer"},
		      {.name = "vol-2",
		       .kind = "volume",
		       .device_name = "/dev/sda1",
		       .guest = &guest,
		       .storage = &storage,
		       .host_device = "vda",
		       .limit_iops = N(3000),
		       .held_back_by = {.set = true, .count = 1, .items = &starved}}},
	    .host_disk = {.device = "vda", .figures = &host},
	    .host_link = {.device = "eth0", .speed_mbit_s = N(1000), .receive_mbit_s = N(3), .send_mbit_s = N(940)},
	    .nic = {.device = "tap1", .send_mbit_s = N(930), .held_back_by = {.set = true, .count = 1, .items = &full}},
	    .host = {.cores = WIRE_INT_OF(2), .cpu_percent = N(43), .disks = {.set = true, .count = 1, .items = &a->host_disk},
		     .links = {.set = true, .count = 1, .items = &a->host_link}},
	    .instances = {{.instance_id = "i-a", .vcpus = WIRE_INT_OF(1), .disks = {.set = true, .count = 1, .items = &a->disks[0]}},
			  {.instance_id = "i-b",
			   .vcpus = WIRE_INT_OF(2),
			   .cpu_percent = N(7),
			   .held_back_by = {.set = true, .count = 3, .items = of_instance},
			   .nics = {.set = true, .count = 1, .items = &a->nic},
			   .disks = {.set = true, .count = 1, .items = &a->disks[1]}}},
	    .r = {.node_id = "n1",
		  .time = WIRE_TIME_OF(0),
		  .interval_ms = WIRE_INT_OF(5000),
		  .host = &a->host,
		  .instances = {.set = true, .count = 2, .items = a->instances}},
	};
	return &a->r;
}

static void test_once(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	struct answer a;

	top_print(answer(&a), &(struct top_view){.width = 120}, &out);
	assert_non_null(strstr(out.data, "node n1 at 1970-01-01T00:00:00Z, over 5.0 s; 2 instances\n"));
	assert_non_null(strstr(out.data, "host: 2 cores  CPU 43 %"));
	assert_non_null(strstr(out.data, "    guest                         "
					 "    200.0    200.0     0.00     13.1    128.0     0.80     80.0     4.00     97.0\n"));
	assert_non_null(strstr(out.data, "    storage                       "
					 "    12345        -        -     13.1        -        -     40.0        -        -\n"));
	assert_non_null(strstr(out.data, "    host's vda, all on it "));
	assert_non_null(strstr(out.data, "    limit 3000 IOPS\n"));
	assert_non_null(strstr(out.data, "HELD BACK: queue-starved, 2.5 times as much to be had. One request"));
	assert_non_null(strstr(out.data, "Mend: Read ahead."));
	assert_non_null(strstr(out.data, "HELD BACK: host-cpu. A virtual CPU waits. Mend: Run fewer guests.\n"));
	assert_non_null(strstr(out.data, "HELD BACK: wire. The host's eth0 is full. Mend: A faster link.\n"));
	assert_non_null(strstr(out.data, "host's eth0, 1000 Mb/s: receives 3.00 Mb/s, sends 940.00 Mb/s\n"));
	assert_null(strstr(out.data, "As its"));
	assert_non_null(strstr(out.data, "/dev/sdf?[2J vol-1: no figures: its process does not answer\n"));
	assert_null(strchr(out.data, '\033'));
	/* the busy one first, or by id */
	assert_true(strstr(out.data, "i-b") < strstr(out.data, "i-a"));
	buf_reset(&out);
	top_print(answer(&a), &(struct top_view){.width = 120, .sort = TOP_ID}, &out);
	assert_true(strstr(out.data, "i-a") < strstr(out.data, "i-b"));
}

static void test_fits_the_terminal(void **state)
{
	static const int sizes[][2] = {{120, 50}, {80, 23}, {80, 5}, {30, 10}, {1, 1}};

	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		_cleanup_(buf_done) struct buf out = BUF_INIT;
		struct answer a;
		int lines = 0;

		top_print(answer(&a), &(struct top_view){.width = sizes[i][0], .height = sizes[i][1]}, &out);
		for (const char *at = out.data, *end; (end = strchr(at, '\n')); at = end + 1, lines++)
			assert_true(end - at <= sizes[i][0]);
		assert_true(lines <= sizes[i][1]);
	}
}

static void test_sorts(void **state)
{
	assert_int_equal(top_sort_parse("busiest"), TOP_BUSIEST);
	assert_int_equal(top_sort_parse("id"), TOP_ID);
	assert_int_equal(top_sort_parse("size"), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_once),
	    cmocka_unit_test(test_fits_the_terminal),
	    cmocka_unit_test(test_sorts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
