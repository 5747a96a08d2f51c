/* SPDX-License-Identifier: Apache-2.0 */
#include "os/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "os/file.h"
#include "os/spawn_priv.h"

/*
 * Everything that can fail for lack of something is done before the fork (spawn_prepare); the child
 * only makes system calls (spawn_child.c), since other threads of ours may hold any lock at the
 * moment of the fork. What fails in the child comes back through a pipe that a successful exec
 * closes.
 *
 * spawn_run() ends with the process, not with its output: a program that goes into the background
 * keeps the pipes open for ever. Nothing else in the process may reap its children (waitpid(-1))
 * meanwhile.
 */
#define OUTPUT_MAX_BYTES ((size_t)16 << 20)
#define STDERR_MAX_BYTES ((size_t)64 << 10)
#define TIMEOUT_DEFAULT_MS 60000
#define TERM_GRACE_MS 3000

static const char *program_name(const struct spawn *s)
{
	const char *slash = strrchr(s->argv[0], '/');

	return slash ? slash + 1 : s->argv[0];
}

static int open_stdin(const struct spawn *s, struct error *e)
{
	int fd, r;

	if (!s->stdin_text) {
		fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return fd >= 0 ? fd : error_errno(e, errno, "Cannot open /dev/null");
	}
	/* A file in memory, not a pipe: no SIGPIPE when the program does not read it all. */
	fd = memfd_create("stdin", MFD_CLOEXEC);
	if (fd < 0)
		return error_errno(e, errno, "Cannot make the input of %s", program_name(s));
	r = fd_write_all(fd, s->stdin_text, strlen(s->stdin_text));
	if (r == 0 && lseek(fd, 0, SEEK_SET) < 0)
		r = -errno;
	if (r == 0)
		return fd;
	close(fd);
	return error_errno(e, r, "Cannot write the input of %s", program_name(s));
}

/* Forks; the child's standard descriptors are fds. Returns its pid once exec has succeeded. */
static int start(const struct spawn *s, const int fds[3], pid_t *ret_pid, struct error *e)
{
	_cleanup_(fd_closep) int report_read = -1;
	_cleanup_(fd_closep) int report_write = -1;
	_cleanup_(spawn_child_done) struct spawn_child child = {.report_fd = -1, .netns_fd = -1};
	struct spawn_failure failure;
	int report[2], r;
	ssize_t n;
	pid_t pid;

	r = spawn_child_prepare(&child, s, fds, e);
	if (r < 0)
		return r;
	if (pipe2(report, O_CLOEXEC) < 0)
		return error_errno(e, errno, "Cannot start %s", program_name(s));
	report_read = report[0];
	child.report_fd = report_write = report[1];
	pid = fork();
	if (pid < 0)
		return error_errno(e, errno, "Cannot start %s", program_name(s));
	if (pid == 0)
		spawn_child_run(&child);
	fd_closep(&report_write);
	do
		n = read(report_read, &failure, sizeof(failure));
	while (n < 0 && errno == EINTR);
	if (n == 0) {
		*ret_pid = pid;
		return 0;
	}
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (n != (ssize_t)sizeof(failure))
		return error_errno(e, EIO, "Cannot start %s", program_name(s));
	if (failure.step == SPAWN_STEP_EXEC && failure.err == ENOENT) {
		error_set(e, "InternalError", "The program %s is not installed.", s->argv[0]);
		return -ENOENT;
	}
	return error_errno(e, failure.err, "Cannot start %s: %s", program_name(s),
			   spawn_step_name(failure.step));
}

static int open_log(const struct spawn *s, struct error *e)
{
	int fd = open(s->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0640);

	return fd >= 0 ? fd : error_errno(e, errno, "Cannot open the log %s", s->log_path);
}

int spawn_start(const struct spawn *s, pid_t *ret_pid, struct error *e)
{
	_cleanup_(fd_closep) int in = -1;
	_cleanup_(fd_closep) int log = -1;

	in = open_stdin(s, e);
	if (in < 0)
		return in;
	if (s->log_path) {
		log = open_log(s, e);
		if (log < 0)
			return log;
	}
	return start(s, (int[]){in, log >= 0 ? log : STDOUT_FILENO, log >= 0 ? log : STDERR_FILENO},
		     ret_pid, e);
}

/* ---- spawn_run ---- */

struct run {
	const struct spawn *spawn;
	pid_t pid;
	int pidfd;
	int out_fd, err_fd; /* read ends, -1 when at their end or in a log */
	struct buf *out, err;
	bool timed_out, too_much;
};

/* Reads what is there; closes at the end. What goes over max is dropped, and told. */
static bool drain(int *fd, struct buf *into, size_t max)
{
	char chunk[16384];
	bool fits = true;

	while (*fd >= 0) {
		ssize_t n = read(*fd, chunk, sizeof(chunk));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0) {
			fd_closep(fd);
			break;
		}
		if (!into)
			continue;
		if ((size_t)n > max - into->len) {
			n = (ssize_t)(max - into->len);
			fits = false;
		}
		buf_append(into, chunk, (size_t)n);
	}
	return fits;
}

static void drain_both(struct run *run)
{
	if (!drain(&run->out_fd, run->out, OUTPUT_MAX_BYTES))
		run->too_much = true;
	drain(&run->err_fd, &run->err, STDERR_MAX_BYTES);
}

/* Until the process has ended. */
static int attend(struct run *run)
{
	int timeout_ms = run->spawn->timeout_ms > 0 ? run->spawn->timeout_ms : TIMEOUT_DEFAULT_MS;
	int64_t deadline = clock_mono_ms() + timeout_ms;

	for (;;) {
		struct pollfd fds[] = {{.fd = run->pidfd, .events = POLLIN},
				       {.fd = run->out_fd, .events = POLLIN},
				       {.fd = run->err_fd, .events = POLLIN}};
		int64_t left = MAX_OF(deadline - clock_mono_ms(), 0);
		int n = poll(fds, ARRAY_SIZE(fds), (int)left);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			drain_both(run);
		if (n > 0 && fds[0].revents)
			return 0;
		if ((n == 0 || run->too_much) && !run->timed_out) {
			run->timed_out = true;
			pidfd_send_signal(run->pidfd, SIGTERM, NULL, 0);
			deadline = clock_mono_ms() + TERM_GRACE_MS;
		} else if (n == 0) {
			pidfd_send_signal(run->pidfd, SIGKILL, NULL, 0);
			deadline = clock_mono_ms() + TERM_GRACE_MS;
		}
	}
}

/* The last line of what it said on stderr. */
static const char *last_line(struct run *run)
{
	char *line;

	while (run->err.len > 0 && strchr("\r\n \t", run->err.data[run->err.len - 1]))
		run->err.data[--run->err.len] = '\0';
	if (run->err.len == 0)
		return "";
	line = memrchr(run->err.data, '\n', run->err.len);
	return line ? line + 1 : run->err.data;
}

static int judge(struct run *run, int status, int *ret_code, struct error *e)
{
	const char *name = program_name(run->spawn), *why = last_line(run);
	int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);

	if (run->too_much) {
		error_set(e, "InternalError", "%s wrote more than %zu MiB and was stopped.", name,
			  OUTPUT_MAX_BYTES >> 20);
		return -EFBIG;
	}
	if (run->timed_out) {
		error_set(
		    e, "InternalError", "%s took longer than %d s and was stopped.%s%s", name,
		    (run->spawn->timeout_ms > 0 ? run->spawn->timeout_ms : TIMEOUT_DEFAULT_MS) /
			1000,
		    *why ? " It last said: " : "", why);
		return -ETIMEDOUT;
	}
	if (ret_code) {
		*ret_code = code;
		return 0;
	}
	if (code == 0)
		return 0;
	if (run->spawn->log_path)
		return error_set(e, "InternalError", "%s failed (status %d); see %s.", name, code,
				 run->spawn->log_path);
	return error_set(e, "InternalError", "%s failed (status %d)%s%s", name, code,
			 *why ? ": " : ".", why);
}

static int finish(struct run *run, int *ret_code, struct error *e)
{
	int r, status;
	pid_t got;

	run->pidfd = pidfd_open(run->pid, 0);
	r = run->pidfd < 0 ? -errno : attend(run);
	if (r < 0) {
		kill(run->pid, SIGKILL);
		error_errno(e, r, "Cannot wait for %s", program_name(run->spawn));
	}
	do
		got = waitpid(run->pid, &status, 0);
	while (got < 0 && errno == EINTR);
	if (r < 0)
		return r;
	if (got < 0)
		return error_errno(e, errno, "Cannot learn how %s ended", program_name(run->spawn));
	return judge(run, status, ret_code, e);
}

static int pipe_from_child(int *ret_read, int *ret_write)
{
	int fds[2];

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	*ret_read = fds[0];
	*ret_write = fds[1];
	if (fcntl(fds[0], F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int spawn_run(const struct spawn *s, struct buf *ret_out, int *ret_code, struct error *e)
{
	_cleanup_(fd_closep) int in = -1;
	_cleanup_(fd_closep) int out = -1;
	_cleanup_(fd_closep) int err = -1;
	struct run run = {.spawn = s, .pidfd = -1, .out_fd = -1, .err_fd = -1, .out = ret_out};
	int r;

	in = open_stdin(s, e);
	if (in < 0)
		return in;
	if (s->log_path) {
		err = open_log(s, e);
		if (err < 0)
			return err;
	}
	r = 0;
	if (ret_out || !s->log_path)
		r = pipe_from_child(&run.out_fd, &out);
	if (r == 0 && !s->log_path)
		r = pipe_from_child(&run.err_fd, &err);
	if (r < 0)
		error_errno(e, r, "Cannot start %s", program_name(s));
	else
		r = start(s, (int[]){in, out >= 0 ? out : err, err}, &run.pid, e);
	fd_closep(&out);
	fd_closep(&err);
	if (r == 0)
		r = finish(&run, ret_code, e);
	fd_closep(&run.pidfd);
	fd_closep(&run.out_fd);
	fd_closep(&run.err_fd);
	buf_done(&run.err);
	return r;
}

/* ---- literal lists ---- */

#define COMMAND_MAX_ARGS 64

static int run_list(struct buf *out, struct error *e, const char *arg0, va_list ap)
{
	const char *argv[COMMAND_MAX_ARGS + 1] = {arg0};
	size_t n = 1;

	while (n < COMMAND_MAX_ARGS && (argv[n] = va_arg(ap, const char *)))
		n++;
	if (n == COMMAND_MAX_ARGS)
		return error_errno(e, E2BIG, "Cannot start %s", arg0);
	return spawn_run(&(struct spawn){.argv = argv}, out, NULL, e);
}

int run_command(struct error *e, const char *arg0, ...)
{
	va_list ap;
	int r;

	va_start(ap, arg0);
	r = run_list(NULL, e, arg0, ap);
	va_end(ap);
	return r;
}

int run_command_output(struct buf *out, struct error *e, const char *arg0, ...)
{
	va_list ap;
	int r;

	va_start(ap, arg0);
	r = run_list(out, e, arg0, ap);
	va_end(ap);
	return r;
}
