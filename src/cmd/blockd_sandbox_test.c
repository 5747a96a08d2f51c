/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/blockd_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/fs.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/macros.h"
#include "block/core/layer.h"

/* What the process may ask for: each in a child of its own, behind the filter; 0 is success. */

static int runs_a_program(void)
{
	return execl("/bin/true", "true", NULL);
}

static int forks(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	return pid < 0 ? -1 : 0;
}

static int traces(void)
{
	return (int)syscall(SYS_ptrace, 0, 0, 0, 0);
}

static int mounts(void)
{
	return (int)syscall(SYS_mount, "x", "/nonexistent", "tmpfs", 0, NULL) && errno == ENOENT ? 0 : -1;
}

static int unmounts(void)
{
	return (int)syscall(SYS_umount2, "/nonexistent", 0) && (errno == ENOENT || errno == EPERM) ? 0 : -1;
}

static int becomes_root(void)
{
	return (int)syscall(SYS_setuid, 0);
}

static int makes_a_ring(void)
{
	struct io_uring ring;

	return io_uring_queue_init(4, &ring, 0);
}

static int makes_code(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0;
}

static int turns_data_into_code(void)
{
	void *at = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return at == MAP_FAILED || mprotect(at, 4096, PROT_READ | PROT_EXEC) ? -1 : 0;
}

static int kills_another(void)
{
	return kill(getppid(), 0);
}

static int asks_a_device(void)
{
	return ioctl(0, BLKROSET, &(int){ 1 }) && errno == ENOTTY ? 0 : -1;
}

static int dials(int family)
{
	int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

	return fd < 0 && errno != EAFNOSUPPORT ? -1 : 0;
}

static int dials_unix(void)
{
	return dials(AF_UNIX);
}

static int dials_inet(void)
{
	return dials(AF_INET);
}

static int dials_packet(void)
{
	return dials(AF_PACKET);
}

static int opens_a_file(void)
{
	return open("/dev/null", O_RDWR | O_CLOEXEC) < 0 ? -1 : 0;
}

static int listens(void)
{
	return listen(0, 1) && errno == ENOTSOCK ? 0 : -1;
}

static void *store(void *arg)
{
	*(int *)arg = 1;
	return NULL;
}

static int starts_a_thread(void)
{
	pthread_t t;
	int done = 0;

	return pthread_create(&t, NULL, store, &done) || pthread_join(t, NULL) || !done;
}

static int allocates(void)
{
	void *p = malloc(64 << 20);

	if (!p)
		return -1;
	memset(p, 1, 64 << 20);
	free(p);
	return 0;
}

static int ends_itself(void)
{
	signal(SIGUSR1, SIG_IGN);
	return kill(getpid(), SIGUSR1);
}

#define ALL_NEEDS (BLK_NEEDS_FILES | BLK_NEEDS_UNIX | BLK_NEEDS_INTERNET | BLK_NEEDS_UNMOUNT)

static const struct trial {
	const char *name;
	int (*run)(void);
	unsigned needs;
	bool allowed;
} trials[] = {
	{ "a program", runs_a_program, ALL_NEEDS, false },
	{ "fork", forks, ALL_NEEDS, false },
	{ "ptrace", traces, ALL_NEEDS, false },
	{ "mount", mounts, ALL_NEEDS, false },
	{ "setuid", becomes_root, ALL_NEEDS, false },
	{ "another ring", makes_a_ring, ALL_NEEDS, false },
	{ "executable memory", makes_code, ALL_NEEDS, false },
	{ "memory made executable", turns_data_into_code, ALL_NEEDS, false },
	{ "a signal to another", kills_another, ALL_NEEDS, false },
	{ "another ioctl", asks_a_device, ALL_NEEDS, false },
	{ "AF_PACKET", dials_packet, ALL_NEEDS, false },
	{ "listen", listens, ALL_NEEDS, false },
	{ "AF_INET", dials_inet, BLK_NEEDS_UNIX | BLK_NEEDS_FILES | BLK_NEEDS_UNMOUNT, false },
	{ "AF_INET for an NBD client", dials_inet, BLK_NEEDS_INTERNET, true },
	{ "AF_UNIX", dials_unix, BLK_NEEDS_FILES | BLK_NEEDS_UNMOUNT, false },
	{ "AF_UNIX for an NBD client", dials_unix, BLK_NEEDS_UNIX, true },
	{ "a file", opens_a_file, BLK_NEEDS_UNIX | BLK_NEEDS_UNMOUNT, false },
	{ "a file for snap", opens_a_file, BLK_NEEDS_FILES, true },
	{ "umount", unmounts, BLK_NEEDS_FILES | BLK_NEEDS_UNIX | BLK_NEEDS_INTERNET, false },
	{ "umount for fuse", unmounts, BLK_NEEDS_UNMOUNT, true },
	{ "a thread", starts_a_thread, 0, true },
	{ "memory", allocates, 0, true },
	{ "a signal to itself", ends_itself, 0, true },
};

static int in_child(const struct trial *t, int fd)
{
	struct error e = { 0 };
	pid_t pid = fork();
	int status;

	if (!pid) {
		dup2(fd, STDERR_FILENO);
		if (blockd_sandbox_enter(t->needs, &e))
			_exit(3);
		_exit(t->run() ? 4 : 0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void test_calls(void **state)
{
	for (size_t i = 0; i < ARRAY_SIZE(trials); i++) {
		char said[1024] = "";
		int fd = memfd_create("stderr", MFD_CLOEXEC);
		int status = in_child(&trials[i], fd);
		_unused_ ssize_t n = pread(fd, said, sizeof(said) - 1, 0);
		close(fd);
		bool told = strstr(said, "a system call that the sandbox forbids") && strstr(said, " syscall=");
		bool refused = WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
		bool fine = WIFEXITED(status) && WEXITSTATUS(status) == 0;
		if (trials[i].allowed ? !fine || told : !refused || !told)
			fail_msg("%s: status %x, stderr: %s", trials[i].name, (unsigned)status, said);
	}
}

/* Threads that were there before are behind the filter as well. */
static int go[2];

static void *wait_and_exec(void *arg)
{
	char c;

	if (read(go[0], &c, 1) == 1)
		execl("/bin/true", "true", NULL);
	return NULL;
}

static int the_other_thread_runs_a_program(void)
{
	return write(go[1], "x", 1) == 1 && sleep(10) ? -1 : 0;
}

static void test_all_threads(void **state)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct error e = { 0 };
		pthread_t t;
		int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		dup2(null, STDERR_FILENO);
		if (pipe2(go, O_CLOEXEC) || pthread_create(&t, NULL, wait_and_exec, NULL) || blockd_sandbox_enter(0, &e))
			_exit(3);
		_exit(the_other_thread_runs_a_program() ? 4 : 5);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
}

static void test_state(void **state)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct error e = { 0 };
		FILE *f = fopen("/proc/self/status", "re");
		char line[256];
		int seen = 0;
		if (blockd_sandbox_enter(0, &e))
			_exit(3);
		while (fgets(line, sizeof(line), f))
			seen += strcmp(line, "Seccomp:\t2\n") == 0 || strcmp(line, "NoNewPrivs:\t1\n") == 0;
		_exit(seen == 2 ? 0 : 4);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_calls),
		cmocka_unit_test(test_all_threads),
		cmocka_unit_test(test_state),
	};

	/* With sanitizers the process makes calls of its own. */
	if (!BLOCKD_SANDBOX_DEFAULT) {
		printf("skipped: the filter is off in a build with sanitizers\n");
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
