/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"

static const char *const level_names[] = {
    [LOG_LEVEL_DEBUG] = "debug",
    [LOG_LEVEL_INFO] = "info",
    [LOG_LEVEL_WARN] = "warn",
    [LOG_LEVEL_ERROR] = "error",
};

static struct {
	char service[32];
	enum log_level level;
} log_config = {"mallee", LOG_LEVEL_INFO};

void log_init(const char *service, enum log_level level)
{
	snprintf(log_config.service, sizeof(log_config.service), "%s", service);
	log_config.level = level;
}

int log_level_parse(const char *name, enum log_level *ret_level)
{
	for (size_t i = 0; i < ARRAY_SIZE(level_names); i++) {
		if (name && strcmp(name, level_names[i]) == 0) {
			*ret_level = (enum log_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

/* s with escapes, as long as it stays within max bytes; false when the rest had to be left out. */
static bool put_escaped(struct buf *b, const char *s, bool quotes_too, size_t max)
{
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (b->len > max - 4)
			return false;
		if (c == '\n')
			buf_puts(b, "\\n");
		else if (c == '\t')
			buf_puts(b, "\\t");
		else if (c == '\r')
			buf_puts(b, "\\r");
		else if (c < 0x20 || c == 0x7f)
			buf_printf(b, "\\x%02x", c);
		else if (quotes_too && (c == '"' || c == '\\'))
			buf_printf(b, "\\%c", c);
		else
			buf_putc(b, (char)c);
	}
	return true;
}

void log_write(enum log_level level, const char *msg, const char *fields_fmt, ...)
{
	char now[CLOCK_ISO_LEN];
	struct buf line = BUF_INIT, fields = BUF_INIT;
	int saved = errno;

	if (level < log_config.level)
		return;
	clock_format_iso(clock_unix_ms(), now);
	buf_printf(&line, "ts=%s level=%s svc=%s msg=\"", now, level_names[level],
		   log_config.service);
	put_escaped(&line, msg, true, SIZE_MAX);
	buf_putc(&line, '"');
	if (fields_fmt) {
		va_list ap;

		va_start(ap, fields_fmt);
		errno = saved; /* for %m */
		buf_vprintf(&fields, fields_fmt, ap);
		va_end(ap);
		buf_putc(&line, ' ');
		put_escaped(&line, fields.data, false, SIZE_MAX);
	}
	buf_putc(&line, '\n');
	/* One write a line: lines of several threads and processes do not mix in an O_APPEND file.
	 */
	if (write(STDERR_FILENO, line.data, line.len) < 0)
		(void)0; /* nowhere to complain */
	buf_done(&line);
	buf_done(&fields);
	errno = saved;
}

const char *log_quote(const char *s)
{
	static _Thread_local char ring[4][1024];
	static _Thread_local unsigned next;
	char *out = ring[next++ % ARRAY_SIZE(ring)];
	struct buf b = BUF_INIT;

	buf_putc(&b, '"');
	if (!put_escaped(&b, s ? s : "", true, sizeof(ring[0]) - 8))
		buf_puts(&b, "...");
	buf_putc(&b, '"');
	memcpy(out, b.data, b.len + 1);
	buf_done(&b);
	return out;
}
