/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_CLC_INVENTORY_H
#define MALLEE_SVC_CLC_INVENTORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/instance_state.h"

struct clc;

/*
 * What must be known of all live instances at once and would be too slow to read from the state
 * each time: the addresses that are taken, how many each account has, how many are in which state.
 * Made from the records at start, kept beside them afterwards: what a launch takes here before it
 * is recorded, it gives back if it fails; what ends is given back once its end is recorded. Locks
 * itself.
 */
struct inventory;

int inventory_load(struct clc *c, struct inventory **ret, struct error *e);
void inventory_free(struct inventory *inv); /* NULL is fine */

/* Room for at least min and at most max instances of an account: ret_ips[max] gets an address each,
 * *ret_count says how many. wanted_ip: that one (max 1), or 0. InstanceLimitExceeded,
 * InsufficientFreeAddressesInSubnet, InvalidIPAddress.InUse, InvalidParameterValue in *e. */
int inventory_take(struct inventory *inv, const char *account, size_t min, size_t max,
		   uint32_t wanted_ip, uint32_t *ret_ips, size_t *ret_count, struct error *e);
/* Undo one, or an instance has ended. */
void inventory_give(struct inventory *inv, const char *account, uint32_t ip);
/* One more in `to`, one fewer in `from`; INSTANCE_STATE_COUNT stands for none. */
void inventory_moved(struct inventory *inv, enum instance_state from, enum instance_state to);

size_t inventory_count(struct inventory *inv, enum instance_state s);
size_t inventory_free_addresses(struct inventory *inv);

#endif
