/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_SVC_WALRUS_CONDITIONS_PRIV_H
#define MALLEE_SVC_WALRUS_CONDITIONS_PRIV_H

#include "object/store.h"
#include "wire/shape.h"

/* What a request that reads asks of the object first (RFC 7232); absent ones are NULL or not set.
 */
struct conditions {
	const char *if_match, *if_none_match;
	struct wire_time if_modified_since, if_unmodified_since;
};
enum conditions_result { CONDITIONS_HOLD, CONDITIONS_FAIL, CONDITIONS_UNMODIFIED };
enum conditions_result conditions_check(struct arena *a, const struct conditions *c,
					const struct store_object *o);

#endif
