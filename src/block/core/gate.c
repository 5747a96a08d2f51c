/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/gate_priv.h"

#include <assert.h>

#include "block/core/queue_priv.h"

static void enter(struct blk_gate *g, struct blk_req *r)
{
	g->inside++;
	r->gate = g;
	g->enter(g, r);
}

void gate_submit(struct blk_gate *g, struct blk_req *r)
{
	if (g->shut || g->inside >= BLK_DEPTH_MAX || !blk_list_empty(&g->parked))
		blk_list_push(&g->parked, r);
	else
		enter(g, r);
}

static void admit(struct blk_gate *g)
{
	while (!g->shut && g->inside < BLK_DEPTH_MAX && !blk_list_empty(&g->parked))
		enter(g, blk_list_pop(&g->parked));
}

void gate_leave(struct blk_gate *g)
{
	assert(g->inside);
	g->inside--;
	if (g->shut && !g->inside)
		g->quiet(g);
	else
		admit(g);
}

void gate_shut(struct blk_gate *g)
{
	g->shut = true;
	if (!g->inside)
		g->quiet(g);
}

void gate_open(struct blk_gate *g)
{
	g->shut = false;
	admit(g);
}
