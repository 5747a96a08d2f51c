/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A Query request: the first line names the action, the rest is its parameters. What is accepted
 * must come out of our own encoder as a request that is accepted again and says the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gen/ec2.h"
#include "gen/sts.h"
#include "wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void *decode(struct arena *a, const struct wire_service *s, const struct wire_action *act,
		    const char *text, size_t len)
{
	struct wire_params params;
	struct error e = {0};
	void *in = NULL;
	int r = wire_params_parse(a, text, len, &params, &e);

	if (r >= 0)
		r = wire_query_decode(a, s, act, &params, &in, &e);
	if (r < 0 && !error_is_set(&e))
		abort(); /* every refusal says why */
	return r < 0 ? NULL : in;
}

static void round_trip(const struct wire_service *s, const struct wire_action *act,
		       const char *text, size_t len)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf first = BUF_INIT, second = BUF_INIT;
	void *in = decode(a, s, act, text, len);

	if (!in)
		return;
	wire_query_encode(s, act, in, &first);
	in = decode(a, s, act, first.data, first.len);
	if (!in)
		abort();
	wire_query_encode(s, act, in, &second);
	if (strcmp(first.data, second.data) != 0)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *text = (const char *)data, *end = memchr(text, '\n', size);
	const struct wire_action *act;
	struct wire_params params;
	struct error e = {0};

	if (!end)
		return 0;
	act = wire_action_find(&ec2_service, arena_strndup(a, text, (size_t)(end - text)));
	size -= (size_t)(end + 1 - text);
	text = end + 1;
	if (act) {
		round_trip(&ec2_service, act, text, size);
		return 0;
	}
	/* As it comes: Action and Version are parameters too. */
	if (wire_params_parse(a, text, size, &params, &e) >= 0)
		wire_query_route(&sts_service, &params, &e);
	return 0;
}
