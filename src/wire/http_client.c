/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/http_client.h"

#include <curl/curl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/text.h"

#define DEFAULT_REPLY_BYTES (UINT64_C(64) << 20)

struct http_client {
	CURLM *multi; /* keeps the connections between exchanges; and its wait can be ended from
			 outside */
	CURL *easy;
	const struct tls_context *tls;
	_Atomic bool cancelled;
};

/* One exchange while libcurl works on it. */
struct run {
	struct http_client *c;
	struct http_exchange *x;
	struct curl_slist *headers;
	char curl_message[CURL_ERROR_SIZE];
	off_t body_start, body_sent; /* body_fd */
	uint64_t received;
	const char *distrust; /* why the peer was not trusted */
	bool too_large, stopped;
};

int http_client_new(const struct tls_context *tls, struct http_client **ret)
{
	struct http_client *c = calloc(1, sizeof(*c));

	if (!c)
		abort();
	c->tls = tls;
	c->multi = curl_multi_init();
	c->easy = curl_easy_init();
	if (!c->easy || !c->multi) {
		http_client_free(c);
		return -EIO;
	}
	*ret = c;
	return 0;
}

void http_client_free(struct http_client *c)
{
	if (!c)
		return;
	curl_easy_cleanup(c->easy);
	curl_multi_cleanup(c->multi);
	free(c);
}

void http_client_cancel(struct http_client *c)
{
	atomic_store(&c->cancelled, true);
	curl_multi_wakeup(c->multi);
}

/* --- callbacks --- */

/* libcurl has connected (or taken a kept connection) and sent nothing yet. */
static int check_peer(void *ctx, char *peer_ip, char *own_ip, int peer_port, int own_port)
{
	struct run *run = ctx;
	struct curl_tlssessioninfo *info = NULL;
	struct tls_identity id;

	if (!run->c->tls)
		return CURL_PREREQFUNC_OK;
	if (curl_easy_getinfo(run->c->easy, CURLINFO_TLS_SSL_PTR, &info) != CURLE_OK || !info ||
	    info->backend != CURLSSLBACKEND_GNUTLS || !info->internals)
		run->distrust = "its certificate could not be examined";
	else if (tls_peer_identity(run->c->tls, info->internals, &id) < 0)
		run->distrust = "its certificate is not of this cloud";
	else if (id.role != run->x->peer_role)
		run->distrust = "its certificate is for another role";
	else if (run->x->peer_id && !str_eq(id.id, run->x->peer_id))
		run->distrust = "its certificate is for another id";
	return run->distrust ? CURL_PREREQFUNC_ABORT : CURL_PREREQFUNC_OK;
}

static int64_t declared_length(CURL *easy)
{
	curl_off_t len = -1;

	return curl_easy_getinfo(easy, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &len) == CURLE_OK ? len : -1;
}

static size_t take_reply(char *data, size_t size, size_t count, void *ctx)
{
	struct run *run = ctx;
	struct http_exchange *x = run->x;
	size_t len = size * count;
	uint64_t limit = x->max_reply_bytes;
	long status = 0;

	if (!limit)
		limit = x->on_data ? UINT64_MAX : DEFAULT_REPLY_BYTES;
	if (len > limit - run->received) {
		run->too_large = true;
		return 0;
	}
	run->received += len;
	if (!x->on_data) {
		buf_append(&x->reply, data, len);
		return len;
	}
	curl_easy_getinfo(run->c->easy, CURLINFO_RESPONSE_CODE, &status);
	x->status = (int)status;
	x->reply_len = declared_length(run->c->easy);
	if (x->on_data(x->on_data_ctx, data, len) != 0) {
		run->stopped = true;
		return 0;
	}
	return len;
}

static size_t give_body(char *out, size_t size, size_t count, void *ctx)
{
	struct run *run = ctx;
	uint64_t left = run->x->body_len - (uint64_t)run->body_sent;
	size_t max = (size_t)MIN_OF((uint64_t)(size * count), left);
	ssize_t n;

	if (!max)
		return 0;
	n = pread(run->x->body_fd, out, max, run->body_start + run->body_sent);
	if (n <= 0)
		return CURL_READFUNC_ABORT; /* shorter than body_len: nothing else can be sent */
	run->body_sent += n;
	return (size_t)n;
}

/* libcurl starts again when a kept connection turns out to be dead. */
static int seek_body(void *ctx, curl_off_t offset, int origin)
{
	struct run *run = ctx;

	if (origin != SEEK_SET)
		return CURL_SEEKFUNC_CANTSEEK;
	run->body_sent = offset;
	return CURL_SEEKFUNC_OK;
}

/* --- set-up --- */

static void add_header(struct run *run, const char *line)
{
	struct curl_slist *grown = curl_slist_append(run->headers, line);

	if (!grown)
		abort();
	run->headers = grown;
}

static void set_headers(struct run *run)
{
	bool typed = false;

	for (const char *const *h = run->x->headers; h && *h; h++) {
		typed |= strncasecmp(*h, "Content-Type:", 13) == 0;
		add_header(run, *h);
	}
	if (!typed)
		add_header(run, "Content-Type:"); /* not the form type that libcurl would put */
	if (run->x->body_fd <= 0)
		add_header(run, "Expect:");
	curl_easy_setopt(run->c->easy, CURLOPT_HTTPHEADER, run->headers);
}

static void set_body(struct run *run)
{
	struct http_exchange *x = run->x;
	CURL *easy = run->c->easy;

	if (x->body_fd > 0) {
		run->body_start = lseek(x->body_fd, 0, SEEK_CUR);
		if (run->body_start < 0)
			run->body_start = 0;
		curl_easy_setopt(easy, CURLOPT_UPLOAD, 1L);
		curl_easy_setopt(easy, CURLOPT_INFILESIZE_LARGE, (curl_off_t)x->body_len);
		curl_easy_setopt(easy, CURLOPT_READFUNCTION, give_body);
		curl_easy_setopt(easy, CURLOPT_READDATA, run);
		curl_easy_setopt(easy, CURLOPT_SEEKFUNCTION, seek_body);
		curl_easy_setopt(easy, CURLOPT_SEEKDATA, run);
	} else if (str_eq(x->method, "HEAD")) {
		curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
	} else if (x->body || str_eq(x->method, "POST") || str_eq(x->method, "PUT")) {
		curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
				 (curl_off_t)(x->body ? x->body_len : 0));
		curl_easy_setopt(easy, CURLOPT_POSTFIELDS, x->body ? x->body : "");
	}
	if (!str_eq(x->method, "HEAD"))
		curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, x->method);
}

static void set_limits(struct run *run)
{
	const struct http_exchange *x = run->x;
	CURL *easy = run->c->easy;

	curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
			 (long)(x->connect_timeout_ms ? x->connect_timeout_ms : 3000));
	if (x->timeout_ms >= 0) {
		curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS,
				 (long)(x->timeout_ms ? x->timeout_ms : 30000));
	} else {
		curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1024L);
		curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, 30L);
	}
}

static void set_trust(struct run *run)
{
	const struct tls_context *tls = run->c->tls;
	CURL *easy = run->c->easy;

	if (!tls)
		return;
	/* The GnuTLS flavour of libcurl takes certificates from files only. */
	curl_easy_setopt(easy, CURLOPT_CAINFO, tls->ca_path);
	curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	curl_easy_setopt(easy, CURLOPT_SSLCERT, tls->cert_path);
	curl_easy_setopt(easy, CURLOPT_SSLKEY, tls->key_path);
	curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_3);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST,
			 0L); /* roles and ids, not addresses: check_peer() */
	curl_easy_setopt(easy, CURLOPT_PREREQFUNCTION, check_peer);
	curl_easy_setopt(easy, CURLOPT_PREREQDATA, run);
}

static void set_up(struct run *run)
{
	CURL *easy = run->c->easy;

	curl_easy_reset(easy); /* options only: connections are kept */
	curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, run->curl_message);
	curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(easy, CURLOPT_URL, run->x->url);
	curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L);
	curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, run->c->tls ? "https" : "http,https");
	curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_reply);
	curl_easy_setopt(easy, CURLOPT_WRITEDATA, run);
	set_body(run);
	set_headers(run);
	set_limits(run);
	set_trust(run);
}

/* --- errors --- */

/* What may be shown of a URL: no user, no query (a presigned URL's query is a key to the object).
 */
static void print_url(const char *url, char *out, size_t size)
{
	const char *authority = strstr(url, "://");
	size_t len = strcspn(url, "?#");
	const char *at;

	authority = authority ? authority + 3 : url;
	at = memchr(authority, '@', strcspn(authority, "/?#"));
	if (at && at < url + len)
		snprintf(out, size, "%.*s%.*s", (int)(authority - url), url,
			 (int)(url + len - at - 1), at + 1);
	else
		snprintf(out, size, "%.*s", (int)len, url);
}

static int connect_errno(CURL *easy)
{
	long err = 0;

	curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &err);
	return err > 0 ? -(int)err : -EHOSTUNREACH;
}

static int explain(struct run *run, CURLcode code, struct error *e)
{
	const char *detail = run->curl_message[0] ? run->curl_message : curl_easy_strerror(code);
	char url[256];

	print_url(run->x->url, url, sizeof(url));
	if (run->distrust) {
		error_set(e, "PeerNotTrusted",
			  "%s was reached, but %s (%s wanted); check the certificates in the "
			  "state folder",
			  url, run->distrust, tls_role_name(run->x->peer_role));
		return -EACCES;
	}
	if (run->too_large) {
		error_set(e, "ReplyTooLarge", "the reply of %s is longer than is taken here", url);
		return -EFBIG;
	}
	switch (code) {
	case CURLE_ABORTED_BY_CALLBACK:
	case CURLE_WRITE_ERROR:
		error_set(e, "Cancelled", "the exchange with %s was stopped", url);
		return -ECANCELED;
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		error_set(e, "InvalidUrl", "%s is not a URL that can be asked here%s", url,
			  run->c->tls ? "; it must start with https://" : "");
		return -EINVAL;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CACERT_BADFILE:
		error_set(e, "PeerNotTrusted",
			  "no trusted connection to %s: %s; check the certificates in the state "
			  "folder",
			  url, detail);
		return -EACCES;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		error_set(e, "ServiceUnavailable", "cannot reach %s: %s; is that service running?",
			  url, detail);
		return connect_errno(run->c->easy);
	case CURLE_OPERATION_TIMEDOUT:
		error_set(e, "ServiceUnavailable", "%s did not answer in time: %s", url, detail);
		return -ETIMEDOUT;
	default:
		error_set(e, "ServiceUnavailable", "the exchange with %s broke: %s", url, detail);
		return -EIO;
	}
}

/* Like curl_easy_perform(), but that http_client_cancel() ends it at once. */
static CURLcode perform(struct http_client *c)
{
	CURLcode result = CURLE_ABORTED_BY_CALLBACK;
	int running = 1, queued;
	CURLMsg *msg;

	if (curl_multi_add_handle(c->multi, c->easy) != CURLM_OK)
		return CURLE_FAILED_INIT;
	while (running && !atomic_load(&c->cancelled)) {
		if (curl_multi_perform(c->multi, &running) != CURLM_OK)
			break;
		if (running && curl_multi_poll(c->multi, NULL, 0, 1000, NULL) != CURLM_OK)
			break;
	}
	while ((msg = curl_multi_info_read(c->multi, &queued))) {
		if (msg->msg == CURLMSG_DONE)
			result = msg->data.result;
	}
	curl_multi_remove_handle(c->multi, c->easy);
	return result;
}

int http_client_do(struct http_client *c, struct http_exchange *x, struct error *e)
{
	struct run run = {.c = c, .x = x};
	long status = 0;
	CURLcode code;

	x->status = 0;
	x->reply_len = -1;
	x->reply = BUF_INIT;
	set_up(&run);
	code = perform(c);
	curl_easy_setopt(c->easy, CURLOPT_ERRORBUFFER, NULL);
	curl_slist_free_all(run.headers);
	if (code != CURLE_OK) {
		buf_done(&x->reply);
		return explain(&run, code, e);
	}
	curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	x->status = (int)status;
	x->reply_len = declared_length(c->easy);
	return 0;
}
