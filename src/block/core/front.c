/* SPDX-License-Identifier: Apache-2.0 */
#include "block/core/front.h"

#include "base/text.h"

int blk_front_open(const struct blk_front_ops *const *fronts, const char *spec, struct blk_front *f, struct error *e)
{
	_cleanup_(blk_values_freep) struct blk_values *values = NULL;
	char name[32];
	int err = blk_spec_name(spec, name, e);

	if (err)
		return err;
	while (*fronts && !str_eq((*fronts)->name, name))
		fronts++;
	if (!*fronts)
		return error_set(e, "InvalidOption", "there is no front end \"%s\"", name);
	err = blk_values_parse(spec, (*fronts)->options, &values, e);
	if (err)
		return err;
	f->ops = *fronts;
	return f->ops->open(f, values, e);
}

void blk_front_close(struct blk_front *f)
{
	f->ops->close(f);
}
