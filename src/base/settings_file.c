/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mallee.conf: lines of `name = value`, `#` starts a comment line. Saving keeps the lines and
 * comments that are there, changes the values in place and appends what is new; defaults are not
 * written, so that a later release may have better ones. The file holds no secret and is readable
 * by all, since the daemons run as several users.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/settings_priv.h"
#include "base/text.h"

#define FILE_MAX_BYTES 65536

/* The file's text; *ret empty when there is none. */
static int read_text(const char *path, struct buf *ret, struct error *e)
{
	FILE *f = fopen(path, "re");
	char chunk[4096];
	size_t n;
	int r = 0;

	if (!f && (errno == ENOENT || errno == ENOTDIR))
		return 0;
	if (!f)
		return error_errno(e, errno, "Cannot read %s", path);
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0 && ret->len <= FILE_MAX_BYTES)
		buf_append(ret, chunk, n);
	if (ferror(f))
		r = error_errno(e, errno, "Cannot read %s", path);
	else if (ret->len > FILE_MAX_BYTES || (ret->len && memchr(ret->data, '\0', ret->len)))
		r = error_set(e, "InvalidSetting", "%s is not a text file of settings.", path);
	fclose(f);
	return r;
}

static char *trim(char *s)
{
	size_t n;

	while (isspace((unsigned char)*s))
		s++;
	n = strlen(s);
	while (n > 0 && isspace((unsigned char)s[n - 1]))
		s[--n] = '\0';
	return s;
}

/* The setting that a line sets and, cut out of the line, its value; -ENOENT for a comment or an
 * empty line. */
static int parse_line(char *line, const char *path, int number, char **ret_value, struct error *e)
{
	char *name = trim(line), *equals;
	int which;

	if (*name == '\0' || *name == '#')
		return -ENOENT;
	equals = strchr(name, '=');
	if (!equals)
		return error_set(e, "InvalidSetting",
				 "%s:%d: \"%.64s\" is not of the form name = value.", path, number,
				 name);
	*equals = '\0';
	name = trim(name);
	which = setting_by_name(name);
	if (which < 0)
		return error_set(e, "InvalidSetting", "%s:%d: there is no setting \"%.64s\".", path,
				 number, name);
	if (which == SETTING_STATE)
		return error_set(
		    e, "InvalidSetting",
		    "%s:%d: the state folder is set by the variable MALLEE_STATE alone.", path,
		    number);
	*ret_value = trim(equals + 1);
	return which;
}

int settings_file_load(struct settings *s, struct error *e)
{
	_cleanup_(freep) char *path = settings_path(s, "mallee.conf");
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	char *next, *line;
	int r, number = 0;

	r = read_text(path, &text, e);
	if (r < 0)
		return r;
	next = text.data;
	while ((line = strsep(&next, "\n"))) {
		char where[512], *value;

		r = parse_line(line, path, ++number, &value, e);
		if (r == -ENOENT)
			continue;
		if (r < 0)
			return r;
		snprintf(where, sizeof(where), "%s:%d: %s", path, number,
			 setting_describe((enum setting)r)->name);
		r = settings_assign(s, (enum setting)r, where, value, SETTING_FROM_FILE, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static int write_text(const char *path, const struct buf *text)
{
	_cleanup_(freep) char *tmp = NULL;
	int fd, r = 0;

	if (asprintf(&tmp, "%s.new", path) < 0)
		abort();
	fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < text->len && r == 0;) {
		ssize_t n = write(fd, text->data + done, text->len - done);

		if (n >= 0)
			done += (size_t)n;
		else if (errno != EINTR)
			r = -errno;
	}
	/* fchmod: readable for the other daemons' users whatever the umask. */
	if (r == 0 && (fchmod(fd, 0644) < 0 || fsync(fd) < 0))
		r = -errno;
	if (close(fd) < 0 && r == 0)
		r = -errno;
	if (r == 0 && rename(tmp, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(tmp);
	return r;
}

static int sync_folder(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	r = fsync(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static bool worth_saving(const struct settings *s, int which)
{
	return which != SETTING_STATE &&
	       settings_source(s, (enum setting)which) != SETTING_FROM_DEFAULT;
}

/* The old text with each value as it is now, then those that had no line. */
static int compose(const struct settings *s, const char *path, char *old, struct buf *out,
		   struct error *e)
{
	bool seen[SETTING_COUNT] = {false};
	char *next = old, *line;
	int number = 0;

	while ((line = strsep(&next, "\n"))) {
		_cleanup_(freep) char *copy = strdup(line);
		char *value;
		int which;

		if (!copy)
			abort();
		if (!next && *line == '\0')
			break; /* behind the last line break */
		which = parse_line(copy, path, ++number, &value, e);
		if (which < 0 && which != -ENOENT)
			return which;
		if (which < 0 || !worth_saving(s, which)) {
			buf_printf(out, "%s\n", line);
		} else if (!seen[which]) {
			buf_printf(out, "%s = %s\n", setting_describe((enum setting)which)->name,
				   settings_get(s, (enum setting)which));
		}
		if (which >= 0)
			seen[which] = true;
	}
	if (!old)
		buf_puts(
		    out,
		    "# Settings of this Mallee cloud: name = value. The environment overrules them.\n");
	for (int i = 0; i < SETTING_COUNT; i++) {
		const struct setting_desc *d = setting_describe((enum setting)i);

		if (!seen[i] && worth_saving(s, i))
			buf_printf(out, "\n# %s\n%s = %s\n", d->doc, d->name,
				   settings_get(s, (enum setting)i));
	}
	return 0;
}

int settings_save(const struct settings *s, struct error *e)
{
	_cleanup_(freep) char *path = settings_path(s, "mallee.conf");
	_cleanup_(buf_done) struct buf old = BUF_INIT;
	_cleanup_(buf_done) struct buf text = BUF_INIT;
	int r;

	r = read_text(path, &old, e);
	if (r < 0)
		return r;
	r = compose(s, path, old.data, &text, e);
	if (r < 0)
		return r;
	r = write_text(path, &text);
	if (r == 0)
		r = sync_folder(settings_get(s, SETTING_STATE));
	return r < 0 ? error_errno(e, r, "Cannot write %s", path) : 0;
}
