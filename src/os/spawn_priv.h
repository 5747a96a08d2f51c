/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_SPAWN_PRIV_H
#define MALLEE_OS_SPAWN_PRIV_H

#include "os/spawn.h"

/* What the child does between fork and exec, in order. */
enum spawn_step {
	SPAWN_STEP_SESSION,
	SPAWN_STEP_FDS,
	SPAWN_STEP_NETNS,
	SPAWN_STEP_GROUPS,
	SPAWN_STEP_USER,
	SPAWN_STEP_EXEC,
};

/* Goes through the report pipe between two halves of one program. */
struct spawn_failure {
	enum spawn_step step;
	int err;
};

struct spawn_child {
	const struct spawn *spawn;
	int fds[3]; /* to become 0, 1, 2 */
	int report_fd, netns_fd;
	gid_t *groups;
	int group_count;   /* -1: keep the groups */
	char **candidates; /* where PATH may have argv[0], NULL-terminated */
};

int spawn_child_prepare(struct spawn_child *c, const struct spawn *s, const int fds[3],
			struct error *e);
void spawn_child_done(struct spawn_child *c);
_Noreturn void spawn_child_run(struct spawn_child *c);
const char *spawn_step_name(enum spawn_step step);

#endif
