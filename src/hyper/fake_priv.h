/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_FAKE_PRIV_H
#define MALLEE_HYPER_FAKE_PRIV_H

#include <stdbool.h>

#include "hyper/driver.h"

/* fake.conf: what tests make the fake hypervisor do; the file's form stands in fake.c. Lines that
 * say nothing known are skipped. */
enum fake_fault {
	FAKE_START_FAILS,
	FAKE_START_UNREACHABLE,
	FAKE_IGNORES_SHUTDOWN,
	FAKE_POWERS_OFF,
	FAKE_CRASHES
};

struct fake_rules;
struct fake_rules *fake_rules_parse(const char *text);
void fake_rules_free(struct fake_rules *r);
bool fake_rule(const struct fake_rules *r, const char *instance_id,
	       enum fake_fault fault); /* r may be NULL: none */
void fake_rules_host(const struct fake_rules *r, struct hyper_host *ret);

#endif
