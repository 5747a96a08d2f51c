/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is asked of who serves a volume: of the node that has it open, by messages; of a process of our own, by its control socket.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/text.h"
#include "gen/volume.h"
#include "svc/sc/sc_priv.h"

#define VIEW_MS 60000  /* a barrier waits for the guest's requests that are under way */
#define CHANGE_MS 20000 /* no worker is to be held up for long by a node that hangs */
#define OWN_MS 60000

/* ---- messages ---- */

static struct rpc_client **enter_call(struct sc *sc, struct rpc_client *c)
{
	struct rpc_client **slot = NULL;

	pthread_mutex_lock(&sc->lock);
	for (size_t i = 0; i < SC_CALLS && !slot && !sc->stopping; i++) {
		if (!sc->calls[i])
			slot = &sc->calls[i];
	}
	if (slot)
		*slot = c;
	pthread_mutex_unlock(&sc->lock);
	return slot;
}

int sc_call(struct sc *sc, enum tls_role role, const char *url, const char *peer_id, const struct wire_service *service, const char *action,
	    const void *in, struct arena *a, void **ret_out, int timeout_ms, struct error *e)
{
	struct rpc_client *c, **slot;
	int r = rpc_client_new(sc->tls, role, url, &c);

	if (r)
		return error_errno(e, r, "cannot make a client of %s", url);
	if (peer_id)
		rpc_client_expect_id(c, peer_id);
	slot = enter_call(sc, c);
	if (!slot)
		r = error_set(e, "ServiceUnavailable", "the storage controller is stopping, or too busy to ask %s", url);
	else
		r = rpc_call(c, service, action, in, a, ret_out, timeout_ms, e);
	pthread_mutex_lock(&sc->lock);
	if (slot)
		*slot = NULL;
	pthread_mutex_unlock(&sc->lock);
	rpc_client_free(c);
	return r;
}

static int ask_node(struct sc *sc, const struct sc_place *p, const char *action, const void *in, struct arena *a, void **ret, int timeout_ms,
		    struct error *e)
{
	return sc_call(sc, TLS_ROLE_NC, p->node_url, p->node_id, &volume_service, action, in, a, ret, timeout_ms, e);
}

/* One that says nothing knows of none: all of the volume counts as changed. */
static void take_base(const char *base, char ret[static ID_LEN])
{
	snprintf(ret, ID_LEN, "%s", base && strlen(base) < ID_LEN ? base : "");
}

/* ---- our own process ---- */

static int ask_own(struct sc *sc, const struct sc_place *p, const char *line, json_t **ret, struct error *e)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	int r = keeper_command(sc->volumes, p->volume, line, OWN_MS, &reply, e);

	if (r == -ENOENT || r == -ECONNREFUSED) {
		if (e) {
			error_clear(e);
			error_set(e, "VolumeNotOpen", "Volume %s is not served at the moment", p->volume);
		}
		return -EREMOTEIO;
	}
	if (r)
		return r;
	*ret = json_loads(reply.data ? reply.data : "", 0, NULL);
	return *ret ? 0 : error_set(e, "InternalError", "the process of volume %s answers strangely", p->volume);
}

static int own_view_begin(struct sc *sc, const struct sc_place *p, const char *name, struct sc_view_info *ret, struct error *e)
{
	_cleanup_(freep) char *line = NULL;
	json_t *j = NULL;

	/* Nobody writes there, so that nothing is ever copied into the scratch. */
	if (asprintf(&line, "snap begin name=%s,scratch=%s/served/%s/scratch-%s,scratch-size=1M", name, sc->dir, p->volume, name) < 0)
		abort();
	int r = ask_own(sc, p, line, &j, e);
	if (r)
		return r;
	take_base(json_string_value(json_object_get(j, "base")), ret->base);
	json_decref(j);
	r = ask_own(sc, p, "info", &j, e);
	if (r)
		return r;
	ret->size_bytes = json_integer_value(json_object_get(j, "size_bytes"));
	json_decref(j);
	sc_serve_socket(sc, p->volume, ret->socket, sizeof(ret->socket));
	snprintf(ret->export_name, sizeof(ret->export_name), "snap/%s", name);
	return 0;
}

static int own_view_end(struct sc *sc, const struct sc_place *p, const char *name, bool commit, char ret_base[static ID_LEN], struct error *e)
{
	struct error why = { 0 };
	json_t *j = NULL;
	char line[256];

	snprintf(line, sizeof(line), "snap end name=%s,commit=%s,force=on", name, commit ? "on" : "off");
	int r = ask_own(sc, p, line, &j, &why);
	if (r && strstr(why.message, "there is no view")) {
		error_clear(&why);
		r = ask_own(sc, p, "snap status", &j, &why);
	}
	if (r) {
		if (e)
			*e = why;
		return r;
	}
	take_base(json_string_value(json_object_get(j, "base")), ret_base);
	json_decref(j);
	return 0;
}

static int own_change(struct sc *sc, const struct sc_place *p, int64_t size_bytes, struct sc_filled *ret, struct error *e)
{
	json_t *j = NULL;
	char line[64];
	int r = 0;

	if (size_bytes) {
		snprintf(line, sizeof(line), "resize %lld", (long long)size_bytes);
		r = ask_own(sc, p, line, &j, e);
		json_decref(TAKE_PTR(j));
	}
	if (r == 0)
		r = ask_own(sc, p, "cow status", &j, e);
	if (r)
		return r;
	ret->size_bytes = json_integer_value(json_object_get(j, "size_bytes"));
	ret->filled_bytes = json_integer_value(json_object_get(j, "filled_bytes"));
	ret->complete = str_eq(json_string_value(json_object_get(j, "state")), "complete");
	json_decref(j);
	return 0;
}

/* ---- either ---- */

int sc_view_begin(struct sc *sc, const struct sc_place *p, const char *name, int64_t scratch_bytes, struct sc_view_info *ret, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct volume_begin_view_request in = { .volume_id = p->volume, .generation = WIRE_INT_OF(p->generation), .name = name,
						.scratch_bytes = WIRE_INT_OF(scratch_bytes) };
	const struct volume_begin_view_response *out;
	void *reply = NULL;

	*ret = (struct sc_view_info){ 0 };
	if (!*p->node_id)
		return own_view_begin(sc, p, name, ret, e);
	int r = ask_node(sc, p, "BeginView", &in, a, &reply, VIEW_MS, e);
	if (r)
		return r;
	out = reply;
	if (strlen(out->socket) >= sizeof(ret->socket) || strlen(out->export) >= sizeof(ret->export_name))
		return error_set(e, "InternalError", "node %s names a socket that is too long", p->node_id);
	snprintf(ret->socket, sizeof(ret->socket), "%s", out->socket);
	snprintf(ret->export_name, sizeof(ret->export_name), "%s", out->export);
	take_base(out->base, ret->base);
	ret->size_bytes = out->size_bytes.value;
	return 0;
}

int sc_view_end_base(struct sc *sc, const struct sc_place *p, const char *name, bool commit, char ret_base[static ID_LEN], struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct volume_end_view_request in = { .volume_id = p->volume, .generation = WIRE_INT_OF(p->generation), .name = name,
					      .commit = WIRE_BOOL_OF(commit) };
	void *reply = NULL;

	if (!*p->node_id)
		return own_view_end(sc, p, name, commit, ret_base, e);
	int r = ask_node(sc, p, "EndView", &in, a, &reply, VIEW_MS, e);
	if (r == 0)
		take_base(((const struct volume_end_view_response *)reply)->base, ret_base);
	return r;
}

int sc_view_end(struct sc *sc, const struct sc_place *p, const char *name, bool commit, struct error *e)
{
	char base[ID_LEN];

	return sc_view_end_base(sc, p, name, commit, base, e);
}

int sc_volume_change(struct sc *sc, const struct sc_place *p, int64_t size_bytes, const char *throttle, struct sc_filled *ret, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct volume_change_volume_request in = { .volume_id = p->volume, .generation = WIRE_INT_OF(p->generation), .throttle = throttle };
	struct volume_describe_volume_request look = { .volume_id = p->volume, .generation = WIRE_INT_OF(p->generation) };
	const struct volume_describe_volume_response *out;
	void *reply = NULL;
	int r;

	*ret = (struct sc_filled){ 0 };
	if (!*p->node_id)
		return own_change(sc, p, size_bytes, ret, e);
	if (size_bytes)
		in.size_bytes = WIRE_INT_OF(size_bytes);
	bool change = size_bytes || throttle;
	r = ask_node(sc, p, change ? "ChangeVolume" : "DescribeVolume", change ? (const void *)&in : &look, a, &reply, CHANGE_MS, e);
	if (r)
		return r;
	out = reply;
	*ret = (struct sc_filled){ .size_bytes = out->size_bytes.value, .filled_bytes = out->filled_bytes.value, .complete = out->complete.value };
	return 0;
}
