/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the storage controller asks about volumes that are open on this node. Each of these is one or two commands to the
 * volume's process, and may be asked again. With the fake hypervisor none is served.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "gen/volume_rpc.h"
#include "svc/nc/nc_priv.h"

#define ANSWER_MS 5000
#define BARRIER_MS 60000 /* what is in the write buffer is written back first */

static int not_open(const char *id, struct error *e)
{
	return error_set(e, "VolumeNotOpen", "Volume %.40s is not open on this node", id);
}

/* Served here, for this attachment. On its way out, too: what was begun on it must be ended. */
static int check_open(struct nc *nc, const char *id, int64_t generation, bool even_closing, struct error *e)
{
	const struct nc_volume *v;
	bool good;

	pthread_mutex_lock(&nc->lock);
	v = nc_volume_find(nc, id);
	good = nc->keeper && v && v->generation == generation && (v->served || v->held) &&
	       (v->state == NC_VOLUME_OPEN || (even_closing && v->state == NC_VOLUME_CLOSING));
	pthread_mutex_unlock(&nc->lock);
	return good ? 0 : not_open(id, e);
}

static void json_freep(json_t **j)
{
	json_decref(*j);
}

/* A command's result; NULL with *e. */
static json_t *ask(struct nc *nc, const char *id, const char *line, int timeout_ms, struct error *e)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;
	json_t *j;

	if (nc_volume_command(nc, id, line, timeout_ms, &out, e) < 0)
		return NULL;
	j = json_loads(out.data, 0, NULL);
	if (!j)
		error_set(e, "InternalError", "the process of volume %s gave no answer that can be read", id);
	return j;
}

static int64_t number(const json_t *j, const char *name)
{
	return json_integer_value(json_object_get(j, name));
}

/* --- views --- */

static bool name_valid(const char *name)
{
	size_t len = strlen(name);

	return len && len < 64 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == len;
}

static int check_name(const char *name, struct error *e)
{
	return name_valid(name) ? 0 : error_set(e, "InvalidParameterValue", "\"%.64s\" is no name for a view", name);
}

static const json_t *find_view(const json_t *status, const char *name)
{
	const json_t *views = json_object_get(status, "views");

	for (size_t i = 0; i < json_array_size(views); i++) {
		const json_t *v = json_array_get(views, i);

		if (str_eq(json_string_value(json_object_get(v, "name")), name))
			return v;
	}
	return NULL;
}

/* One that failed is begun anew: what it froze is lost. */
static int end_failed(struct nc *nc, const char *id, const char *name, struct error *e)
{
	char line[160];
	json_t *j;

	snprintf(line, sizeof(line), "snap end name=%s,force=on", name);
	j = ask(nc, id, line, ANSWER_MS, e);
	json_decref(j);
	return j ? 0 : -EREMOTEIO;
}

/* What guests overwrite meanwhile is kept on the node's disk, of which instances' disks leave a part alone. */
static int check_room(struct nc *nc, int64_t bytes, struct error *e)
{
	struct statvfs fs;
	int64_t free_bytes = statvfs(nc->volumes_dir, &fs) == 0 ? (int64_t)fs.f_bavail * (int64_t)fs.f_frsize : 0;

	if (bytes > 0 && bytes <= free_bytes - nc_disk_reserve(nc) / 2)
		return 0;
	return error_set(e, "InsufficientCapacity", "a view needs room for %" PRId64 " bytes; the node has %" PRId64 " left for it", bytes,
			 MAX_OF(free_bytes - nc_disk_reserve(nc) / 2, (int64_t)0));
}

static json_t *begin(struct nc *nc, const struct volume_begin_view_request *in, struct arena *a, struct error *e)
{
	char path[4096];
	const char *file = arena_printf(a, "%s.scratch", in->name);

	nc_volume_path(nc, in->volume_id, file, path, sizeof(path));
	unlink(path); /* of a process that was killed as it made it */
	return ask(nc, in->volume_id,
		   arena_printf(a, "snap begin name=%s,scratch=%s,scratch-size=%" PRId64, in->name, path, in->scratch_bytes.value),
		   BARRIER_MS, e);
}

static int answer_view(struct nc *nc, struct arena *a, const struct volume_begin_view_request *in, const json_t *status,
		       struct volume_begin_view_response *out, struct error *e)
{
	const json_t *view = find_view(status, in->name);
	const char *base = json_string_value(json_object_get(status, "base"));
	char path[4096];

	if (!view)
		return error_set(e, "InternalError", "the view %s of volume %s was begun and is not there", in->name, in->volume_id);
	nc_volume_path(nc, in->volume_id, "nbd.sock", path, sizeof(path));
	out->socket = arena_strdup(a, path);
	out->export = arena_printf(a, "snap/%s", in->name);
	out->base = arena_strdup(a, base ? base : "");
	out->size_bytes = WIRE_INT_OF(number(view, "size_bytes"));
	return 0;
}

int volume_begin_view(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_begin_view_request *in,
		      struct volume_begin_view_response *out, struct error *e)
{
	_cleanup_(json_freep) json_t *status = NULL;
	struct nc *nc = ctx;
	const json_t *view;
	int r = check_open(nc, in->volume_id, in->generation.value, false, e);

	if (r == 0)
		r = check_name(in->name, e);
	if (r < 0)
		return r;
	status = ask(nc, in->volume_id, "snap status", ANSWER_MS, e);
	view = find_view(status, in->name);
	if (!status)
		return -EREMOTEIO;
	if (view && !str_eq(json_string_value(json_object_get(view, "state")), "failed"))
		return answer_view(nc, a, in, status, out, e); /* asked again */
	if (view && end_failed(nc, in->volume_id, in->name, e) < 0)
		return -EREMOTEIO;
	json_decref(status);
	status = NULL;
	r = check_room(nc, in->scratch_bytes.value, e);
	if (r == 0)
		status = begin(nc, in, a, e);
	if (!status)
		return -EREMOTEIO;
	log_info("view begun", "volume=%s name=%s", in->volume_id, in->name);
	return answer_view(nc, a, in, status, out, e);
}

static void tell_base(struct arena *a, const json_t *status, struct volume_end_view_response *out)
{
	const char *base = json_string_value(json_object_get(status, "base"));

	out->base = arena_strdup(a, base ? base : "");
}

int volume_end_view(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_end_view_request *in,
		    struct volume_end_view_response *out, struct error *e)
{
	_cleanup_(json_freep) json_t *status = NULL, *after = NULL;
	bool commit = in->commit.set && in->commit.value;
	struct nc *nc = ctx;
	int r = check_open(nc, in->volume_id, in->generation.value, true, e);

	if (r == 0)
		r = check_name(in->name, e);
	if (r < 0)
		return r;
	status = ask(nc, in->volume_id, "snap status", ANSWER_MS, e);
	if (!status)
		return -EREMOTEIO;
	if (!find_view(status, in->name)) {
		tell_base(a, status, out); /* asked again: it may have been committed then */
		return 0;
	}
	after = ask(nc, in->volume_id,
		    arena_printf(a, "snap end name=%s,commit=%s,force=on", in->name, commit ? "on" : "off"), BARRIER_MS, e);
	if (!after)
		return -EREMOTEIO;
	tell_base(a, after, out);
	log_info("view ended", "volume=%s name=%s commit=%d", in->volume_id, in->name, commit);
	return 0;
}

/* --- what it is --- */

static int describe(struct nc *nc, const char *id, struct volume_describe_volume_response *out, struct error *e)
{
	_cleanup_(json_freep) json_t *info = ask(nc, id, "info", ANSWER_MS, e), *cow = NULL;
	struct error why = {0};

	if (!info)
		return -EREMOTEIO;
	out->size_bytes = WIRE_INT_OF(number(info, "size_bytes"));
	cow = ask(nc, id, "cow status", ANSWER_MS, &why);
	if (!cow && !str_eq(why.code, "InvalidCommand")) /* which says that it is a plain one */
		return error_set(e, why.code, "%s", why.message);
	out->filled_bytes = cow ? WIRE_INT_OF(number(cow, "filled_bytes")) : out->size_bytes;
	out->complete = WIRE_BOOL_OF(!cow || str_eq(json_string_value(json_object_get(cow, "state")), "complete"));
	return 0;
}

int volume_describe_volume(void *ctx, struct arena *a, const struct tls_identity *peer,
			   const struct volume_describe_volume_request *in, struct volume_describe_volume_response *out,
			   struct error *e)
{
	int r = check_open(ctx, in->volume_id, in->generation.value, true, e);

	return r < 0 ? r : describe(ctx, in->volume_id, out, e);
}

static int grow(struct nc *nc, const char *id, int64_t size_bytes, struct arena *a, struct error *e)
{
	_cleanup_(json_freep) json_t *info = ask(nc, id, "info", ANSWER_MS, e), *after = NULL;

	if (!info)
		return -EREMOTEIO;
	if (number(info, "size_bytes") >= size_bytes)
		return 0;
	after = ask(nc, id, arena_printf(a, "resize %" PRId64, size_bytes), BARRIER_MS, e);
	return after ? 0 : -EREMOTEIO;
}

int volume_change_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_change_volume_request *in,
			 struct volume_describe_volume_response *out, struct error *e)
{
	struct nc *nc = ctx;
	int r = check_open(nc, in->volume_id, in->generation.value, false, e);

	if (r == 0 && in->throttle && strpbrk(in->throttle, " \n"))
		r = error_set(e, "InvalidParameterValue", "Throttle: options have no blanks");
	if (r == 0 && in->throttle && *in->throttle)
		r = nc_volume_throttle(nc, in->volume_id, in->throttle, e);
	if (r == 0 && in->size_bytes.set)
		r = grow(nc, in->volume_id, in->size_bytes.value, a, e);
	return r < 0 ? r : describe(nc, in->volume_id, out, e);
}

struct rpc_binding volume_binding(struct nc *nc)
{
	return (struct rpc_binding){.service = &volume_service, .handlers = volume_rpc_handlers, .ctx = nc};
}
