/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_BLOCKD_H
#define MALLEE_CMD_BLOCKD_H

#include <sys/types.h>

#include "block/core/front.h"

#define BLOCKD_FILTERS_MAX 8
#define BLOCKD_FRONTS_MAX 8

/* What the command line of mallee-blockd said; strings are argv's. */
struct blockd_settings {
	const char *back;
	const char *filters[BLOCKD_FILTERS_MAX + 1]; /* NULL-terminated */
	const char *fronts[BLOCKD_FRONTS_MAX + 1];
	const char *name, *control;
	const struct blk_layer_ops *const *drivers;
	unsigned queues;
	enum blk_io_engine engine;
	uid_t started_by; /* may use the control socket, as root may */
	bool sandbox;
	bool has_user;
	uid_t uid;
	gid_t gid;
};

/* A program that serves a volume: main() of mallee-blockd, and of those with other back ends besides. */
struct blockd_program {
	const char *name; /* "mallee-blockd" */
	const struct blk_layer_ops *const *drivers; /* NULL-terminated, as block/drivers.h has them */
	bool sandbox; /* unless --sandbox says otherwise */
};
int blockd_main(const struct blockd_program *program, int argc, char **argv);

/* Serves until SIGTERM or SIGINT: the exit code. 1: could not begin, or the last flush failed (logged). */
int blockd_run(const struct blockd_settings *s);

/*
 * The control socket: a line in, a line of JSON out: {"ok":true,"result":…} or {"ok":false,"code":"…","message":"…"}.
 * A thread a connection, at most eight, so that a slow command holds up nobody. Its peers are root and `owner`: not the user
 * that --user names, which a guest's QEMU may share.
 */
struct blockd_control;
int blockd_control_open(const char *path, const char *name, uid_t owner, struct blk_stack *stack, struct blk_front *const *fronts, unsigned front_count,
			struct blockd_control **ret, struct error *e);
void blockd_control_close(struct blockd_control *c); /* ends its connections; NULL is fine */

/* Sends one command to a control socket and prints the answer: the exit code. */
int blockd_send(const char *path, int argc, char **argv);

#endif
