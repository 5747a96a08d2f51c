/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/walrus/conditions_priv.h"

#include <string.h>

#include "base/text.h"

/* Whether a list like `"a", "b"` or * names the ETag. Weak ones (W/"a") name it too. */
static bool etag_listed(struct arena *a, const char *list, const char *etag)
{
	char *save = NULL, *copy = arena_strdup(a, list);

	for (char *t = strtok_r(copy, ",", &save); t; t = strtok_r(NULL, ",", &save)) {
		size_t len;

		t += strspn(t, " \t");
		t[strcspn(t, " \t")] = '\0';
		if (str_prefix(t, "W/"))
			t += 2;
		len = strlen(t);
		if (len >= 2 && t[0] == '"' && t[len - 1] == '"') {
			t[len - 1] = '\0';
			t++;
		}
		if (str_eq(t, "*") || str_eq(t, etag))
			return true;
	}
	return false;
}

/* In the RFC's order: If-Match makes If-Unmodified-Since void, as does If-None-Match for
 * If-Modified-Since. */
enum conditions_result conditions_check(struct arena *a, const struct conditions *c,
					const struct store_object *o)
{
	if (c->if_match) {
		if (!etag_listed(a, c->if_match, o->etag))
			return CONDITIONS_FAIL;
	} else if (c->if_unmodified_since.set && o->modified_ms > c->if_unmodified_since.value) {
		return CONDITIONS_FAIL;
	}
	if (c->if_none_match)
		return etag_listed(a, c->if_none_match, o->etag) ? CONDITIONS_UNMODIFIED
								 : CONDITIONS_HOLD;
	if (c->if_modified_since.set && o->modified_ms <= c->if_modified_since.value)
		return CONDITIONS_UNMODIFIED;
	return CONDITIONS_HOLD;
}
