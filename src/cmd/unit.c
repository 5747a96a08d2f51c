/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/unit.h"

#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "os/file.h"
#include "os/spawn.h"

#define DELAY_MIN_MS 200
#define DELAY_MAX_MS 10000
#define LIVED_MS 30000

static void on_timer(void *ctx)
{
	struct unit *u = ctx;

	loop_remove(u->timer);
	u->timer = NULL;
	u->state = UNIT_DOWN;
	unit_start(u);
}

static void start_later(struct unit *u)
{
	u->state = UNIT_WAITING;
	if (u->started_ms && clock_mono_ms() - u->started_ms > LIVED_MS)
		u->delay_ms = 0;
	u->delay_ms = u->delay_ms ? MIN_OF(u->delay_ms * 2, DELAY_MAX_MS) : DELAY_MIN_MS;
	if (loop_add_timer(u->loop, u->delay_ms, 0, on_timer, u, &u->timer) < 0)
		log_error("cannot set a timer", "unit=%s", u->name);
}

static void log_exit(const struct unit *u)
{
	if (u->exit_status < 0)
		log_warn("service is gone", "unit=%s pid=%d", u->name, (int)u->pid);
	else if (WIFSIGNALED(u->exit_status))
		log_warn("service was killed", "unit=%s pid=%d signal=%d", u->name, (int)u->pid,
			 WTERMSIG(u->exit_status));
	else
		log_warn("service ended", "unit=%s pid=%d code=%d", u->name, (int)u->pid,
			 WEXITSTATUS(u->exit_status));
}

static void gone(struct unit *u)
{
	bool wanted = u->state == UNIT_UP;

	loop_remove(u->exit_source);
	u->exit_source = NULL;
	fd_closep(&u->pid_fd);
	if (wanted)
		log_exit(u);
	u->pid = 0;
	u->state = UNIT_DOWN;
	if (wanted)
		start_later(u);
	else if (u->on_down)
		u->on_down(u->ctx);
}

static void on_gone(void *ctx, int fd, uint32_t events)
{
	struct unit *u = ctx;
	int status;

	if (!u->adopted && waitpid(u->pid, &status, WNOHANG) == u->pid)
		u->exit_status = status;
	gone(u);
}

/* 0, or negative when the process is gone already. */
static int watch(struct unit *u)
{
	u->exit_status = -1;
	u->pid_fd = (int)syscall(SYS_pidfd_open, u->pid, 0);
	if (u->pid_fd < 0)
		return -errno;
	return loop_add_fd(u->loop, u->pid_fd, EPOLLIN, on_gone, u, &u->exit_source);
}

static bool adopt(struct unit *u)
{
	pid_t pid = u->pid_path ? pidfile_holder(u->pid_path) : 0;

	if (pid <= 0)
		return false;
	u->pid = pid;
	u->adopted = true;
	u->started_ms = clock_mono_ms();
	if (watch(u) < 0)
		return false;
	u->state = UNIT_UP;
	log_info("adopted", "unit=%s pid=%d", u->name, (int)pid);
	return true;
}

void unit_start(struct unit *u)
{
	struct spawn s = {.argv = u->argv,
			  .log_path = u->log_path,
			  .uid = u->uid,
			  .gid = u->gid,
			  .new_session = true};
	struct error e = {0};

	if (u->state != UNIT_DOWN || adopt(u))
		return;
	if (u->runs_elsewhere && u->runs_elsewhere())
		return;
	u->adopted = false;
	u->started_ms = clock_mono_ms();
	if (spawn_start(&s, &u->pid, &e) < 0) {
		log_error("cannot start", "unit=%s err=%s", u->name, log_quote(e.message));
		start_later(u);
		return;
	}
	if (watch(u) < 0)
		log_error("cannot watch", "unit=%s pid=%d", u->name, (int)u->pid);
	u->state = UNIT_UP;
	log_info("started", "unit=%s pid=%d", u->name, (int)u->pid);
}

void unit_stop(struct unit *u)
{
	loop_remove(u->timer);
	u->timer = NULL;
	if (u->state == UNIT_UP) {
		u->state = UNIT_STOPPING;
		if (syscall(SYS_pidfd_send_signal, u->pid_fd, SIGTERM, NULL, 0) < 0)
			log_error("cannot signal", "unit=%s pid=%d err=%s", u->name, (int)u->pid,
				  log_quote(strerror(errno)));
	} else if (u->state == UNIT_WAITING) {
		u->state = UNIT_DOWN;
	}
}

void unit_kill(struct unit *u)
{
	if (u->state != UNIT_STOPPING)
		return;
	log_warn("does not end, killing it", "unit=%s pid=%d", u->name, (int)u->pid);
	syscall(SYS_pidfd_send_signal, u->pid_fd, SIGKILL, NULL, 0);
}

void unit_reaped(struct unit *u, pid_t pid, int status)
{
	if (pid == u->pid)
		u->exit_status = status;
}

void unit_done(struct unit *u)
{
	loop_remove(u->timer);
	loop_remove(u->exit_source);
	fd_closep(&u->pid_fd);
	free(u->log_path);
	free(u->pid_path);
}
