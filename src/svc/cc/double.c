/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "base/id.h"
#include "base/text.h"
#include "gen/node_rpc.h"
#include "os/file.h"
#include "svc/cc/double_priv.h"

static struct double_instance *find(struct node_double *d, const char *id)
{
	/* Tests with many instances apply them in order: look where the last one was found first.
	 */
	for (size_t k = 0; k < d->count; k++) {
		if (str_eq(d->instances[k].id, id))
			return &d->instances[k];
	}
	return NULL;
}

static struct double_instance *add(struct node_double *d, const char *id)
{
	struct double_instance *i;

	if (d->count == d->room) {
		d->room = d->room ? 2 * d->room : 64;
		d->instances = realloc(d->instances, d->room * sizeof(*d->instances));
		assert_non_null(d->instances);
	}
	i = &d->instances[d->count++];
	*i = (struct double_instance){0};
	snprintf(i->id, sizeof(i->id), "%s", id);
	snprintf(i->state, sizeof(i->state), "pending");
	return i;
}

static void changed(struct node_double *d, struct double_instance *i)
{
	i->revision = ++d->revision;
	pthread_cond_broadcast(&d->changed);
}

static void obey(struct node_double *d, const struct shared_instance_spec *s, bool fresh)
{
	struct double_instance *i = fresh ? NULL : find(d, s->instance_id);
	const char *state = s->wanted; /* running, stopped, terminated */

	if (!i)
		i = add(d, s->instance_id);
	else if (i->generation >= s->generation.value)
		return;
	i->generation = s->generation.value;
	if (d->obey)
		snprintf(i->state, sizeof(i->state), "%s", state);
	changed(d, i);
}

int node_apply_instances(void *ctx, struct arena *a, const struct tls_identity *peer,
			 const struct shared_apply_instances_request *in,
			 struct shared_apply_instances_response *out, struct error *e)
{
	struct node_double *d = ctx;
	bool fresh;

	pthread_mutex_lock(&d->lock);
	for (size_t k = 0; d->refuse_id && k < in->instances.count; k++) {
		if (str_eq(in->instances.items[k].instance_id, d->refuse_id)) {
			pthread_mutex_unlock(&d->lock);
			return error_set(e, "SerializationException", "cannot stand %s",
					 d->refuse_id);
		}
	}
	d->fulls += in->full.set && in->full.value;
	d->last_apply_count = (int)in->instances.count;
	fresh = d->count == 0;
	for (size_t k = 0; k < in->instances.count; k++)
		obey(d, &in->instances.items[k], fresh);
	out->epoch = arena_strdup(a, d->epoch);
	pthread_mutex_unlock(&d->lock);
	return 0;
}

static void wait_for_change(struct node_double *d, int64_t since, int64_t wait_ms)
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += wait_ms / 1000;
	until.tv_nsec += (wait_ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	while (!d->stopping && d->revision <= since) {
		if (pthread_cond_timedwait(&d->changed, &d->lock, &until) != 0)
			break;
	}
}

int node_describe_instances(void *ctx, struct arena *a, const struct tls_identity *peer,
			    const struct shared_describe_instances_request *in,
			    struct shared_describe_instances_response *out, struct error *e)
{
	struct node_double *d = ctx;
	bool same;

	pthread_mutex_lock(&d->lock);
	same = str_eq(in->epoch, d->epoch);
	if (same && in->wait_ms.value)
		wait_for_change(d, in->since_revision.value, in->wait_ms.value);
	out->epoch = arena_strdup(a, d->epoch);
	out->revision = WIRE_INT_OF(d->revision);
	out->full = WIRE_BOOL_OF(!same);
	out->instances.set = true;
	out->instances.items = arena_new_array(a, struct shared_instance_observed, d->count);
	for (size_t k = 0; k < d->count; k++) {
		struct double_instance *i = &d->instances[k];

		if (same && i->revision <= in->since_revision.value)
			continue;
		out->instances.items[out->instances.count++] = (struct shared_instance_observed){
		    .instance_id = arena_strdup(a, i->id),
		    .node_id = d->id,
		    .generation = WIRE_INT_OF(i->generation),
		    .state = arena_strdup(a, i->state),
		    .reachability = "ok",
		    .revision = WIRE_INT_OF(i->revision),
		};
	}
	pthread_mutex_unlock(&d->lock);
	return 0;
}

int node_forget_instances(void *ctx, struct arena *a, const struct tls_identity *peer,
			  const struct shared_forget_instances_request *in, struct error *e)
{
	struct node_double *d = ctx;

	pthread_mutex_lock(&d->lock);
	if (d->refuse_forgets > 0) {
		d->refuse_forgets--;
		pthread_mutex_unlock(&d->lock);
		return error_set(e, "InternalError", "not now");
	}
	for (size_t k = 0; k < in->instance_ids.count; k++) {
		struct double_instance *i = find(d, in->instance_ids.items[k]);

		if (i)
			*i = d->instances[--d->count];
	}
	pthread_mutex_unlock(&d->lock);
	return 0;
}

int node_get_console_output(void *ctx, struct arena *a, const struct tls_identity *peer,
			    const struct shared_get_console_output_request *in,
			    struct shared_get_console_output_response *out, struct error *e)
{
	struct node_double *d = ctx;
	bool have;

	pthread_mutex_lock(&d->lock);
	have = find(d, in->instance_id) != NULL;
	pthread_mutex_unlock(&d->lock);
	if (!have)
		return error_set(e, "InstanceNotFound", "the node has no %s", in->instance_id);
	out->output = (struct wire_blob){.data = "login:", .len = 6};
	return 0;
}

int node_describe_node(void *ctx, struct arena *a, const struct tls_identity *peer,
		       struct shared_node_status *out, struct error *e)
{
	struct node_double *d = ctx;

	*out = (struct shared_node_status){.node_id = d->id,
					   .state = "ready",
					   .hypervisor = "fake",
					   .vcpus = WIRE_INT_OF(d->vcpus),
					   .memory_mib = WIRE_INT_OF(d->memory_mib),
					   .disk_mib = WIRE_INT_OF(d->disk_mib)};
	return 0;
}

int node_drain(void *ctx, struct arena *a, const struct tls_identity *peer,
	       const struct node_drain_request *in, struct error *e)
{
	return error_set(e, "UnsupportedOperation", "a double has no guests");
}

int node_get_figures(void *ctx, struct arena *a, const struct tls_identity *peer,
		     const struct node_get_figures_request *in, struct node_get_figures_response *out,
		     struct error *e)
{
	return error_set(e, "UnsupportedOperation", "a double has no guests");
}

int node_resume(void *ctx, struct arena *a, const struct tls_identity *peer, struct error *e)
{
	return error_set(e, "UnsupportedOperation", "a double has no guests");
}

static void save(const char *dir, const char *name, const char *text)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	assert_int_equal(file_write_atomic(path, text, strlen(text), 0600), 0);
}

/* A folder of its own for each node's certificate: as clients we name files. */
static struct tls_context *own_identity(const char *certs, const char *id, const char *dir)
{
	static const char *const names[] = {NULL};
	struct tls_context *t = NULL;
	struct error e = {0};

	assert_int_equal(dir_make(dir, 0700), 0);
	if (tls_issue(certs, TLS_ROLE_NC, id, names, &e) < 0 ||
	    tls_context_load(certs, TLS_ROLE_NC, &t, &e) < 0)
		fail_msg("%s", e.message);
	save(dir, "ca.crt", t->ca_pem);
	save(dir, "nc.crt", t->cert_pem);
	save(dir, "nc.key", t->key_pem);
	tls_context_free(t);
	if (tls_context_load(dir, TLS_ROLE_NC, &t, &e) < 0)
		fail_msg("%s", e.message);
	return t;
}

struct node_double *double_new(const char *certs, const char *id)
{
	struct node_double *d = calloc(1, sizeof(*d));

	assert_non_null(d);
	snprintf(d->id, sizeof(d->id), "%s", id);
	snprintf(d->dir, sizeof(d->dir), "%s/%s", certs, id);
	d->tls = own_identity(certs, id, d->dir);
	d->vcpus = 8;
	d->memory_mib = 8192;
	d->disk_mib = 100000;
	d->obey = true;
	random_token(d->epoch, 10);
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->changed, NULL);
	double_start(d);
	return d;
}

void double_start(struct node_double *d)
{
	struct rpc_binding b = {&node_service, node_rpc_handlers, d};
	struct error e = {0};

	d->stopping = false;
	if (rpc_server_start(&b, 1, "127.0.0.1", d->port, d->tls, &d->server, &e) < 0)
		fail_msg("%s", e.message);
	d->port = rpc_server_port(d->server);
	snprintf(d->url, sizeof(d->url), "https://127.0.0.1:%u", d->port);
}

void double_stop(struct node_double *d)
{
	pthread_mutex_lock(&d->lock);
	d->stopping = true;
	pthread_cond_broadcast(&d->changed);
	pthread_mutex_unlock(&d->lock);
	rpc_server_stop(d->server);
	d->server = NULL;
}

void double_free(struct node_double *d)
{
	if (d->server)
		double_stop(d);
	tls_context_free(d->tls);
	pthread_cond_destroy(&d->changed);
	pthread_mutex_destroy(&d->lock);
	free(d->instances);
	free(d);
}

void double_state(struct node_double *d, const char *id, char *out)
{
	struct double_instance *i;

	pthread_mutex_lock(&d->lock);
	i = find(d, id);
	strcpy(out, i ? i->state : "");
	pthread_mutex_unlock(&d->lock);
}

void double_set_state(struct node_double *d, const char *id, const char *state)
{
	struct double_instance *i;

	pthread_mutex_lock(&d->lock);
	i = find(d, id);
	if (!i)
		i = add(d, id);
	snprintf(i->state, sizeof(i->state), "%s", state);
	changed(d, i);
	pthread_mutex_unlock(&d->lock);
}
