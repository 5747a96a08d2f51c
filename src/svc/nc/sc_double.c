/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/sc_double.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "gen/storage_rpc.h"

static struct double_volume *find(struct sc_double *d, const char *id)
{
	for (size_t i = 0; i < d->count; i++)
		if (str_eq(d->volumes[i].id, id))
			return &d->volumes[i];
	return NULL;
}

const char *volume_id(struct fixture *f, int number)
{
	return arena_printf(f->arena, "vol-%017d", number);
}

struct double_volume *sc_double_volume(struct sc_double *d, int number)
{
	char id[ID_LEN];
	struct double_volume *v;

	snprintf(id, sizeof(id), "vol-%017d", number);
	v = find(d, id);
	if (!v) {
		assert_true(d->count < DOUBLE_VOLUMES);
		v = &d->volumes[d->count++];
		*v = (struct double_volume){.back = "mem:size=8M", .size_bytes = 8 << 20};
		strcpy(v->id, id);
	}
	return v;
}

struct double_volume sc_double_see(struct sc_double *d, int number)
{
	struct double_volume copy;

	pthread_mutex_lock(&d->lock);
	copy = *sc_double_volume(d, number);
	pthread_mutex_unlock(&d->lock);
	return copy;
}

void sc_double_refuse(struct sc_double *d, int number, const char *code)
{
	pthread_mutex_lock(&d->lock);
	sc_double_volume(d, number)->refuse = code;
	pthread_mutex_unlock(&d->lock);
}

void sc_double_busy(struct sc_double *d, int number, bool busy)
{
	pthread_mutex_lock(&d->lock);
	sc_double_volume(d, number)->busy = busy;
	pthread_mutex_unlock(&d->lock);
}

void sc_double_hold(struct sc_double *d, int number, bool held)
{
	pthread_mutex_lock(&d->lock);
	sc_double_volume(d, number)->held = held;
	pthread_mutex_unlock(&d->lock);
}

static int open_volume(struct double_volume *v, const struct storage_open_volume_request *in, struct error *e)
{
	if (v->refuse)
		return error_set(e, v->refuse, "volume %s: %s, says the test", v->id, v->refuse);
	if (v->instance[0] && (!str_eq(v->instance, in->instance_id) || v->generation != in->generation.value))
		return error_set(e, "VolumeInUse", "volume %s is open for %s", v->id, v->instance);
	snprintf(v->instance, sizeof(v->instance), "%s", in->instance_id);
	v->generation = in->generation.value;
	v->opens++;
	return 0;
}

int storage_open_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_open_volume_request *in,
			struct storage_open_volume_response *out, struct error *e)
{
	struct sc_double *d = ctx;
	struct double_volume *v;
	int r;

	pthread_mutex_lock(&d->lock);
	d->calls++;
	v = find(d, in->volume_id);
	r = v ? open_volume(v, in, e) : error_set(e, "VolumeNotFound", "there is no volume %s", in->volume_id);
	if (r == 0) {
		out->size_bytes = WIRE_INT_OF(v->size_bytes);
		out->back = v->back;
		out->cow = v->cow;
		out->throttle = v->throttle;
		out->snap = v->snap;
		out->held = WIRE_BOOL_OF(v->held);
		out->files.set = true;
		out->files.items = (void *)v->files;
		while (v->files[out->files.count])
			out->files.count++;
	}
	pthread_mutex_unlock(&d->lock);
	return r;
}

static bool holds(const struct double_volume *v, const struct storage_volume_holder *in)
{
	return v && v->instance[0] && v->generation == in->generation.value;
}

int storage_release_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_volume_holder *in,
			   struct error *e)
{
	struct sc_double *d = ctx;
	struct double_volume *v;
	int r = 0;

	pthread_mutex_lock(&d->lock);
	d->calls++;
	v = find(d, in->volume_id);
	if (holds(v, in)) {
		v->releases++;
		r = v->busy ? error_set(e, "VolumeBusy", "a snapshot is read from %s", v->id) : 0;
	}
	pthread_mutex_unlock(&d->lock);
	return r;
}

int storage_close_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_volume_holder *in,
			 struct error *e)
{
	struct sc_double *d = ctx;
	struct double_volume *v;

	pthread_mutex_lock(&d->lock);
	d->calls++;
	v = find(d, in->volume_id);
	if (holds(v, in)) {
		v->instance[0] = '\0';
		v->closes++;
	}
	pthread_mutex_unlock(&d->lock);
	return 0;
}

static int no(struct error *e)
{
	return error_set(e, "InvalidAction", "the double does not");
}

int storage_apply_storage(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_apply_storage_request *in,
			  struct storage_apply_storage_response *out, struct error *e)
{
	return no(e);
}

int storage_describe_scrub(void *ctx, struct arena *a, const struct tls_identity *peer, struct storage_describe_scrub_response *out,
			   struct error *e)
{
	return no(e);
}

int storage_describe_storage(void *ctx, struct arena *a, const struct tls_identity *peer,
			     const struct storage_describe_storage_request *in, struct storage_describe_storage_response *out,
			     struct error *e)
{
	return no(e);
}

int storage_forget_storage(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_forget_storage_request *in,
			   struct error *e)
{
	return no(e);
}

int storage_get_status(void *ctx, struct arena *a, const struct tls_identity *peer, struct storage_get_status_response *out,
		       struct error *e)
{
	return no(e);
}

int storage_start_scrub(void *ctx, struct arena *a, const struct tls_identity *peer, const struct storage_start_scrub_request *in,
			struct storage_describe_scrub_response *out, struct error *e)
{
	return no(e);
}

void sc_double_start(struct sc_double *d)
{
	struct rpc_binding binding = {.service = &storage_service, .handlers = storage_rpc_handlers, .ctx = d};
	struct error e = {0};

	if (rpc_server_start(&binding, 1, "127.0.0.1", settings_port(d->fixture->settings, PORT_SC), d->tls, &d->rpc, &e) < 0)
		fail_msg("%s", e.message);
}

void sc_double_stop(struct sc_double *d)
{
	if (d->rpc)
		rpc_server_stop(TAKE_PTR(d->rpc));
}

struct sc_double *sc_double_new(struct fixture *f)
{
	struct sc_double *d = calloc(1, sizeof(*d));
	struct error e = {0};
	char certs[96];

	d->fixture = f;
	pthread_mutex_init(&d->lock, NULL);
	snprintf(certs, sizeof(certs), "%s/certs", f->dir);
	if (tls_issue(certs, TLS_ROLE_SC, "sc", (const char *const[]){NULL}, &e) < 0 ||
	    tls_context_load(certs, TLS_ROLE_SC, &d->tls, &e) < 0)
		fail_msg("%s", e.message);
	sc_double_start(d);
	return d;
}

void sc_double_free(struct sc_double *d)
{
	sc_double_stop(d);
	tls_context_free(d->tls);
	pthread_mutex_destroy(&d->lock);
	free(d);
}
