/* SPDX-License-Identifier: Apache-2.0 */
/* What goes to people and machines that watch: errors, logs, ids, secrets, counters. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/error.h"
#include "base/id.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/secret.h"
#include "base/text.h"

static void test_error_first_stays(void **state)
{
	struct error e = {0};

	assert_int_equal(error_set(&e, "A.B", "first %d", 1), -EREMOTEIO);
	assert_int_equal(error_set(&e, "C", "second"), -EREMOTEIO);
	assert_int_equal(error_errno(&e, ENOENT, "third"), -ENOENT);
	assert_string_equal(e.code, "A.B");
	assert_string_equal(e.message, "first 1");
	error_clear(&e);
	assert_false(error_is_set(&e));
	assert_int_equal(error_errno(&e, -ENOENT, "Cannot open %s", "x"), -ENOENT);
	assert_string_equal(e.code, "InternalError");
	assert_string_equal(e.message, "Cannot open x: No such file or directory");
	assert_int_equal(error_set(NULL, "X", "nobody listens"), -EREMOTEIO);
	assert_int_equal(error_errno(NULL, EIO, "nobody listens"), -EIO);
}

static void test_error_long_message_is_cut(void **state)
{
	char text[2000];
	struct error e = {0};

	memset(text, 'x', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	error_errno(&e, EIO, "%s", text);
	assert_int_equal(strlen(e.message), sizeof(e.message) - 1);
}

/* What one call of fn writes to stderr. */
static void capture(void (*fn)(void), char *out, size_t size)
{
	FILE *f = tmpfile();
	int saved = dup(STDERR_FILENO);
	size_t n;

	assert_non_null(f);
	dup2(fileno(f), STDERR_FILENO);
	fn();
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(f);
	n = fread(out, 1, size - 1, f);
	out[n] = '\0';
	fclose(f);
}

static void write_some(void)
{
	log_init("nc", LOG_LEVEL_INFO);
	log_debug("below the level", NULL);
	log_info("plain", NULL);
	log_warn("a \"quoted\"\nmessage", "id=%s err=%s", "i-1",
		 log_quote("it's \"bad\"\nreally\x01"));
	log_error("forged", "v=%s", "x\nts=2000 level=info");
}

static void test_log_lines(void **state)
{
	char text[2000], *line;

	capture(write_some, text, sizeof(text));
	line = strtok(text, "\n");
	assert_true(str_prefix(line, "ts=20"));
	assert_non_null(strstr(line, " level=info svc=nc msg=\"plain\""));
	line = strtok(NULL, "\n");
	assert_true(str_suffix(line, " level=warn svc=nc msg=\"a \\\"quoted\\\"\\nmessage\" id=i-1 "
				     "err=\"it's \\\"bad\\\"\\nreally\\x01\""));
	line = strtok(NULL, "\n");
	assert_true(str_suffix(line, " v=x\\nts=2000 level=info"));
	assert_null(strtok(NULL, "\n"));
}

static void test_log_quote_is_bounded(void **state)
{
	char text[5000];
	const char *a, *b;

	memset(text, '"', sizeof(text) - 1);
	text[sizeof(text) - 1] = '\0';
	a = log_quote(text);
	assert_true(strlen(a) < 1024);
	assert_true(str_suffix(a, "\\\"...\""));
	b = log_quote("other");
	assert_string_equal(b, "\"other\"");
	assert_ptr_not_equal(a, b);
	assert_string_equal(log_quote(NULL), "\"\"");
}

static void test_log_level_names(void **state)
{
	enum log_level level = LOG_LEVEL_INFO;

	assert_int_equal(log_level_parse("error", &level), 0);
	assert_int_equal(level, LOG_LEVEL_ERROR);
	assert_int_equal(log_level_parse("loud", &level), -EINVAL);
	assert_int_equal(log_level_parse(NULL, &level), -EINVAL);
}

static void test_ids(void **state)
{
	char a[ID_LEN], b[ID_LEN], token[41];

	id_new("i", a);
	id_new("i", b);
	assert_true(id_valid("i", a));
	assert_int_equal(strlen(a), 2 + 17);
	assert_string_not_equal(a, b);
	assert_false(id_valid("ami", a));
	assert_true(id_valid("i", "i-0123abcd"));
	assert_false(id_valid("i", "i-0123abc"));
	assert_false(id_valid("i", "i-0123ABCD"));
	assert_false(id_valid("i", "i-0123abcdg"));
	assert_false(id_valid("i", "i0123abcd"));
	assert_false(id_valid("i", "i-"));
	assert_false(id_valid("i", NULL));
	random_token(token, 40);
	assert_int_equal(strlen(token), 40);
	assert_int_equal(
	    strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"), 40);
	random_token(token, 0);
	assert_string_equal(token, "");
}

static void test_secret(void **state)
{
	struct secret s = secret_new("hunter2"), none = secret_new(NULL);

	assert_string_equal(secret_reveal(&s), "hunter2");
	assert_string_equal(secret_text(&s), "***");
	assert_null(secret_reveal(&none));
	secret_done(&s);
	secret_done(&s);
	assert_null(secret_reveal(&s));
	secret_done(&none);
	secret_free_string(NULL);
}

static void test_metrics(void **state)
{
	static const struct metric_desc descs[] = {
	    {"x_requests_total{code=\"200\"}", "Requests answered.", METRIC_COUNTER},
	    {"x_requests_total{code=\"500\"}", "Requests answered.", METRIC_COUNTER},
	    {"x_open", "Open now.", METRIC_GAUGE},
	};
	struct metrics *m = metrics_new(descs, ARRAY_SIZE(descs));
	_cleanup_(buf_done) struct buf out = BUF_INIT;

	metrics_add(m, 0, 2);
	metrics_add(m, 0, 3);
	metrics_set(m, 2, -7);
	assert_int_equal(metrics_get(m, 0), 5);
	metrics_print(m, &out);
	assert_string_equal(out.data, "# HELP x_requests_total Requests answered.\n"
				      "# TYPE x_requests_total counter\n"
				      "x_requests_total{code=\"200\"} 5\n"
				      "x_requests_total{code=\"500\"} 0\n"
				      "# HELP x_open Open now.\n"
				      "# TYPE x_open gauge\n"
				      "x_open -7\n");
	metrics_free(m);
	metrics_free(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_error_first_stays),
	    cmocka_unit_test(test_error_long_message_is_cut),
	    cmocka_unit_test(test_log_lines),
	    cmocka_unit_test(test_log_quote_is_bounded),
	    cmocka_unit_test(test_log_level_names),
	    cmocka_unit_test(test_ids),
	    cmocka_unit_test(test_secret),
	    cmocka_unit_test(test_metrics),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
