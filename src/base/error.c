/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _printf_(3, 0) void set(struct error *e, const char *code, const char *fmt, va_list ap)
{
	snprintf(e->code, sizeof(e->code), "%s", code);
	vsnprintf(e->message, sizeof(e->message), fmt, ap);
}

int error_set(struct error *e, const char *code, const char *fmt, ...)
{
	if (e && !error_is_set(e)) {
		va_list ap;

		va_start(ap, fmt);
		set(e, code, fmt, ap);
		va_end(ap);
	}
	return -EREMOTEIO;
}

int error_errno(struct error *e, int err, const char *fmt, ...)
{
	if (err < 0)
		err = -err;
	if (e && !error_is_set(e)) {
		char text[128];
		size_t len;
		va_list ap;

		va_start(ap, fmt);
		set(e, "InternalError", fmt, ap);
		va_end(ap);
		len = strlen(e->message);
		snprintf(e->message + len, sizeof(e->message) - len, ": %s",
			 strerror_r(err, text, sizeof(text)));
	}
	return -err;
}

void error_clear(struct error *e)
{
	if (e)
		e->code[0] = e->message[0] = '\0';
}
