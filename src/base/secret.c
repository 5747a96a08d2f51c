/* SPDX-License-Identifier: Apache-2.0 */
#include "base/secret.h"

#include <stdlib.h>
#include <string.h>

struct secret secret_new(const char *value)
{
	struct secret s = {0};

	if (value) {
		s.value_ = strdup(value);
		if (!s.value_)
			abort();
	}
	return s;
}

const char *secret_reveal(const struct secret *s)
{
	return s->value_;
}

const char *secret_text(const struct secret *s)
{
	(void)s;
	return "***";
}

void secret_done(struct secret *s)
{
	secret_free_string(s->value_);
	s->value_ = NULL;
}

void secret_free_string(char *s)
{
	if (!s)
		return;
	explicit_bzero(s, strlen(s));
	free(s);
}
