/* SPDX-License-Identifier: Apache-2.0 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/text.h"
#include "os/file.h"
#include "os/privs.h"

#define NOBODY 65534

static bool need_root(void)
{
	if (geteuid() == 0)
		return true;
	print_message("skipped: only root can change its user\n");
	return false;
}

/* Runs fn in a child, since there is no way back; its exit code. */
static int in_child(int (*fn)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(fn());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

/* A hexadecimal line of /proc/self/status */
static uint64_t status_hex(const char *key)
{
	_cleanup_(freep) char *text = NULL;
	char *line;

	if (file_read("/proc/thread-self/status", 65536, &text, NULL) < 0)
		return UINT64_MAX;
	line = strstr(text, key);
	return line ? strtoull(line + strlen(key), NULL, 16) : UINT64_MAX;
}

static int drop_all(void)
{
	struct error e = {0};

	if (privs_drop(NOBODY, NOBODY, 0, &e) < 0)
		return 1;
	if (getuid() != NOBODY || geteuid() != NOBODY || getgid() != NOBODY)
		return 2;
	if (setuid(0) == 0 || setgid(0) == 0)
		return 3;
	if (status_hex("CapEff:\t") || status_hex("CapPrm:\t") || status_hex("CapBnd:\t"))
		return 4;
	if (status_hex("NoNewPrivs:\t") != 1)
		return 5;
	if (access("/root/.", R_OK) == 0 && access("/etc/shadow", R_OK) == 0)
		return 6;
	return 0;
}

static void test_drop_all(void **state)
{
	if (!need_root())
		skip();
	assert_int_equal(in_child(drop_all), 0);
}

static int drop_keep_one(void)
{
	const uint64_t keep = UINT64_C(1) << CAP_NET_BIND_SERVICE;
	struct error e = {0};

	if (privs_drop(NOBODY, NOBODY, keep, &e) < 0)
		return 1;
	return status_hex("CapEff:\t") == keep && status_hex("CapPrm:\t") == keep ? 0 : 2;
}

static void test_drop_keeps_what_was_asked(void **state)
{
	if (!need_root())
		skip();
	assert_int_equal(in_child(drop_keep_one), 0);
}

static int drop_as_nobody(void)
{
	struct error e = {0};

	if (privs_drop(NOBODY, NOBODY, 0, &e) < 0)
		return 1;
	if (privs_drop(NOBODY, NOBODY, 0, &e) < 0) /* again, as who we are: fine */
		return 2;
	if (privs_drop(0, 0, 0, &e) != -EPERM || !strstr(e.message, "user 0"))
		return 3;
	return 0;
}

static void test_unprivileged_cannot_change(void **state)
{
	if (!need_root())
		skip();
	assert_int_equal(in_child(drop_as_nobody), 0);
}

static int bound(void)
{
	const uint64_t keep = UINT64_C(1) << CAP_CHOWN | UINT64_C(1) << CAP_SETPCAP;
	struct error e = {0};

	if (privs_bound(keep, &e) < 0)
		return 1;
	if (geteuid() != 0 || status_hex("CapEff:\t") != keep || status_hex("CapBnd:\t") != keep)
		return 2;
	/* Not to be had back by executing something either. */
	if (system("grep -q 'CapEff:.*0000000000000101' /proc/self/status") != 0)
		return 3;
	return 0;
}

static void test_bound(void **state)
{
	if (!need_root())
		skip();
	assert_int_equal(in_child(bound), 0);
}

static void test_lookup(void **state)
{
	uid_t uid = 5;
	gid_t gid = 5;

	assert_int_equal(privs_lookup_user("nobody", &uid, &gid), 0);
	assert_int_equal(uid, NOBODY);
	assert_int_equal(privs_lookup_user("mallee-no-such-user", &uid, &gid), -ENOENT);
	assert_int_equal(uid, NOBODY);
}

static void test_port_holder(void **state)
{
	_cleanup_(fd_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(a);
	char holder[64], want[64];

	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
	strcpy(holder, "untouched");
	port_holder(ntohs(a.sin_port), holder, sizeof(holder));
	assert_string_equal(holder, ""); /* bound, but it does not listen */
	assert_int_equal(listen(fd, 1), 0);
	port_holder(ntohs(a.sin_port), holder, sizeof(holder));
	snprintf(want, sizeof(want), "(pid %d)", getpid());
	assert_true(str_suffix(holder, want));
	assert_true(str_prefix(holder, "os_privs_test "));
	port_holder(ntohs(a.sin_port), holder, 4);
	assert_string_equal(holder, "os_");
}

static void test_path_traversable(void **state)
{
	char dir[] = "/tmp/mallee-privs-XXXXXX", path[128], shut[128];
	struct error e = {0};

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chmod(dir, 0755), 0);
	snprintf(path, sizeof(path), "%s/a//b/disk.raw", dir);
	snprintf(shut, sizeof(shut), "%s/a/b", dir);
	assert_int_equal(dir_make(shut, 0755), 0);
	assert_int_equal(file_write_atomic(path, "x", 1, 0600), 0);
	if (!need_root()) {
		assert_int_equal(path_traversable(path, geteuid(), getegid(), &e), 0);
		dir_remove(dir);
		return;
	}
	assert_int_equal(path_traversable(path, NOBODY, NOBODY, &e), 0);
	assert_int_equal(path_traversable("/", NOBODY, NOBODY, &e), 0);
	assert_int_equal(path_traversable(shut, NOBODY, NOBODY, &e), 0);
	assert_int_equal(chmod(shut, 0700), 0);
	assert_int_equal(path_traversable(path, 0, 0, &e), 0);
	assert_int_equal(path_traversable(path, NOBODY, NOBODY, &e), -EACCES);
	assert_non_null(strstr(e.message, "nobody"));
	assert_non_null(strstr(e.message, "/a//b (mode 0700)"));
	error_clear(&e);
	/* A group that lets it in. */
	assert_int_equal(chown(shut, 0, NOBODY), 0);
	assert_int_equal(chmod(shut, 0710), 0);
	assert_int_equal(path_traversable(path, NOBODY, NOBODY, &e), 0);
	snprintf(path, sizeof(path), "%s/none/x", dir);
	assert_int_equal(path_traversable(path, NOBODY, NOBODY, &e), -ENOENT);
	assert_non_null(strstr(e.message, "/none"));
	error_clear(&e);
	assert_int_equal(path_traversable("relative", NOBODY, NOBODY, &e), -EINVAL);
	assert_int_equal(dir_remove(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_drop_all),
	    cmocka_unit_test(test_drop_keeps_what_was_asked),
	    cmocka_unit_test(test_unprivileged_cannot_change),
	    cmocka_unit_test(test_bound),
	    cmocka_unit_test(test_lookup),
	    cmocka_unit_test(test_port_holder),
	    cmocka_unit_test(test_path_traversable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
