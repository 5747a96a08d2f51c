/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_CMD_SERVICE_H
#define MALLEE_CMD_SERVICE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/settings.h"
#include "tls/tls.h"

/* The services of one machine's cloud, in the order in which they start. */
struct service {
	const char *name;    /* "clc" */
	const char *program; /* "mallee-clc" */
	const char *summary;
	enum tls_role role;
	bool as_root; /* else as the user "mallee", unless hypervisor is fake */
	enum port rpc, ops;
};

#define SERVICE_COUNT 5
extern const struct service services[SERVICE_COUNT];

#define SERVICE_USER "mallee"

const struct service *service_of(enum tls_role role);
/* The process that runs it, by its pid file; 0: none. */
pid_t service_pid(const struct settings *s, const struct service *svc);
pid_t supervisor_pid(const struct settings *s);
/* GET /healthz: 0, or *e says what is wrong. */
int service_health(const struct settings *s, const struct service *svc, struct error *e);
/* Whether the process runs another program than the one in the state folder (an older build). */
bool service_outdated(const struct settings *s, const struct service *svc, pid_t pid);
/* Milliseconds since the process started; -1 when it is gone. */
int64_t process_age_ms(pid_t pid);

#endif
