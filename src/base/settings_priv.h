/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_SETTINGS_PRIV_H
#define MALLEE_BASE_SETTINGS_PRIV_H

#include <stdbool.h>

#include "base/settings.h"

/* One line of the table in settings.c. Integers have a max other than 0; texts have a check. */
struct setting_desc {
	const char *name; /* in mallee.conf */
	const char *env;  /* NULL: not from the environment */
	const char *fallback;
	int64_t min, max;
	const char *unit;
	bool (*check)(const char *value);
	const char *accepts; /* what check() accepts, for messages */
	const char *doc;
};

enum setting_source {
	SETTING_FROM_DEFAULT,
	SETTING_FROM_FILE,
	SETTING_FROM_ENV,
	SETTING_FROM_CALLER
};

const struct setting_desc *setting_describe(enum setting which);
int setting_by_name(const char *name); /* the setting, or -ENOENT */
/* Check and store; where names the place of the value in the error. */
int settings_assign(struct settings *s, enum setting which, const char *where, const char *value,
		    enum setting_source source, struct error *e);
enum setting_source settings_source(const struct settings *s, enum setting which);

/* settings_file.c: read $MALLEE_STATE/mallee.conf; a missing one is fine. */
int settings_file_load(struct settings *s, struct error *e);

#endif
