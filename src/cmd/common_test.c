/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "cmd/cmd_priv.h"

struct parsed {
	bool flag;
	const char *value;
	const char *words[3];
};

static int parse(struct parsed *p, int argc, char **argv, int min, int max)
{
	const struct option_spec specs[] = {{"--flag", &p->flag, NULL},
					    {"--value", NULL, &p->value}};

	memset(p, 0, sizeof(*p));
	return options_parse(argc, argv, specs, ARRAY_SIZE(specs), p->words, min, max);
}

#define PARSE(p, min, max, ...)                                                                    \
	parse(p, (int)ARRAY_SIZE(((char *[]){"cmd", __VA_ARGS__})),                                \
	      (char *[]){"cmd", __VA_ARGS__, NULL}, min, max)

static void test_options_anywhere(void **state)
{
	struct parsed p;

	assert_int_equal(PARSE(&p, 0, 2, "one", "--flag", "two", "--value", "v"), 2);
	assert_true(p.flag);
	assert_string_equal(p.value, "v");
	assert_string_equal(p.words[0], "one");
	assert_string_equal(p.words[1], "two");
	assert_null(p.words[2]);
	assert_int_equal(PARSE(&p, 0, 2, "--value=a=b"), 0);
	assert_string_equal(p.value, "a=b");
}

static void test_refusals(void **state)
{
	struct parsed p;

	assert_int_equal(PARSE(&p, 0, 1, "one", "two"), -EINVAL);
	assert_int_equal(PARSE(&p, 0, 1, "--unknown"), -EINVAL);
	assert_int_equal(PARSE(&p, 0, 1, "--fla"), -EINVAL);
	assert_int_equal(PARSE(&p, 0, 1, "--flag=yes"), -EINVAL);
	assert_int_equal(PARSE(&p, 0, 1, "--value"), -EINVAL);
	assert_int_equal(PARSE(&p, 2, 2, "one"), -EINVAL);
}

/* A lone dash is a word: many programs mean stdin by it. */
static void test_dash_is_a_word(void **state)
{
	struct parsed p;

	assert_int_equal(PARSE(&p, 0, 1, "-"), 1);
	assert_string_equal(p.words[0], "-");
}

static void test_call_names_the_state(void **state)
{
	setenv("MALLEE_STATE", "/srv/cloud", 1);
	_cleanup_(freep) char *call = program_to_call();
	assert_int_equal(strncmp(call, "MALLEE_STATE=/srv/cloud /", 25), 0);
	unsetenv("MALLEE_STATE");
	_cleanup_(freep) char *plain = program_to_call();
	assert_int_equal(plain[0], '/');
}

static void test_run_visibly_tells_the_code(void **state)
{
	struct error e = {0};
	int code = -1;

	assert_int_equal(
	    run_visibly((const char *const[]){"/bin/sh", "-c", "exit 7", NULL}, &code, &e), 0);
	assert_int_equal(code, 7);
	assert_int_equal(
	    run_visibly((const char *const[]){"/bin/sh", "-c", "kill -9 $$", NULL}, &code, &e), 0);
	assert_int_equal(code, 128 + 9);
	assert_true(run_visibly((const char *const[]){"/nonexistent/program", NULL}, &code, &e) <
		    0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_options_anywhere),
	    cmocka_unit_test(test_refusals),
	    cmocka_unit_test(test_dash_is_a_word),
	    cmocka_unit_test(test_call_names_the_state),
	    cmocka_unit_test(test_run_visibly_tells_the_code),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
