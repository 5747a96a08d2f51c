/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/apparmor.h"
#include "os/file.h"

#define OWN "# the admin's own\n/data/** r,\n"
#define LINES(id, dir) "# mallee " id ": begin\n" dir "/nc/instances/** r,\n# mallee " id ": end\n"

struct fixture {
	char dir[32], path[64];
};

static int make_dir(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/mallee-aa-XXXXXX");
	*state = f;
	if (!mkdtemp(f->dir))
		return -1;
	strcpy(f->path, f->dir);
	strcat(f->path, "/local");
	return 0;
}

static int remove_dir(void **state)
{
	struct fixture *f = *state;

	dir_remove(f->dir);
	free(f);
	return 0;
}

static void assert_text(const struct fixture *f, const char *want)
{
	_cleanup_(freep) char *text = NULL;
	size_t len;

	assert_int_equal(file_read(f->path, 65536, &text, &len), 0);
	assert_string_equal(text, want);
}

static void test_lines_come_and_go(void **state)
{
	const struct fixture *f = *state;
	struct error e = {0};
	bool changed;

	assert_int_equal(file_write_atomic(f->path, OWN, strlen(OWN), 0644), 0);
	assert_int_equal(apparmor_allow(f->path, "ab12", "/var/lib/mallee", &changed, &e), 0);
	assert_true(changed);
	assert_text(f, OWN LINES("ab12", "/var/lib/mallee"));
	assert_int_equal(apparmor_allow(f->path, "ab12", "/var/lib/mallee", &changed, &e), 0);
	assert_false(changed);
	assert_int_equal(apparmor_allow(f->path, "cd34", "/srv/two", &changed, &e), 0);
	assert_int_equal(apparmor_allow(f->path, "ab12", "/srv/moved", &changed, &e), 0);
	assert_true(changed);
	assert_text(f, OWN LINES("cd34", "/srv/two") LINES("ab12", "/srv/moved"));
	assert_int_equal(apparmor_withdraw(f->path, "cd34", &changed, &e), 0);
	assert_true(changed);
	assert_int_equal(apparmor_withdraw(f->path, "ab12", &changed, &e), 0);
	assert_text(f, OWN);
	assert_int_equal(apparmor_withdraw(f->path, "ab12", &changed, &e), 0);
	assert_false(changed);
}

static void test_missing_file(void **state)
{
	const struct fixture *f = *state;
	struct error e = {0};
	bool changed;

	assert_int_equal(apparmor_withdraw(f->path, "ab12", &changed, &e), 0);
	assert_false(changed);
	assert_int_equal(access(f->path, F_OK), -1);
	assert_int_equal(apparmor_allow(f->path, "ab12", "/var/lib/mallee", &changed, &e), 0);
	assert_text(f, LINES("ab12", "/var/lib/mallee"));
}

static void test_sockets(void **state)
{
	const struct fixture *f = *state;
	struct error e = {0};
	bool changed;

	assert_int_equal(file_write_atomic(f->path, OWN, strlen(OWN), 0644), 0);
	assert_int_equal(apparmor_allow_sockets(f->path, "ab12", "/srv/m", &changed, &e), 0);
	assert_true(changed);
	assert_text(f, OWN "# mallee ab12: begin\nowner /srv/m/**/vhost.sock rw,\n"
			   "# mallee ab12: end\n");
	assert_int_equal(apparmor_allow_sockets(f->path, "ab12", "/srv/m", &changed, &e), 0);
	assert_false(changed);
	assert_true(apparmor_allow_sockets(f->path, "ab12", "/srv/a b", &changed, &e) < 0);
	assert_int_equal(apparmor_withdraw(f->path, "ab12", &changed, &e), 0);
	assert_text(f, OWN);
}

/* What somebody edited is not cut away, and a name cannot become a rule. */
static void test_careful(void **state)
{
	const struct fixture *f = *state;
	const char half[] = "# mallee ab12: begin\n/x r,\n";
	struct error e = {0};
	bool changed;

	assert_int_equal(file_write_atomic(f->path, half, strlen(half), 0644), 0);
	assert_int_equal(apparmor_withdraw(f->path, "ab12", &changed, &e), 0);
	assert_false(changed);
	assert_text(f, half);
	assert_true(apparmor_allow(f->path, "ab12", "/srv/a,\n/** rw", &changed, &e) < 0);
	assert_string_equal(e.code, "InvalidState");
	assert_text(f, half);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_setup_teardown(test_lines_come_and_go, make_dir, remove_dir),
	    cmocka_unit_test_setup_teardown(test_missing_file, make_dir, remove_dir),
	    cmocka_unit_test_setup_teardown(test_sockets, make_dir, remove_dir),
	    cmocka_unit_test_setup_teardown(test_careful, make_dir, remove_dir),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
