/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_VOLUME_KEEPER_H
#define MALLEE_VOLUME_KEEPER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

/*
 * Keeps one mallee-blockd for each volume that it was told of. A volume's folder, RUN_DIR/ID, holds
 * `args` (the record: what to run and as whom), `control.sock` (blockd's) and whatever sockets the
 * arguments name there; it belongs to the user that blockd runs as.
 *
 * Who is alive is told by the control socket: who can be connected to runs, and the kernel names its
 * process. So a new keeper finds the processes of its predecessor without trusting a number on disk.
 */
struct keeper;

struct keeper_settings {
	const char *program; /* mallee-blockd, a path */
	const char *run_dir; /* exists */
	const char *log_dir; /* exists; ID.log is appended to */
	/* A process ended by itself or was started again, or could not be (why is set). On the keeper's
	 * thread; may be NULL. */
	void (*noted)(void *ctx, const char *id, const char *what, const struct error *why);
	void *ctx;
};

/* Reads what is recorded, adopts what runs and starts what does not, in the background. */
int keeper_new(const struct keeper_settings *s, struct keeper **ret, struct error *e);
/* The processes run on. NULL is fine. */
void keeper_free(struct keeper *k);

#define KEEPER_ARGS_MAX 64
struct keeper_volume {
	const char *id; /* letters, digits and '-', 64 at most: the folder's name */
	uid_t uid;
	gid_t gid;
	/* Arguments of mallee-blockd, NULL-terminated, without --name, --control and --user. */
	const char *const *args;
};
/* Records it, starts it and waits until it answers, timeout_ms at most (it goes on trying after
 * that). What runs already with the same arguments is left alone; with others it is -EEXIST. */
int keeper_start(struct keeper *k, const struct keeper_volume *v, int timeout_ms, struct error *e);
/* From its next start on it runs with these; what runs now goes on. -ENOENT: not told of. */
int keeper_change(struct keeper *k, const struct keeper_volume *v, struct error *e);
/* SIGTERM: it drains and flushes. After timeout_ms SIGKILL, and -ETIMEDOUT. Forgets it, and its
 * folder, once it is gone. What was never started is fine. */
int keeper_stop(struct keeper *k, const char *id, int timeout_ms, struct error *e);
/* One line to its control socket, e.g. "info"; *ret_json is its result. The process's own errors
 * come with their code; -ENOENT: not told of; -ECONNREFUSED: does not run at the moment. */
int keeper_command(struct keeper *k, const char *id, const char *line, int timeout_ms, struct buf *ret_json,
		   struct error *e);

struct keeper_status {
	char id[65];
	pid_t pid;         /* 0: does not run at the moment */
	uint64_t restarts; /* since this keeper was made */
};
/* Up to max of them; how many there are. */
size_t keeper_list(struct keeper *k, struct keeper_status *out, size_t max);

/* For who takes all away when there is no keeper any more: end every process that serves a volume of this
 * folder; SIGTERM, after timeout_ms SIGKILL. Their records stay. *ret_count: how many there were. */
int keeper_end_all(const char *run_dir, int timeout_ms, unsigned *ret_count, struct error *e);

#endif
