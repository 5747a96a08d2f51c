/* SPDX-License-Identifier: Apache-2.0 */
/* The stacks that are tested. A new filter gets a case of its own and its place in `full`. */
#include "cases.h"

#include <stdio.h>

#include "block/back/back.h"
#include "block/filter/filter.h"
#include "sabotage.h"
#include "snapshots.h"

const struct blk_layer_ops *const case_drivers[] = {
	&blk_throttle_ops,
	&blk_coalesce_ops,
	&blk_readahead_ops,
	&blk_snap_ops,
	&blk_cow_ops,
	&blk_crypt_ops,
	&blk_fault_ops,
	&blk_disk_ops,
	&sabotage_ops,
	&recorder_ops,
	&pattern_ops,
	&blk_file_ops,
	&blk_nbd_ops,
	NULL,
};

/* Limits come and go while requests wait for them. */
static void change_limits(struct load *l, uint64_t *random)
{
	struct error e = { 0 };
	struct buf out = BUF_INIT;
	char args[64];

	if (random_below(random, 20))
		return;
	snprintf(args, sizeof(args), "iops=%llu,bps=%lluM", (unsigned long long)(random_below(random, 3) ? 10000 + random_below(random, 40000) : 0),
		 (unsigned long long)(random_below(random, 3) ? 200 + random_below(random, 1000) : 0));
	if (blk_stack_command(l->stack, "throttle", "set", args, &out, &e))
		die("throttle set %s: %s", args, e.message);
	buf_done(&out);
}

const struct stack_case stack_cases[] = {
	{ .name = "disk", .queues = 2, .size_bytes = 4 << 20 },
	{ .name = "disk-errors", .queues = 2, .size_bytes = 1 << 20, .fail_permille = 20 },
	{ .name = "disk-write-through", .queues = 1, .size_bytes = 1 << 20, .write_through = true },
	{ .name = "readahead", .filters = { "readahead:cache=1M,chunk=64k,idle=10" }, .queues = 3, .size_bytes = 4 << 20 },
	{ .name = "readahead-errors", .filters = { "readahead:cache=512k,chunk=64k" }, .queues = 2, .size_bytes = 2 << 20, .fail_permille = 20 },
	{ .name = "cow", .filters = { "cow:source=pattern:size=3000k,map=%/map,chunk=16k" }, .files = { "%/map" }, .queues = 2,
	  .size_bytes = 4 << 20, .source_bytes = 3000 << 10 },
	{ .name = "cow-on-demand", .filters = { "cow:source=pattern:size=3000k,map=%/map,chunk=64k,fill=off,copy-on-read=on" },
	  .files = { "%/map" }, .queues = 3, .size_bytes = 4 << 20, .source_bytes = 3000 << 10 },
	{ .name = "coalesce", .filters = { "coalesce:buffer=%/buffer,size=1M,idle=10" }, .volatile_files = { "%/buffer" }, .queues = 2,
	  .size_bytes = 4 << 20 },
	{ .name = "coalesce-errors", .filters = { "coalesce:buffer=%/buffer,size=1M,bypass=64k" }, .volatile_files = { "%/buffer" },
	  .queues = 3, .size_bytes = 2 << 20, .fail_permille = 20 },
	{ .name = "snap", .filters = { "snap:map=%/changes,chunk=16k" }, .files = { "%/changes", "%/changes.2" }, .queues = 2,
	  .size_bytes = 4 << 20, .meanwhile = snapshots_meanwhile, .finish = snapshots_finish },
	{ .name = "snap-errors", .filters = { "snap:map=%/changes,chunk=16k" }, .files = { "%/changes", "%/changes.2" }, .queues = 3,
	  .size_bytes = 2 << 20, .meanwhile = snapshots_meanwhile, .finish = snapshots_finish, .fail_permille = 20 },
	{ .name = "crypt", .filters = { "crypt:key-file=%/key" }, .key_file = "%/key", .queues = 3, .size_bytes = 4 << 20 },
	{ .name = "crypt-errors", .filters = { "crypt:key-file=%/key" }, .key_file = "%/key", .queues = 2, .size_bytes = 2 << 20,
	  .fail_permille = 20 },
	{ .name = "throttle", .filters = { "throttle:iops=20000,bps=800M,burst-ms=2" }, .queues = 3, .size_bytes = 1 << 20,
	  .meanwhile = change_limits },
	{ .name = "fault", .filters = { "fault:ppm=10000,delay=1" }, .queues = 2, .size_bytes = 2 << 20 },
	{ .name = "fault-errors", .filters = { "fault:op=write,ppm=10000,delay=1,torn=512" }, .queues = 3, .size_bytes = 2 << 20, .fail_permille = 20 },
	{ .name = "mechanical", .filters = { "disk:preset=plain,rate=1G,order=elevator" }, .queues = 2, .size_bytes = 4 << 20 },
	{ .name = "full", .filters = { "throttle:iops=40000,bps-wr=1G,burst-ms=2", "coalesce:buffer=%/buffer,size=1M,merge=256k", "readahead:cache=1M,chunk=64k,idle=20",
	  "snap:map=%/changes,chunk=16k",
	  "cow:source=pattern:size=3000k,map=%/map,chunk=32k,fill-rate=20M" },
	  .files = { "%/map", "%/changes", "%/changes.2" }, .volatile_files = { "%/buffer" },
	  .queues = 3, .size_bytes = 4 << 20, .source_bytes = 3000 << 10, .meanwhile = snapshots_meanwhile, .finish = snapshots_finish },
	{ .name = "full-encrypted", .filters = { "coalesce:buffer=%/buffer,size=1M,merge=256k", "readahead:cache=1M,chunk=64k,idle=20",
	  "snap:map=%/changes,chunk=16k", "cow:source=pattern:size=3000k,map=%/map,chunk=32k,fill-rate=20M", "crypt:key-file=%/key" },
	  .files = { "%/map", "%/changes", "%/changes.2" }, .volatile_files = { "%/buffer" }, .key_file = "%/key",
	  .queues = 3, .size_bytes = 4 << 20, .source_bytes = 3000 << 10, .meanwhile = snapshots_meanwhile, .finish = snapshots_finish },
	{ .name = "over-file", .back = "file:path=%/disk,direct=$", .filters = { "coalesce:buffer=%/buffer,size=1M", "snap:map=%/changes,chunk=16k",
	  "cow:source=file:path=%/source,,read-only=on,,direct=$,map=%/map,chunk=32k,fill-rate=20M" },
	  .queues = 3, .size_bytes = 4 << 20, .source_bytes = 3000 << 10, .meanwhile = snapshots_meanwhile, .finish = snapshots_finish },
	{ .name = "over-nbd", .back = "nbd:socket=%/disk.sock,reconnect-ms=10", .filters = { "readahead:cache=1M,chunk=64k,idle=20",
	  "snap:map=%/changes,chunk=16k", "cow:source=nbd:socket=%/source.sock,,reconnect-ms=10,map=%/map,chunk=32k,fill-rate=20M" },
	  .servers = { "--back file:path=%/disk,direct=$ --front nbd:socket=%/disk.sock,exclusive=on",
		       "--back file:path=%/source,direct=$,read-only=on --front nbd:socket=%/source.sock" },
	  .queues = 3, .size_bytes = 4 << 20, .source_bytes = 3000 << 10, .meanwhile = snapshots_meanwhile, .finish = snapshots_finish },
	{ 0 },
};
