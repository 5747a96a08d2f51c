/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_DAEMON_H
#define MALLEE_CMD_DAEMON_H

#include "base/error.h"
#include "base/settings.h"

/* main() of every service: arguments, settings, log, pid file, signals; then the service itself
 * until SIGTERM. */
struct daemon_desc {
	const char *name;    /* "clc" */
	const char *summary; /* for --help */
	int (*start)(const struct settings *s, void **ret, struct error *e);
	void (*stop)(void *service);
};

int daemon_main(const struct daemon_desc *d, int argc, char **argv);

/* Defines main() for a service that exports X_start and X_stop. */
#define DAEMON_MAIN(X, summary_text)                                                               \
	static int start(const struct settings *s, void **ret, struct error *e)                    \
	{                                                                                          \
		struct X *x = NULL;                                                                \
		int r = X##_start(s, &x, e);                                                       \
                                                                                                   \
		*ret = x;                                                                          \
		return r;                                                                          \
	}                                                                                          \
	static void stop(void *x)                                                                  \
	{                                                                                          \
		X##_stop(x);                                                                       \
	}                                                                                          \
	int main(int argc, char **argv)                                                            \
	{                                                                                          \
		return daemon_main(&(struct daemon_desc){#X, summary_text, start, stop}, argc,     \
				   argv);                                                          \
	}

#endif
