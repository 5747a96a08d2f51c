/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_UNIT_H
#define MALLEE_CMD_UNIT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"
#include "os/loop.h"

/*
 * A program that the supervisor keeps running:
 *
 *   down ──start──► up ──exit──► waiting ──delay over──► up …      stop: up → stopping → down
 *
 * A unit that runs already (the supervisor was started anew) is adopted: watched through a pidfd,
 * like one's own child. The delay grows from 0.2 s to 10 s while the program does not live for half
 * a minute.
 */
enum unit_state { UNIT_DOWN, UNIT_UP, UNIT_WAITING, UNIT_STOPPING };

struct unit {
	const char *name;
	const char *const *argv; /* NULL-terminated */
	char *log_path, *pid_path;
	uid_t uid; /* 0: as the supervisor */
	gid_t gid;
	/* Somebody else's instance of it may run; then ours is not started. NULL: only pid_path
	 * tells. */
	bool (*runs_elsewhere)(void);

	struct loop *loop;
	void (*on_down)(void *ctx); /* a unit that was told to stop is gone */
	void *ctx;

	enum unit_state state;
	pid_t pid;
	bool adopted;
	int pid_fd, exit_status; /* as of waitpid(); -1: not known */
	int64_t started_ms;
	int delay_ms;
	struct loop_source *exit_source, *timer;
};

/* Adopt it where it runs, else start it. A failure to start is logged and tried again. */
void unit_start(struct unit *u);
/* SIGTERM; SIGKILL is the caller's to send, with unit_kill(), when it takes too long. */
void unit_stop(struct unit *u);
void unit_kill(struct unit *u);
/* The supervisor reaped this process. */
void unit_reaped(struct unit *u, pid_t pid, int status);
void unit_done(struct unit *u);

#endif
