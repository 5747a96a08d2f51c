/* SPDX-License-Identifier: Apache-2.0 */
#include "block/drivers.h"
#include "cmd/blockd.h"
#include "cmd/blockd_sandbox.h"

int main(int argc, char **argv)
{
	return blockd_main(&(struct blockd_program){ "mallee-blockd", blk_drivers, BLOCKD_SANDBOX_DEFAULT }, argc, argv);
}
