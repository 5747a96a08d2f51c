/* SPDX-License-Identifier: Apache-2.0 */
/* A filter with a fault of choice, to show that these tests find it. */
#include "sabotage.h"

#include <stdlib.h>
#include <string.h>

#include "base/text.h"

struct sabotage {
	const char *how;
	_Atomic unsigned writes;
};

static void sabotage_submit(struct blk_layer *l, struct blk_req *r)
{
	struct sabotage *s = l->state;
	bool tenth = r->op == BLK_WRITE && ++s->writes % 10 == 0;

	if ((r->op == BLK_FLUSH && str_eq(s->how, "no-flush")) || (tenth && str_eq(s->how, "lost-write"))) {
		blk_complete(r, 0);
		return;
	}
	if (str_eq(s->how, "no-fua"))
		r->flags &= ~(unsigned)BLK_FUA;
	if (tenth && str_eq(s->how, "misplaced") && r->off_bytes >= SECTOR)
		r->off_bytes -= SECTOR;
	blk_submit(l->below, r);
}

static int sabotage_open(struct blk_layer *l, const struct blk_values *v, struct error *e)
{
	struct sabotage *s = calloc(1, sizeof(*s));

	s->how = strdup(blk_values_text(v, "how"));
	if (str_eq(s->how, "hidden-cache"))
		l->info.volatile_cache = false;
	l->state = s;
	return 0;
}

static void sabotage_close(struct blk_layer *l)
{
	struct sabotage *s = l->state;

	free((char *)s->how);
	free(s);
}

static const struct blk_option sabotage_options[] = {
	{ .name = "how", .type = BLK_OPT_TEXT, .required = true, .doc = "what it does wrong" },
	{ 0 },
};

const struct blk_layer_ops sabotage_ops = {
	.name = "sabotage", .doc = "wrong on purpose", .options = sabotage_options,
	.open = sabotage_open, .submit = sabotage_submit, .close = sabotage_close,
};
