/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/walrus/walrus.h"

#include <stdio.h>

#include "base/log.h"
#include "gen/objects_rpc.h"
#include "svc/walrus/walrus_priv.h"
#include "wire/ops.h"

#define STOP_GRACE_MS 5000

static const struct metric_desc metric_descs[METRIC_COUNT] = {
    [METRIC_REQUESTS] = {"mallee_walrus_requests_total", "S3 requests.", METRIC_COUNTER},
    [METRIC_ERRORS_CLIENT] = {"mallee_walrus_client_errors_total",
			      "Requests answered with a 3xx or 4xx error.", METRIC_COUNTER},
    [METRIC_ERRORS_SERVER] = {"mallee_walrus_server_errors_total",
			      "Requests answered with a 5xx error.", METRIC_COUNTER},
    [METRIC_ABORTED] = {"mallee_walrus_aborted_total", "Requests whose client went away.",
			METRIC_COUNTER},
    [METRIC_AUTH_FAILED] = {"mallee_walrus_auth_failures_total",
			    "Requests whose signature was not accepted.", METRIC_COUNTER},
    [METRIC_BYTES_IN] = {"mallee_walrus_received_bytes_total", "Bytes of request bodies.",
			 METRIC_COUNTER},
    [METRIC_BYTES_OUT] = {"mallee_walrus_sent_bytes_total", "Bytes of objects in replies.",
			  METRIC_COUNTER},
};

static int health(void *ctx, struct error *e)
{
	struct walrus *w = ctx;
	struct store_status st;

	return store_status(w->store, &st, e);
}

static void gauge(struct buf *out, const char *name, const char *help, int64_t value)
{
	buf_printf(out, "# HELP %s %s\n# TYPE %s gauge\n%s %lld\n", name, help, name, name,
		   (long long)value);
}

static void print_metrics(void *ctx, struct buf *out)
{
	struct walrus *w = ctx;
	struct store_status st;

	metrics_print(w->metrics, out);
	if (store_status(w->store, &st, NULL) < 0)
		return;
	gauge(out, "mallee_walrus_buckets", "Buckets.", st.buckets);
	gauge(out, "mallee_walrus_objects", "Objects.", st.objects);
	gauge(out, "mallee_walrus_stored_bytes", "Bytes of all objects.", st.bytes);
	gauge(out, "mallee_walrus_free_bytes", "Bytes free on the disk.", st.free_bytes);
}

int objects_get_status(void *ctx, struct arena *a, const struct tls_identity *peer,
		       struct objects_get_status_response *out, struct error *e)
{
	struct walrus *w = ctx;
	struct store_status st;
	int r = store_status(w->store, &st, e);

	if (r < 0)
		return r;
	*out = (struct objects_get_status_response){
	    .version = MALLEE_VERSION,
	    .buckets = WIRE_INT_OF(st.buckets),
	    .objects = WIRE_INT_OF(st.objects),
	    .bytes = WIRE_INT_OF(st.bytes),
	    .free_bytes = WIRE_INT_OF(st.free_bytes),
	};
	return 0;
}

static int open_store(struct walrus *w, struct error *e)
{
	_cleanup_(freep) char *dir = settings_path(w->settings, "walrus");
	struct store_status st;
	int r = store_open(dir, &w->store, e);

	if (r >= 0)
		r = store_status(w->store, &st, e);
	if (r >= 0)
		log_info("store opened", "dir=%s buckets=%lld objects=%lld bytes=%lld",
			 log_quote(dir), (long long)st.buckets, (long long)st.objects,
			 (long long)st.bytes);
	return r;
}

static int open_identity(struct walrus *w, struct error *e)
{
	_cleanup_(freep) char *certs = settings_path(w->settings, "certs");
	int r = tls_context_load(certs, TLS_ROLE_WALRUS, &w->tls, e);

	if (r < 0)
		return r;
	snprintf(w->clc_url, sizeof(w->clc_url), "https://127.0.0.1:%u",
		 settings_port(w->settings, PORT_CLC));
	w->identity = identity_new(w->tls, w->clc_url);
	return 0;
}

static int listen_all(struct walrus *w, struct error *e)
{
	const struct rpc_binding binding = {
	    .service = &objects_service, .handlers = objects_rpc_handlers, .ctx = w};
	const struct http_server_config s3 = {
	    .address = settings_get(w->settings, SETTING_LISTEN),
	    .port = settings_port(w->settings, PORT_S3),
	    .threads = -1, /* handlers wait for the disk */
	    .max_stream_bytes = STORE_PUT_MAX + WALRUS_MAX_FRAMING,
	    .handler = &walrus_http_handler,
	    .ctx = w,
	};
	const struct ops_config ops = {
	    .port = settings_port(w->settings, PORT_OPS_WALRUS),
	    .health = health,
	    .metrics = print_metrics,
	    .ctx = w,
	};
	int r = rpc_server_start(&binding, 1, "127.0.0.1", settings_port(w->settings, PORT_WALRUS),
				 w->tls, &w->rpc, e);

	if (r >= 0)
		r = http_server_start(&s3, &w->s3, e);
	/* last: whoever finds it healthy finds S3, too */
	if (r >= 0)
		r = ops_server_start(&ops, &w->ops, e);
	return r;
}

int walrus_start(const struct settings *s, struct walrus **ret, struct error *e)
{
	struct walrus *w = calloc(1, sizeof(*w));

	if (!w)
		abort();
	w->settings = s;
	w->region = settings_get(s, SETTING_REGION);
	w->metrics = metrics_new(metric_descs, METRIC_COUNT);

	int r = open_identity(w, e);

	if (r >= 0)
		r = open_store(w, e);
	if (r >= 0)
		r = listen_all(w, e);
	if (r < 0) {
		walrus_stop(w);
		return r;
	}
	log_info("serving S3", "address=%s port=%u", settings_get(s, SETTING_LISTEN),
		 settings_port(s, PORT_S3));
	*ret = w;
	return 0;
}

void walrus_stop(struct walrus *w)
{
	if (!w)
		return;
	if (w->s3)
		http_server_stop(w->s3, STOP_GRACE_MS);
	if (w->ops)
		http_server_stop(w->ops, 0);
	if (w->rpc)
		rpc_server_stop(w->rpc);
	identity_free(w->identity);
	store_close(w->store);
	tls_context_free(w->tls);
	metrics_free(w->metrics);
	free(w);
}
