/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_API_H
#define MALLEE_SVC_CLC_API_H

#include "svc/clc/clc_priv.h"

/* The public listener: EC2, STS and IAM on one port. address and free_bind as in http_server.h. */
int api_start(struct clc *c, const char *address, bool free_bind, struct http_server **ret,
	      struct error *e);

/* What the metrics table counts; see metrics.c. */
enum clc_metric {
	METRIC_REQUESTS,
	METRIC_ERRORS_CLIENT,
	METRIC_ERRORS_SERVER,
	METRIC_AUTH_FAILURES,
	METRIC_REQUEST_MS,
	METRIC_LAUNCHED,
	METRIC_APPLIED,
	METRIC_OBSERVED,
	METRIC_APPLIED_STORAGE,
	METRIC_OBSERVED_STORAGE,
	METRIC_COUNT
};
extern const struct metric_desc clc_metrics[METRIC_COUNT];

#endif
