/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/processes.h"

#include "volume/keeper.h"

#define END_MS 30000 /* it flushes what it has */

int processes_end(const struct settings *s, struct error *e)
{
	/* In this order: each may wait for what it reads from. */
	static const char *const folders[] = {"nc/volumes", "sc/served", "sc/exports"};
	int r = 0;

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(folders); i++) {
		_cleanup_(freep) char *folder = settings_path(s, "%s", folders[i]);
		unsigned count;

		r = keeper_end_all(folder, END_MS, &count, e);
	}
	return r;
}
