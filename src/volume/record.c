/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"
#include "volume/keeper_priv.h"

#define RECORD_MAX_BYTES (256 << 10)

bool keeper_record_id_valid(const char *id)
{
	size_t len = strlen(id);

	return len && len <= 64 &&
	       strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-") == len;
}

static int add_arg(struct keeper_record *r, size_t i, const char *arg)
{
	if (i >= KEEPER_ARGS_MAX)
		return -E2BIG;
	r->args[i] = strdup(arg);
	return r->args[i] ? 0 : -ENOMEM;
}

int keeper_record_copy(const struct keeper_volume *v, struct keeper_record *ret, struct error *e)
{
	struct keeper_record r = {.uid = v->uid, .gid = v->gid};
	int err = 0;

	if (!keeper_record_id_valid(v->id))
		return error_set(e, "InvalidParameterValue", "\"%s\" is no name for a volume's process", v->id);
	strcpy(r.id, v->id);
	for (size_t i = 0; v->args[i] && !err; i++)
		err = add_arg(&r, i, v->args[i]);
	if (err) {
		keeper_record_done(&r);
		return error_errno(e, err, "Recording volume %s", v->id);
	}
	*ret = r;
	return 0;
}

bool keeper_record_equal(const struct keeper_record *a, const struct keeper_record *b)
{
	size_t i = 0;

	while (a->args[i] && str_eq(a->args[i], b->args[i]))
		i++;
	return a->uid == b->uid && a->gid == b->gid && !a->args[i] && !b->args[i];
}

void keeper_record_done(struct keeper_record *r)
{
	for (size_t i = 0; i < KEEPER_ARGS_MAX; i++)
		free(r->args[i]);
	memset(r, 0, sizeof(*r));
}

static char *to_json(const struct keeper_record *r)
{
	json_t *args = json_array();

	for (size_t i = 0; r->args[i]; i++)
		json_array_append_new(args, json_string(r->args[i]));
	json_t *j = json_pack("{s:i,s:I,s:I,s:o}", "version", 1, "uid", (json_int_t)r->uid, "gid", (json_int_t)r->gid,
			      "args", args);
	char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	json_decref(j);
	return text;
}

int keeper_record_write(const char *run_dir, const struct keeper_record *r, struct error *e)
{
	_cleanup_(freep) char *text = to_json(r);
	char path[4096];
	int err;

	if (!text)
		return error_set(e, "InvalidParameterValue", "Volume %s: arguments that are no UTF-8", r->id);
	snprintf(path, sizeof(path), "%s/%s", run_dir, r->id);
	err = mkdir(path, 0711) && errno != EEXIST ? -errno : 0;
	if (!err && (chmod(path, 0711) || chown(path, r->uid, r->gid)))
		err = -errno;
	if (err)
		return error_errno(e, err, "Making %s", path);
	snprintf(path, sizeof(path), "%s/%s/args", run_dir, r->id);
	err = file_write_atomic(path, text, strlen(text), 0600);
	return err ? error_errno(e, err, "Writing %s", path) : 0;
}

static int from_json(const char *text, struct keeper_record *r)
{
	json_t *j = json_loads(text, 0, NULL), *args = json_object_get(j, "args");
	int err = json_integer_value(json_object_get(j, "version")) == 1 && json_is_array(args) ? 0 : -EINVAL;

	r->uid = (uid_t)json_integer_value(json_object_get(j, "uid"));
	r->gid = (gid_t)json_integer_value(json_object_get(j, "gid"));
	if (!json_is_integer(json_object_get(j, "uid")) || !json_is_integer(json_object_get(j, "gid")))
		err = -EINVAL;
	for (size_t i = 0; !err && i < json_array_size(args); i++) {
		const char *arg = json_string_value(json_array_get(args, i));
		err = arg ? add_arg(r, i, arg) : -EINVAL;
	}
	json_decref(j);
	return err;
}

int keeper_record_read(const char *run_dir, const char *id, struct keeper_record *ret, struct error *e)
{
	_cleanup_(freep) char *text = NULL;
	struct keeper_record r = {0};
	char path[4096];
	size_t len;

	snprintf(path, sizeof(path), "%s/%s/args", run_dir, id);
	snprintf(r.id, sizeof(r.id), "%s", id);
	int err = file_read(path, RECORD_MAX_BYTES, &text, &len);
	if (!err)
		err = from_json(text, &r);
	if (err) {
		keeper_record_done(&r);
		return error_errno(e, err, "Reading %s", path);
	}
	*ret = r;
	return 0;
}

void keeper_last_line(const char *path, char *out, size_t size)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	char tail[2048];

	*out = '\0';
	off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : 0;
	off_t from = end > (off_t)sizeof(tail) - 1 ? end - (off_t)sizeof(tail) + 1 : 0;
	ssize_t n = fd >= 0 ? pread(fd, tail, sizeof(tail) - 1, from) : 0;
	if (n <= 0)
		return;
	while (n && tail[n - 1] == '\n')
		n--;
	tail[n] = '\0';
	const char *line = strrchr(tail, '\n');
	snprintf(out, size, "%s", line ? line + 1 : tail);
}
