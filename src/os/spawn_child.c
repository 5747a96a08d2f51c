/* SPDX-License-Identifier: Apache-2.0 */
/* The child's side of spawn: spawn_child_run() makes system calls only (see spawn.c). */
#include "os/spawn_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "os/file.h"
#include "os/privs_priv.h"

const char *spawn_step_name(enum spawn_step step)
{
	static const char *const names[] = {
	    [SPAWN_STEP_SESSION] = "its session",
	    [SPAWN_STEP_FDS] = "its descriptors",
	    [SPAWN_STEP_NETNS] = "entering its network namespace",
	    [SPAWN_STEP_GROUPS] = "setting its groups",
	    [SPAWN_STEP_USER] = "becoming its user",
	    [SPAWN_STEP_EXEC] = "executing it",
	};

	return step < ARRAY_SIZE(names) ? names[step] : "an unknown step";
}

/* Paths at which to try argv[0], as a shell would, but never the current folder. */
static void find_candidates(struct spawn_child *c, const char *program)
{
	const char *path = getenv("PATH");
	size_t n = 0, room = 2;

	if (!path || !*path)
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	for (const char *p = path; *p; p++)
		room += *p == ':';
	c->candidates = calloc(room + 1, sizeof(*c->candidates));
	if (!c->candidates)
		abort();
	if (strchr(program, '/')) {
		c->candidates[n] = strdup(program);
		return;
	}
	while (*path) {
		size_t len = strcspn(path, ":");

		if (len > 0 &&
		    asprintf(&c->candidates[n++], "%.*s/%s", (int)len, path, program) < 0)
			abort();
		path += len + (path[len] == ':');
	}
}

int spawn_child_prepare(struct spawn_child *c, const struct spawn *s, const int fds[3],
			struct error *e)
{
	c->spawn = s;
	memcpy(c->fds, fds, sizeof(c->fds));
	c->group_count = -1;
	if (s->uid != 0 && s->uid != geteuid()) {
		int r = user_groups(s->uid, s->gid, &c->groups, &c->group_count);

		if (r < 0)
			return error_errno(e, r, "Cannot look up the groups of user %u", s->uid);
	}
	if (s->netns) {
		_cleanup_(freep) char *path = NULL;

		if (asprintf(&path, "/run/netns/%s", s->netns) < 0)
			abort();
		c->netns_fd = open(path, O_RDONLY | O_CLOEXEC);
		if (c->netns_fd < 0)
			return error_errno(e, errno, "Cannot open the network namespace %s",
					   s->netns);
	}
	find_candidates(c, s->argv[0]);
	return 0;
}

void spawn_child_done(struct spawn_child *c)
{
	fd_closep(&c->netns_fd);
	free(c->groups);
	for (char **p = c->candidates; p && *p; p++)
		free(*p);
	free(c->candidates);
}

static _Noreturn void fail(const struct spawn_child *c, enum spawn_step step)
{
	struct spawn_failure failure = {step, errno};
	ssize_t n = write(c->report_fd, &failure, sizeof(failure));

	_exit(n < 0 ? 126 : 127);
}

static void reset_signals(void)
{
	struct sigaction plain = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int i = 1; i < NSIG; i++)
		sigaction(i, &plain, NULL); /* fails for SIGKILL, SIGSTOP and the C library's own */
	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, NULL);
}

/* Moves the descriptors that matter above 10 first, so that none is overwritten before its turn. */
static void arrange_fds(struct spawn_child *c)
{
	int moved[3];

	for (int i = 0; i < 3; i++) {
		moved[i] = fcntl(c->fds[i], F_DUPFD_CLOEXEC, 10);
		/* Nothing to inherit is nothing, not somebody else's descriptor. */
		if (moved[i] < 0 && errno == EBADF)
			moved[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (moved[i] < 0)
			fail(c, SPAWN_STEP_FDS);
	}
	if (c->netns_fd >= 0) {
		c->netns_fd = fcntl(c->netns_fd, F_DUPFD_CLOEXEC, 10);
		if (c->netns_fd < 0)
			fail(c, SPAWN_STEP_FDS);
	}
	c->report_fd = fcntl(c->report_fd, F_DUPFD_CLOEXEC, 10);
	for (int i = 0; i < 3; i++) {
		if (dup2(moved[i], i) < 0)
			fail(c, SPAWN_STEP_FDS);
	}
	if (c->netns_fd >= 0) {
		if (setns(c->netns_fd, CLONE_NEWNET) < 0)
			fail(c, SPAWN_STEP_NETNS);
	}
	if (dup3(c->report_fd, 3, O_CLOEXEC) < 0)
		fail(c, SPAWN_STEP_FDS);
	c->report_fd = 3;
	close_range(4, ~0u, 0);
}

static void become_user(struct spawn_child *c)
{
	const struct spawn *s = c->spawn;

	if (c->group_count >= 0 && setgroups((size_t)c->group_count, c->groups) < 0)
		fail(c, SPAWN_STEP_GROUPS);
	if (s->gid != 0 && s->gid != getegid() && setresgid(s->gid, s->gid, s->gid) < 0)
		fail(c, SPAWN_STEP_GROUPS);
	if (s->uid != 0 && s->uid != geteuid() && setresuid(s->uid, s->uid, s->uid) < 0)
		fail(c, SPAWN_STEP_USER);
}

_Noreturn void spawn_child_run(struct spawn_child *c)
{
	int err = ENOENT;

	reset_signals();
	if (c->spawn->new_session && setsid() < 0)
		fail(c, SPAWN_STEP_SESSION);
	arrange_fds(c);
	become_user(c);
	for (char **p = c->candidates; *p; p++) {
		int failed;

		execv(*p, (char *const *)c->spawn->argv);
		failed = errno;
		/* EACCES also where a folder of PATH is closed to us: the program is not there
		 * then. */
		if (failed != ENOENT && failed != ENOTDIR &&
		    !(failed == EACCES && access(*p, F_OK) < 0))
			err = failed;
	}
	errno = err;
	fail(c, SPAWN_STEP_EXEC);
}
