/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/cc/place.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/buf.h"
#include "base/macros.h"

static const struct {
	const char *name, *unit;
} resources[] = {
    [RESOURCE_VCPUS] = {"vCPUs", ""},
    [RESOURCE_MEMORY_MIB] = {"memory", " MiB"},
    [RESOURCE_DISK_MIB] = {"disk", " MiB"},
    [RESOURCE_LOCAL_DISKS] = {"whole local disks", ""},
};

static int64_t left(const struct place_node *n, enum resource r)
{
	return n->total.of[r] - n->used.of[r];
}

static bool fits(const struct place_node *n, const struct capacity *need)
{
	for (int r = 0; r < RESOURCE_COUNT; r++) {
		if (need->of[r] > left(n, r))
			return false;
	}
	return true;
}

/* Share of its fullest resource once need is there too; 1 is full. */
static double fullness(const struct place_node *n, const struct capacity *need)
{
	double most = 0;

	for (int r = 0; r < RESOURCE_COUNT; r++) {
		if (n->total.of[r] > 0)
			most = MAX_OF(most, (double)(n->used.of[r] + need->of[r]) /
						(double)n->total.of[r]);
	}
	return most;
}

int place_one(struct place_node *nodes, size_t count, const struct capacity *need)
{
	double best_fullness = 0;
	int best = -1;

	for (size_t i = 0; i < count; i++) {
		double f;

		if (!fits(&nodes[i], need))
			continue;
		f = fullness(&nodes[i], need);
		if (best >= 0 &&
		    (f > best_fullness ||
		     (f >= best_fullness && (nodes[i].instances > nodes[best].instances ||
					     (nodes[i].instances == nodes[best].instances &&
					      strcmp(nodes[i].id, nodes[best].id) > 0)))))
			continue;
		best = (int)i;
		best_fullness = f;
	}
	if (best >= 0) {
		for (int r = 0; r < RESOURCE_COUNT; r++)
			nodes[best].used.of[r] += need->of[r];
		nodes[best].instances++;
	}
	return best;
}

/* The node with the most left of a resource. */
static const struct place_node *roomiest(const struct place_node *nodes, size_t count,
					 enum resource r)
{
	const struct place_node *best = NULL;

	for (size_t i = 0; i < count; i++) {
		if (!best || left(&nodes[i], r) > left(best, r))
			best = &nodes[i];
	}
	return best;
}

int place_explain(const struct place_node *nodes, size_t count, size_t not_ready,
		  const struct capacity *need, size_t wanted, size_t placed, struct error *e)
{
	struct buf b = BUF_INIT;
	bool short_of_one = false;
	int ret;

	buf_printf(
	    &b,
	    "There is not enough capacity to fulfil your request: there is room for %zu of %zu.",
	    placed, wanted);
	for (int r = 0; count && r < RESOURCE_COUNT; r++) {
		const struct place_node *n = roomiest(nodes, count, r);

		if (need->of[r] <= left(n, r))
			continue;
		short_of_one = true;
		buf_printf(&b,
			   " No node has %" PRId64 "%s%s%s left; the most is %" PRId64
			   " of %" PRId64 ", on %s.",
			   need->of[r], resources[r].unit, resources[r].unit[0] ? " of " : " ",
			   resources[r].name, MAX_OF(left(n, r), (int64_t)0), n->total.of[r],
			   n->id);
	}
	if (count && !short_of_one)
		buf_printf(&b,
			   " No single node has %" PRId64 " vCPUs, %" PRId64
			   " MiB of memory, %" PRId64 " MiB of disk and %" PRId64
			   " whole local disks left together.",
			   need->of[RESOURCE_VCPUS], need->of[RESOURCE_MEMORY_MIB],
			   need->of[RESOURCE_DISK_MIB], need->of[RESOURCE_LOCAL_DISKS]);
	if (!count)
		buf_puts(&b, " No node is ready.");
	if (not_ready)
		buf_printf(&b, " Not ready: %zu node%s.", not_ready, not_ready == 1 ? "" : "s");
	ret = error_set(e, "InsufficientInstanceCapacity", "%s", b.data);
	buf_done(&b);
	return ret;
}
