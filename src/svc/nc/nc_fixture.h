/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_NC_NC_FIXTURE_H
#define MALLEE_SVC_NC_NC_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "svc/nc/nc_priv.h"

/* For tests: a whole node, driven over mutual TLS as the cluster controller does; Walrus is a
 * stand-in. */
struct fixture {
	char dir[64], url[64], sha[65];
	char *image;
	size_t image_len;
	struct http_server *walrus;
	atomic_int fetches;
	struct settings *settings;
	struct nc *nc;
	struct tls_context *tls;
	struct rpc_client *cc;
	struct arena *arena; /* lives as long as the fixture */
	int64_t generation;
	int ports_fd; /* while it is open, the ports are nobody else's */
};

/* hypervisor: a value of MALLEE_HYPERVISOR; subnet NULL: the default. image is what Walrus has;
 * copied. */
struct fixture *fixture_new(const char *hypervisor, const char *subnet, const void *image,
			    size_t image_len);
void fixture_free(struct fixture *f);
void fixture_start_node(struct fixture *f);
void fixture_restart_node(struct fixture *f);

void *fixture_call(struct fixture *f, const char *action,
		   const void *in); /* fails the test on an error */
struct shared_instance_spec fixture_spec(struct fixture *f, int number, const char *wanted);
void fixture_apply_spec(struct fixture *f, struct shared_instance_spec *s);
void fixture_apply(struct fixture *f, int number, const char *wanted);
const struct shared_instance_observed *fixture_observe(struct fixture *f,
						       int number); /* NULL: unknown */
/* Waits 20 s, or with real guests 60 s. */
const struct shared_instance_observed *fixture_await(struct fixture *f, int number,
						     const char *want_state);
/* Until its progress has this part; as long. */
const struct shared_instance_observed *fixture_await_progress(struct fixture *f, int number,
							      const char *part);
bool fixture_has_file(struct fixture *f, int number, const char *file);
/* The operator's Drain and Resume, made on the node itself: the fixture's certificate is the
 * cluster controller's. */
void fixture_hold(struct fixture *f, bool held, int64_t timeout_s);

#endif
