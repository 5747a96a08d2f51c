/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_CMD_PRIV_H
#define MALLEE_CMD_CMD_PRIV_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "base/settings.h"

/* One subcommand of mallee. The function gets argv from its own name on and returns the exit code:
 * 0 done, 1 failed, 64 wrong usage. */
struct command {
	const char *name;
	const char *args;    /* behind the name in the usage line */
	const char *summary; /* one line of `mallee --help` */
	const char *help;    /* what `mallee NAME --help` says besides */
	int (*run)(int argc, char **argv);
	int passes_on; /* its words from this one on are another program's, --help among them; 0: none */
};

#define EXIT_USAGE 64

/* One option: with `flag` it takes no value, with `value` it takes one ("--name VALUE" or
 * "--name=VALUE"). */
struct option_spec {
	const char *name; /* "--output" */
	bool *flag;
	const char **value;
};

/* Parse argv[1..]: options anywhere, at most max other words into words (NULL-terminated: room for
 * max + 1). Says on stderr what is wrong and returns -EINVAL; else the count of words. */
int options_parse(int argc, char **argv, const struct option_spec *specs, size_t spec_count,
		  const char **words, int min, int max);

/* "mallee: message" to stderr; returns 1, the exit code. */
int command_failed(const struct error *e);
/* Settings, or the exit code of a failure that is said already. */
int load_settings(struct settings **ret);

bool is_fake(const struct settings *s);
/* Folder of the running program: "/srv/mallee/build/src/cmd". malloc()ed. */
char *program_dir(void);
/* The build folder that the running program is part of, malloc()ed; NULL when it is installed. */
char *build_dir(void);
/* This program as the user would call it: "MALLEE_STATE=/srv/cloud /srv/mallee/build/mallee".
 * malloc()ed.
 */
char *program_to_call(void);
/* Where image/tiny and the like are: the source tree when run from its build folder, else the
 * installed share folder. */
char *share_path(const char *name);
/* Where downloads and built images are kept: inside the build folder, or /var/cache/mallee. */
char *cache_dir(void);
/* The address to reach this cloud's public listeners at. */
const char *public_host(const struct settings *s);
/* Variables that would send our own requests, or those of programs that we start, elsewhere. */
void clean_environment(void);

/* Run a program whose output the user is to see, to its end. *ret_code: its exit code; 128 and
 * more: a signal's. */
int run_visibly(const char *const *argv, int *ret_code, struct error *e);

int cmd_account(int argc, char **argv);
int cmd_api(int argc, char **argv);
int cmd_aws(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_clean_state(int argc, char **argv);
int cmd_doctor(int argc, char **argv);
int cmd_down(int argc, char **argv);
int cmd_env(int argc, char **argv);
int cmd_image(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_supervise(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_uninstall(int argc, char **argv);
int cmd_up(int argc, char **argv);
int cmd_volume(int argc, char **argv);

#endif
