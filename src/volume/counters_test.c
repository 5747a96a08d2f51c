/* SPDX-License-Identifier: Apache-2.0 */
/* With real processes of mallee-blockd (argv[1]), and with a server that answers as it is told. */
#include "volume/counters.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/text.h"
#include "os/file.h"

#define TIMEOUT_MS 2000

static const char *program; /* mallee-blockd */
static char dir[] = "/tmp/mallee-counters-XXXXXX";

static void path_of(const char *name, char out[static 108])
{
	snprintf(out, 108, "%s/%s", dir, name);
}

static pid_t start(const char *socket_path)
{
	pid_t pid = fork();

	if (pid == 0) {
		execl(program, program, "--control", socket_path, "--filter", "throttle:iops=700", "--back", "mem:size=1M", NULL);
		_exit(1);
	}
	assert_true(pid > 0);
	/* Its socket is there a little before it listens, and that before it answers. */
	struct counters_link link = {0};
	struct counters_ask ask = {.link = &link, .path = socket_path};
	do
		usleep(10000);
	while (counters_round(&ask, 1, TIMEOUT_MS), ask.err && waitpid(pid, NULL, WNOHANG) == 0);
	counters_link_done(&link);
	assert_int_equal(ask.err, 0);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	kill(pid, SIGCONT);
	waitpid(pid, NULL, 0);
}

static void round_of(struct counters_ask *asks, size_t count)
{
	counters_round(asks, count, TIMEOUT_MS);
}

static void test_blockd(void **state)
{
	struct counters_link link = {0}, nobody = {0};
	struct counters_ask asks[2] = {{.link = &link}, {.link = &nobody}};
	char path[108], absent[108];

	path_of("real.sock", path);
	path_of("absent.sock", absent);
	asks[0].path = path;
	asks[1].path = absent;
	pid_t pid = start(path);
	for (int i = 0; i < 3; i++) {
		round_of(asks, 2);
		assert_int_equal(asks[0].err, 0);
		assert_int_equal(asks[0].pid, pid);
		assert_int_equal(asks[0].got.limit_iops, 700);
		assert_int_equal(asks[1].err, -ENOENT);
	}
	end(pid);
	unlink(path);
	round_of(asks, 1); /* dead; and nobody is there yet */
	assert_true(asks[0].err < 0);
	pid = start(path);
	for (int i = 0; i < 100 && asks[0].err; i++, usleep(10000))
		round_of(asks, 1);
	assert_int_equal(asks[0].err, 0);
	assert_int_equal(asks[0].pid, pid);
	end(pid);
	unlink(path);
	counters_link_done(&link);
	counters_link_done(&nobody);
}

static void test_stopped_delays_nobody(void **state)
{
	struct counters_link links[3] = {0};
	struct counters_ask asks[3];
	char paths[3][108];
	pid_t pids[3];

	for (int i = 0; i < 3; i++) {
		char name[16];
		snprintf(name, sizeof(name), "s%d.sock", i);
		path_of(name, paths[i]);
		pids[i] = start(paths[i]);
		asks[i] = (struct counters_ask){.link = &links[i], .path = paths[i]};
	}
	kill(pids[0], SIGSTOP);
	kill(pids[1], SIGSTOP);
	for (int n = 0; n < 12; n++) { /* more often than its backlog has room */
		int64_t began = clock_mono_ms();
		counters_round(asks, 3, 100);
		assert_true(clock_mono_ms() - began < 1500);
		assert_true(asks[0].err == -ETIMEDOUT || asks[0].err == -EAGAIN);
		assert_true(asks[1].err < 0);
	}
	kill(pids[0], SIGCONT);
	for (int i = 0; i < 100 && asks[0].err; i++, usleep(10000))
		round_of(asks, 3);
	assert_int_equal(asks[0].err, 0);
	assert_int_equal(asks[2].err, 0);
	for (int i = 0; i < 3; i++) {
		end(pids[i]);
		counters_link_done(&links[i]);
	}
}

/* ---- a server that says what it is told ---- */

struct told {
	int listen_fd;
	const char *to_counters, *to_stats;
};

static void *serve(void *arg)
{
	struct told *t = arg;
	int fd = accept(t->listen_fd, NULL, NULL);
	char line[64];
	ssize_t n;

	while ((n = recv(fd, line, sizeof(line) - 1, 0)) > 0) {
		line[n] = '\0';
		const char *say = str_prefix(line, "counters") ? t->to_counters : t->to_stats;
		if (send(fd, say, strlen(say), MSG_NOSIGNAL) < 0)
			break;
	}
	close(fd);
	return NULL;
}

static int answer_to(struct told t, struct counters *ret)
{
	struct counters_link link = {0};
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char path[108];
	pthread_t thread;

	path_of("told.sock", path);
	unlink(path);
	strcpy(at.sun_path, path);
	t.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(t.listen_fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(t.listen_fd, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, serve, &t), 0);
	struct counters_ask ask = {.link = &link, .path = path};
	round_of(&ask, 1);
	counters_link_done(&link);
	pthread_join(thread, NULL);
	close(t.listen_fd);
	*ret = ask.got;
	return ask.err;
}

/* before places were counted */
#define OLD_OPS "\"read\":{\"ops\":1,\"bytes\":2},\"write\":{\"ops\":1},\"flush\":{\"ops\":8},\"discard\":{\"ops\":0},\"write_zeroes\":{\"ops\":0},\"outstanding\":9"
#define OPS                                                                                                                       \
	"\"read\":{\"ops\":1,\"bytes\":2,\"errors\":3,\"latency_ns\":4,\"sequential\":1},\"write\":{\"ops\":5,\"bytes\":6,\"errors\":0,\"latency_ns\":7}," \
	"\"flush\":{\"ops\":8},\"discard\":{\"ops\":0},\"write_zeroes\":{\"ops\":0},\"outstanding\":9,\"busy_ns\":10,\"weighted_ns\":11"
#define GOOD "{\"ok\":true,\"result\":{\"guest\":{" OPS "},\"disk\":{" OPS "},\"layers\":{\"throttle\":{\"iops\":12,\"bps\":13,\"held\":14,\"held_ns\":15}}}}\n"
#define OF_BEFORE "{\"ok\":true,\"result\":{\"guest\":{" OLD_OPS "},\"disk\":{" OLD_OPS "}}}\n"
#define UNKNOWN "{\"ok\":false,\"code\":\"InvalidCommand\",\"message\":\"there is no such command\"}\n"

static void test_answers(void **state)
{
	struct counters c;

	assert_int_equal(answer_to((struct told){.to_counters = GOOD}, &c), 0);
	assert_int_equal(c.guest.op[COUNTERS_READ].bytes, 2);
	assert_int_equal(c.guest.op[COUNTERS_WRITE].latency_ns, 7);
	assert_int_equal(c.disk.weighted_ns, 11);
	assert_int_equal(c.limit_bps, 13);
	assert_int_equal(c.held_ns, 15);
	assert_true(c.guest.places_known);
	assert_int_equal(c.guest.op[COUNTERS_READ].sequential, 1);
	/* of before the command */
	assert_int_equal(answer_to((struct told){.to_counters = UNKNOWN, .to_stats = GOOD}, &c), 0);
	assert_int_equal(c.guest.outstanding, 9);
	assert_int_equal(answer_to((struct told){.to_counters = OF_BEFORE}, &c), 0);
	assert_false(c.disk.places_known);
	assert_int_equal(answer_to((struct told){.to_counters = UNKNOWN, .to_stats = UNKNOWN}, &c), -EOPNOTSUPP);
	assert_int_equal(answer_to((struct told){.to_counters = "nonsense\n"}, &c), -EBADMSG);
	assert_int_equal(answer_to((struct told){.to_counters = "{\"ok\":true,\"result\":{\"guest\":[]}}\n"}, &c), -EBADMSG);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_blockd),
	    cmocka_unit_test(test_stopped_delays_nobody),
	    cmocka_unit_test(test_answers),
	};

	if (argc < 2)
		return 77;
	program = argv[1];
	if (!mkdtemp(dir))
		return 1;
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	dir_remove(dir);
	return failed;
}
