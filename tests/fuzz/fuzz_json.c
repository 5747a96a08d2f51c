/* SPDX-License-Identifier: Apache-2.0 */
/* A JSON document: the first line names the shape. What is accepted is written, read and found
 * equal. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "gen/cluster.h"
#include "gen/ec2.h"
#include "gen/node.h"
#include "gen/records.h"
#include "gen/s3.h"
#include "gen/shared.h"
#include "wire/codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(const struct wire_shape *shape, const char *text, size_t len, bool strict)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	_cleanup_(buf_done) struct buf written = BUF_INIT;
	void *value, *again, *copy;
	struct error e = {0};

	if (wire_json_decode(a, shape, text, len, strict, &value, &e) < 0) {
		if (!error_is_set(&e))
			abort();
		return;
	}
	wire_json_encode(shape, value, &written);
	if (wire_json_decode(a, shape, written.data, written.len, true, &again, &e) < 0)
		abort();
	copy = wire_copy(a, shape, value);
	if (!wire_equal(shape, value, again) || !wire_equal(shape, value, copy))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct wire_shape *const shapes[] = {
	    &records_shape_instance,
	    &records_shape_resource_tags,
	    &shared_shape_apply_instances_request,
	    &shared_shape_describe_instances_response,
	    &cluster_shape_reserve_capacity_request,
	    &node_shape_drain_request,
	    &ec2_shape_reservation,
	    &s3_shape_head_object_output, /* a map */
	};
	const char *text = (const char *)data, *end = memchr(text, '\n', size);
	size_t name_len = end ? (size_t)(end - text) : 0;

	for (size_t i = 0; end && i < ARRAY_SIZE(shapes); i++) {
		if (strlen(shapes[i]->name) != name_len ||
		    memcmp(shapes[i]->name, text, name_len) != 0)
			continue;
		round_trip(shapes[i], end + 1, size - name_len - 1, true);
		round_trip(shapes[i], end + 1, size - name_len - 1, false);
	}
	return 0;
}
