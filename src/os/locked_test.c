/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "os/file.h"
#include "os/locked.h"

/* What /proc says of the mapping that holds p: the line of its flags. */
static void flags_of(const void *p, char *ret, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long first, end;
	char line[512];
	int inside = 0;

	assert_non_null(f);
	*ret = '\0';
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &first, &end) == 2)
			inside = (unsigned long)p >= first && (unsigned long)p < end;
		else if (inside && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(ret, size, "%s", line);
	}
	fclose(f);
}

/* Sanitizers make nothing of mlock(), and a limit may forbid it. */
static int can_lock(void)
{
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char flags[512] = "";

	if (page != MAP_FAILED && !mlock(page, 4096))
		flags_of(page, flags, sizeof(flags));
	munmap(page, 4096);
	return strstr(flags, " lo") != NULL;
}

static void test_memory(void **state)
{
	unsigned char *key = locked_new(64);
	char flags[512];
	int status;

	assert_non_null(key);
	for (unsigned i = 0; i < 64; i++)
		assert_int_equal(key[i], 0);
	memset(key, 0x5a, 64);
	flags_of(key, flags, sizeof(flags));
	assert_non_null(strstr(flags, " dd")); /* not dumped */
	assert_non_null(strstr(flags, " wf")); /* wiped in a child */
	if (can_lock())
		assert_non_null(strstr(flags, " lo")); /* locked */
	fflush(stdout);
	pid_t child = fork();
	if (!child)
		_exit(key[0] == 0 && key[63] == 0 ? 0 : 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(key[0], 0x5a);
	locked_free(key);
	locked_free(NULL);
}

static void refused(const char *path, const char *why)
{
	char key[64];
	struct error e = { 0 };

	memset(key, 1, sizeof(key));
	assert_true(locked_read(path, key, sizeof(key), &e) < 0);
	if (!strstr(e.message, why))
		fail_msg("\"%s\" does not say \"%s\"", e.message, why);
}

static void test_files(void **state)
{
	char folder[] = "/tmp/mallee-locked-XXXXXX", path[64], link[64], key[64];
	struct error e = { 0 };

	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/key", folder);
	snprintf(link, sizeof(link), "%s/link", folder);
	refused(path, "opening the key file");
	assert_int_equal(file_write_atomic(path, "0123456789012345678901234567890123456789012345678901234567890123", 64, 0400), 0);
	assert_int_equal(locked_read(path, key, sizeof(key), &e), 0);
	assert_memory_equal(key, "0123456789012345678901234567890123456789012345678901234567890123", 64);
	assert_int_equal(symlink(path, link), 0);
	refused(link, "opening the key file");
	refused(folder, "no regular file");
	assert_int_equal(chmod(path, 0440), 0);
	refused(path, "has mode 0440");
	assert_int_equal(chmod(path, 0604), 0);
	refused(path, "has mode 0604");
	assert_int_equal(file_write_atomic(path, "short", 5, 0600), 0);
	refused(path, "has 5 bytes");
	if (geteuid() == 0) {
		assert_int_equal(chown(path, 12345, 0), 0);
		refused(path, "belongs to user 12345");
	}
	dir_remove(folder);
}

static void test_seal(void **state)
{
	int status;

	fflush(stdout);
	pid_t child = fork();
	if (!child) {
		process_seal();
		_exit(prctl(PR_GET_DUMPABLE) == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_memory), cmocka_unit_test(test_files), cmocka_unit_test(test_seal) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
