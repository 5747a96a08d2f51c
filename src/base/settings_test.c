/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/settings_priv.h"
#include "base/text.h"

struct fixture {
	char dir[64], conf[96];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/mallee-settings-XXXXXX");
	if (!mkdtemp(f->dir))
		return -1;
	snprintf(f->conf, sizeof(f->conf), "%s/mallee.conf", f->dir);
	for (int i = 0; i < SETTING_COUNT; i++) {
		if (setting_describe((enum setting)i)->env)
			unsetenv(setting_describe((enum setting)i)->env);
	}
	setenv("MALLEE_STATE", f->dir, 1);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	unlink(f->conf);
	rmdir(f->dir);
	free(f);
	return 0;
}

static void put_conf(struct fixture *f, const char *text)
{
	FILE *file = fopen(f->conf, "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

static void get_conf(struct fixture *f, char *out, size_t size)
{
	FILE *file = fopen(f->conf, "r");
	size_t n;

	assert_non_null(file);
	n = fread(out, 1, size - 1, file);
	out[n] = '\0';
	fclose(file);
}

static struct settings *load(void)
{
	struct settings *s = NULL;
	struct error e = {0};

	if (settings_load(&s, &e) < 0)
		fail_msg("%s", e.message);
	return s;
}

/* Loading must fail with a message that holds each of the parts. */
static void refuse(const char *part1, const char *part2)
{
	struct settings *s = NULL;
	struct error e = {0};

	assert_true(settings_load(&s, &e) < 0);
	assert_null(s);
	assert_string_equal(e.code, "InvalidSetting");
	if (!strstr(e.message, part1) || !strstr(e.message, part2))
		fail_msg("\"%s\" lacks \"%s\" or \"%s\"", e.message, part1, part2);
}

static void test_defaults(void **state)
{
	struct fixture *f = *state;
	_cleanup_(settings_freep) struct settings *s = load();
	_cleanup_(freep) char *path = settings_path(s, "certs/%s.crt", "clc");
	char want[128];

	snprintf(want, sizeof(want), "%s/certs/clc.crt", f->dir);
	assert_string_equal(path, want);
	assert_string_equal(settings_get(s, SETTING_REGION), "us-east-1");
	assert_string_equal(settings_get(s, SETTING_ZONE), "us-east-1a");
	assert_string_equal(settings_get(s, SETTING_CLOUD_ID), "");
	assert_string_equal(settings_get(s, SETTING_LISTEN), "127.0.0.1");
	assert_string_not_equal(settings_get(s, SETTING_NODE_ID), "");
	assert_int_equal(settings_int(s, SETTING_PORT_BASE), 8773);
	assert_int_equal(settings_port(s, PORT_OPS_WALRUS), 8786);
}

static void test_default_state_folder(void **state)
{
	struct settings *s = NULL;
	struct error e = {0};

	unsetenv("MALLEE_STATE");
	if (access("/var/lib/mallee/mallee.conf", F_OK) == 0) {
		print_message(
		    "skipped: this machine has a cloud whose settings are not ours to judge\n");
		skip();
	}
	assert_int_equal(settings_load(&s, &e), 0);
	assert_string_equal(settings_get(s, SETTING_STATE), "/var/lib/mallee");
	settings_free(s);
}

static void test_precedence(void **state)
{
	put_conf(*state, "# ours\n\n  region =  eu-west-3 \nport_base=20000\r\n");
	setenv("MALLEE_PORT_BASE", "30000", 1);
	{
		_cleanup_(settings_freep) struct settings *s = load();

		assert_string_equal(settings_get(s, SETTING_REGION), "eu-west-3");
		assert_string_equal(settings_get(s, SETTING_ZONE), "eu-west-3a");
		assert_int_equal(settings_int(s, SETTING_PORT_BASE), 30000);
	}
	setenv("MALLEE_PORT_BASE", "", 1); /* empty is unset */
	{
		_cleanup_(settings_freep) struct settings *s = load();

		assert_int_equal(settings_int(s, SETTING_PORT_BASE), 20000);
	}
}

static void test_every_value_is_checked(void **state)
{
	static const struct {
		const char *env, *value;
	} bad[] = {
	    {"MALLEE_PORT_BASE", "1023"},      {"MALLEE_PORT_BASE", "65516"},
	    {"MALLEE_PORT_BASE", "http"},      {"MALLEE_REGION", "mars"},
	    {"MALLEE_REGION", "us-east-"},     {"MALLEE_REGION", "US-EAST-1"},
	    {"MALLEE_REGION", "us--east-1"},   {"MALLEE_REGION", "us-east-1/.."},
	    {"MALLEE_LISTEN", "localhost"},    {"MALLEE_LISTEN", "1.2.3"},
	    {"MALLEE_SUBNET", "10.0.0.0"},     {"MALLEE_SUBNET", "10.0.0.1/24"},
	    {"MALLEE_SUBNET", "10.0.0.0/8"},   {"MALLEE_SUBNET", "10.0.0.0/29"},
	    {"MALLEE_SUBNET", "10.0.0/24"},    {"MALLEE_HYPERVISOR", "vmware"},
	    {"MALLEE_NODE_ID", "a b"},	       {"MALLEE_NODE_ID", "-a"},
	    {"MALLEE_LOG_LEVEL", "verbose"},   {"MALLEE_IMAGE_CACHE_MIB", "0"},
	    {"MALLEE_RESERVE_MIB", "-1"},      {"MALLEE_CPU_RATIO", "1.5"},
	    {"MALLEE_STATE", "relative/path"}, {"MALLEE_ZONE", "1"},
	    {"MALLEE_LOCAL_DISKS", "sdb"},     {"MALLEE_LOCAL_DISKS", "/dev/sdb,"},
	    {"MALLEE_LOCAL_DISKS", "/dev/sdb,/dev/sdb"},
	    {"MALLEE_LOCAL_DISKS", "/dev/../etc/shadow"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		setenv(bad[i].env, bad[i].value, 1);
		refuse(bad[i].env, bad[i].value);
		unsetenv(bad[i].env);
		setenv("MALLEE_STATE", f->dir, 1);
	}
}

static void test_good_values(void **state)
{
	_cleanup_(settings_freep) struct settings *s = load();
	struct error e = {0};

	assert_int_equal(settings_set(s, SETTING_PORT_BASE, "65515", &e), 0);
	assert_int_equal(settings_port(s, PORT_SPAN - 1), 65534);
	assert_int_equal(settings_set(s, SETTING_REGION, "us-gov-west-1", &e), 0);
	assert_string_equal(settings_get(s, SETTING_ZONE), "us-gov-west-1a");
	assert_int_equal(settings_set(s, SETTING_SUBNET, "10.77.16.0/20", &e), 0);
	assert_int_equal(settings_set(s, SETTING_CLOUD_ID, "a1b2", &e), 0);
	assert_true(settings_set(s, SETTING_CLOUD_ID, "1abc", &e) < 0);
	assert_non_null(strstr(e.message, "cloud_id"));
	assert_string_equal(settings_get(s, SETTING_CLOUD_ID), "a1b2");
}

static void test_zone_lies_in_region(void **state)
{
	setenv("MALLEE_ZONE", "eu-west-1a", 1);
	refuse("eu-west-1a", "us-east-1");
}

static void test_bad_files(void **state)
{
	put_conf(*state, "region = us-east-1\nnonsense\n");
	refuse("mallee.conf:2:", "nonsense");
	put_conf(*state, "colour = red\n");
	refuse("mallee.conf:1:", "colour");
	put_conf(*state, "\nport_base = 12\n");
	refuse("mallee.conf:2: port_base", "12");
	put_conf(*state, "state = /elsewhere\n");
	refuse("mallee.conf:1:", "MALLEE_STATE");
}

static void test_save_keeps_what_people_wrote(void **state)
{
	struct fixture *f = *state;
	char text[4096];
	struct stat st;
	struct error e = {0};
	mode_t old = umask(077);

	put_conf(f, "# our region\nregion = eu-west-1\n\n# ports\nport_base = 20000\n");
	{
		_cleanup_(settings_freep) struct settings *s = load();

		assert_int_equal(settings_set(s, SETTING_PORT_BASE, "21000", &e), 0);
		assert_int_equal(settings_set(s, SETTING_CLOUD_ID, "ab12", &e), 0);
		assert_int_equal(settings_save(s, &e), 0);
	}
	umask(old);
	get_conf(f, text, sizeof(text));
	assert_true(
	    str_prefix(text, "# our region\nregion = eu-west-1\n\n# ports\nport_base = 21000\n"));
	assert_non_null(strstr(text, "cloud_id = ab12\n"));
	assert_null(strstr(text, "log_level")); /* defaults stay free to change */
	assert_null(strstr(text, "state ="));
	assert_int_equal(stat(f->conf, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0644);
	{
		_cleanup_(settings_freep) struct settings *s = load();
		char again[4096];

		assert_string_equal(settings_get(s, SETTING_CLOUD_ID), "ab12");
		assert_int_equal(settings_save(s, &e), 0);
		get_conf(f, again, sizeof(again));
		assert_string_equal(again, text);
	}
}

static void test_save_new_file(void **state)
{
	_cleanup_(settings_freep) struct settings *s = load();
	struct error e = {0};

	assert_int_equal(settings_set(s, SETTING_SUBNET, "10.1.0.0/16", &e), 0);
	assert_int_equal(settings_save(s, &e), 0);
	settings_free(TAKE_PTR(s));
	s = load();
	assert_string_equal(settings_get(s, SETTING_SUBNET), "10.1.0.0/16");
}

static void test_save_into_a_missing_folder(void **state)
{
	_cleanup_(settings_freep) struct settings *s = NULL;
	struct error e = {0};

	setenv("MALLEE_STATE", "/tmp/mallee-no-such-folder/", 1);
	s = load();
	assert_string_equal(settings_get(s, SETTING_STATE), "/tmp/mallee-no-such-folder");
	assert_int_equal(settings_save(s, &e), -ENOENT);
	assert_non_null(strstr(e.message, "/tmp/mallee-no-such-folder/mallee.conf"));
}

static void test_describe_names_all(void **state)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;

	settings_describe(&out);
	for (int i = 0; i < SETTING_COUNT; i++) {
		const struct setting_desc *d = setting_describe((enum setting)i);

		assert_non_null(strstr(out.data, d->env ? d->env : d->name));
		assert_non_null(strstr(out.data, d->doc));
		assert_int_equal(setting_by_name(d->name), i);
	}
	assert_int_equal(setting_by_name("none"), -ENOENT);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_defaults),	   TEST(test_default_state_folder),
	    TEST(test_precedence),	   TEST(test_every_value_is_checked),
	    TEST(test_good_values),	   TEST(test_zone_lies_in_region),
	    TEST(test_bad_files),	   TEST(test_save_keeps_what_people_wrote),
	    TEST(test_save_new_file),	   TEST(test_save_into_a_missing_folder),
	    TEST(test_describe_names_all),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
