/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mallee-snapshotd: mallee-blockd whose back end is a snapshot in Walrus. A program of its own, since guests' volumes need no HTTP.
 * No sandbox: it makes connections and threads as it goes, and serves no guest.
 */
#include <stddef.h>

#include "cmd/blockd.h"
#include "svc/sc/back_snapshot.h"

int main(int argc, char **argv)
{
	static const struct blk_layer_ops *const drivers[] = { &blk_snapshot_ops, NULL };

	return blockd_main(&(struct blockd_program){ "mallee-snapshotd", drivers, false }, argc, argv);
}
