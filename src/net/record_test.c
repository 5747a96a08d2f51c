/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/net_priv.h"
#include "os/file.h"

static int setup(void **state)
{
	char *dir = strdup("/tmp/mallee-record-test-XXXXXX");

	*state = mkdtemp(dir);
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	dir_remove(*state);
	free(*state);
	return 0;
}

static const struct record_port port = {
    .instance_id = "i-0123456789abcdef0",
    .tap = "mltt19abcdef0",
    .mac = "02:00:00:00:00:01",
    .ip = "10.9.0.4",
    .hostname = "ip-10-9-0-4",
    .account = "123456789012",
    .group = 3,
    .uid = 4294967294,
    .gid = 61000,
};

static void test_round_trip(void **state)
{
	struct record_sysctl s = {"ipv4/ip_forward", "0", "1"};
	struct record_rule rule = {"iptables-nft", "FORWARD",
				   "-i mlbt1 --comment mallee-t1 -j ACCEPT"};
	struct record r, back;
	struct error e = {0};

	assert_int_equal(record_load(*state, &r, &e), -ENOENT);
	assert_int_equal(record_new(*state, "t1", "10.9.0.0/20", &r, &e), 0);
	record_add_sysctl(&r, &s);
	record_add_rule(&r, &rule);
	record_add_port(&r, &port);
	record_add_port(&r, &port);
	strcpy(r.ports[1].instance_id, "i-2");
	assert_int_equal(record_save(&r, &e), 0);
	assert_int_equal(record_load(*state, &back, &e), 0);
	assert_string_equal(back.cloud_id, "t1");
	assert_string_equal(back.bridge, "mlbt1");
	assert_string_equal(back.subnet, "10.9.0.0/20");
	assert_int_equal(back.sysctl_count, 1);
	assert_memory_equal(&back.sysctls[0], &r.sysctls[0], sizeof(s));
	assert_string_equal(back.rules[0].spec, rule.spec);
	assert_int_equal(back.port_count, 2);
	assert_memory_equal(&back.ports[0], &port, sizeof(port));
	record_remove_port(&back, record_find_port(&back, port.instance_id));
	assert_null(record_find_port(&back, port.instance_id));
	assert_ptr_equal(record_find_port(&back, "i-2"), &back.ports[0]);
	assert_int_equal(record_delete(&back, &e), 0);
	assert_int_equal(record_delete(&back, &e), 0);
	record_done(&r);
	record_done(&back);
}

/* Uninstalling acts on what it reads there, as root. */
static void test_refuses_what_we_did_not_write(void **state)
{
#define HEAD "{\"version\":1,\"cloud_id\":\"t1\",\"bridge\":\"mlbt1\",\"subnet\":\"10.9.0.0/20\","
#define TAIL "\"rules\":[],\"ports\":[]}"
	static const char *const bad[] = {
	    "",
	    "[]",
	    "{}",
	    "{\"version\":2}",
	    "\xff\xfe",
	    HEAD "\"sysctls\":{}," TAIL,
	    HEAD
	    "\"sysctls\":[{\"name\":\"../../etc/passwd\",\"before\":\"0\",\"set\":\"1\"}]," TAIL,
	    HEAD
	    "\"sysctls\":[{\"name\":\"ipv4/../../kernel/x\",\"before\":\"0\",\"set\":\"1\"}]," TAIL,
	    HEAD
	    "\"sysctls\":[],\"rules\":[{\"command\":\"sh\",\"chain\":\"-c\",\"spec\":\"--comment mallee-t1 -j "
	    "ACCEPT\"}],\"ports\":[]}",
	    HEAD "\"sysctls\":[{\"name\":\"ipv4/ip_forward\",\"before\":0,\"set\":\"1\"}]," TAIL,
	    "{\"version\":1,\"cloud_id\":\"t1\",\"bridge\":\"eth0\",\"subnet\":\"10.9.0.0/20\",\"sysctls\":[]," TAIL,
	    "{\"version\":1,\"cloud_id\":\"; rm\",\"bridge\":\"mlb; rm\",\"subnet\":\"10.9.0.0/20\",\"sysctls\":[]," TAIL,
	    HEAD
	    "\"sysctls\":[],\"rules\":[],\"ports\":[{\"instance\":\"i-1\",\"tap\":\"eth0\",\"mac\":\"02:00:00:00:00:01\","
	    "\"ip\":\"10.9.0.4\",\"hostname\":\"h\",\"account\":\"\",\"group\":1,\"uid\":1,\"gid\":1}]}",
	};
	char path[128];

	snprintf(path, sizeof(path), "%s/host.json", (char *)*state);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct error e = {0};
		struct record r;

		assert_int_equal(file_write_atomic(path, bad[i], strlen(bad[i]), 0600), 0);
		assert_int_equal(record_load(*state, &r, &e), -EREMOTEIO);
		assert_non_null(strstr(e.message, path));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_refuses_what_we_did_not_write, setup, teardown),
	};

	return cmocka_run_group_tests_name("net/record", tests, NULL, NULL);
}
