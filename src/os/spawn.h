/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_OS_SPAWN_H
#define MALLEE_OS_SPAWN_H

#include <sys/types.h>

#include "base/buf.h"
#include "base/error.h"

struct spawn {
	const char *const *argv; /* NULL-terminated; argv[0] is looked up in PATH */
	const char *stdin_text;  /* NULL: /dev/null */
	const char *log_path;    /* stdout and stderr appended here; NULL: see spawn_run / inherited */
	uid_t uid;               /* 0: stay */
	gid_t gid;
	const char *netns;       /* name of a network namespace to enter; NULL: stay */
	int timeout_ms;          /* spawn_run only; 0: 60 s */
	bool new_session;        /* setsid() */
};

/* Run to the end. stdout goes to *ret_out (may be NULL), exit code to *ret_code; a non-zero exit is not an
 * error here when ret_code is given, and else -EREMOTEIO with stderr's last line in *e. Never uses a shell. */
int spawn_run(const struct spawn *s, struct buf *ret_out, int *ret_code, struct error *e);
/* Start and return its pid. Signals are reset, all descriptors but 0–2 closed. */
int spawn_start(const struct spawn *s, pid_t *ret_pid, struct error *e);

/* spawn_run of a literal list: run_command(e, "ip", "link", "show", NULL) */
int run_command(struct error *e, const char *arg0, ...) __attribute__((sentinel));
int run_command_output(struct buf *out, struct error *e, const char *arg0, ...) __attribute__((sentinel));

#endif
