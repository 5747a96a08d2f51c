/* SPDX-License-Identifier: Apache-2.0 */
/* `mallee bench`: `explain` is here, `model` in bench_model.c, all that measures is Python (bench/mallee_bench.py). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/text.h"
#include "cmd/bench.h"
#include "cmd/bench_model.h"
#include "cmd/cmd_priv.h"

#define PYTHON "/usr/bin/python3"
#define EXIT_BAD_RESULT 2
#define RESULT_BYTES_MAX (64u << 20) /* as bench/paper/result.py */

/* ---- explain ---- */

/* jansson asks for more until there is none; what is too long ends as if it were cut off, and is refused by its length. */
static size_t read_some(void *buffer, size_t size, void *data)
{
	size_t *total = data, n = fread(buffer, 1, size, stdin);

	*total += n;
	return *total > RESULT_BYTES_MAX || ferror(stdin) ? (size_t)-1 : n;
}

static int read_result(json_t **ret, struct error *e)
{
	size_t total = 0;
	json_error_t why;
	json_t *result = json_load_callback(read_some, &total, JSON_REJECT_DUPLICATES, &why);

	if (result) {
		*ret = result;
		return 0;
	}
	if (ferror(stdin))
		return error_errno(e, errno, "Cannot read standard input");
	if (total > RESULT_BYTES_MAX)
		return error_set(e, "TooLarge", "More than %u MiB on standard input, which no result is", RESULT_BYTES_MAX >> 20);
	return error_set(e, "NotJson", "Standard input is no JSON: line %d, column %d: %s", why.line, why.column, why.text);
}

static int write_result(const json_t *result)
{
	/* 15 digits: each figure comes out as it was written, 0.1 as 0.1. */
	if (json_dumpf(result, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(15)) == 0 && putchar('\n') != EOF && fflush(stdout) == 0)
		return 0;
	fprintf(stderr, "mallee bench explain: Cannot write to standard output: %s\n", strerror(errno));
	return 1;
}

static int explain(void)
{
	json_t *result = NULL;
	struct error e = { 0 };
	int code;

	if (read_result(&result, &e) < 0 || explain_result(result, &e) < 0) {
		fprintf(stderr, "mallee bench explain: %s\n", e.message);
		code = EXIT_BAD_RESULT;
	} else {
		code = write_result(result);
	}
	json_decref(result);
	return code;
}

static int cmd_explain(int argc, char **argv)
{
	if (argc == 1)
		return explain();
	if (str_eq(argv[1], "--help") || str_eq(argv[1], "-h")) {
		printf("usage: mallee bench explain < RESULT.json > EXPLAINED.json\n\n"
		       "Says of each measured row what holds it back (held_back_by): the rule, why, what would mend it, and how many\n"
		       "times as much is to be expected then; and of each disk what the model expects (model). docs/diagnosis.md has the\n"
		       "rules, docs/model.md derives the model. Exit code 2: the input is no result.\n");
		return 0;
	}
	fprintf(stderr, "mallee bench explain: it reads standard input and takes no arguments; \"%s\" is one\n", argv[1]);
	return EXIT_USAGE;
}

/* ---- all else ---- */

/* In place of this program, so that its exit code and the terminal's signals are the script's. It finds the programs of the
 * build that this one belongs to by MALLEE_BUILD, as tests do. */
static int execute_script(int argc, char **argv)
{
	_cleanup_(freep) char *script = share_path("bench/mallee_bench.py"), *build = build_dir();
	const char **args = calloc((size_t)argc + 4, sizeof(*args));
	struct error e = { 0 };
	int n = 0;

	if (!args)
		abort();
	if (build)
		setenv("MALLEE_BUILD", build, 1);
	args[n++] = PYTHON;
	args[n++] = "-B"; /* no compiled files beside the scripts */
	args[n++] = script;
	for (int i = 1; i < argc; i++)
		args[n++] = argv[i];
	signal(SIGPIPE, SIG_DFL);
	if (access(script, R_OK) < 0)
		error_errno(&e, errno, "Cannot read %s", script);
	else
		execv(PYTHON, (char *const *)args);
	error_errno(&e, errno, "Cannot execute " PYTHON " (Debian's package python3)");
	free(args);
	return command_failed(&e);
}

int cmd_bench(int argc, char **argv)
{
	if (argc > 1 && str_eq(argv[1], "explain"))
		return cmd_explain(argc - 1, argv + 1);
	if (argc > 1 && str_eq(argv[1], "model"))
		return cmd_bench_model(argc - 1, argv + 1);
	return execute_script(argc, argv);
}
