/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "svc/sc/sc_priv.h"

struct scrub_job {
	struct sc *sc;
};

struct scrub_job *scrub_job_new(struct sc *sc)
{
	struct scrub_job *j = calloc(1, sizeof(*j));

	if (!j)
		abort();
	j->sc = sc;
	return j;
}

void scrub_job_free(struct scrub_job *j)
{
	free(j);
}

int scrub_job_start(struct scrub_job *j, const struct storage_start_scrub_request *in, struct error *e)
{
	return error_set(e, "UnsupportedOperation", "not yet");
}

void scrub_job_describe(struct scrub_job *j, struct arena *a, struct storage_describe_scrub_response *out)
{
	out->state = "none";
}

int64_t scrub_job_findings(struct scrub_job *j)
{
	return 0;
}
