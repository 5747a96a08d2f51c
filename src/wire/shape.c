/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/shape.h"

#include <string.h>

#include "base/text.h"
#include "wire/codec.h"

const struct wire_action *wire_action_find(const struct wire_service *s, const char *name)
{
	/* REST tables are in routing order, so this cannot be a binary search; they are short. */
	for (size_t i = 0; name && i < s->action_count; i++)
		if (str_eq(s->actions[i].name, name))
			return &s->actions[i];
	return NULL;
}

const struct wire_error_status *wire_error_find(const struct wire_service *s, const char *code)
{
	size_t low = 0, high = s->error_count;

	while (low < high) {
		size_t mid = low + (high - low) / 2;
		int order = strcmp(s->errors[mid].code, code);

		if (order == 0)
			return &s->errors[mid];
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return NULL;
}

int wire_error_http_status(const struct wire_service *s, const char *code)
{
	const struct wire_error_status *known = wire_error_find(s, code);

	if (known)
		return known->http_status;
	if (str_prefix(code, "Internal"))
		return 500;
	if (str_suffix(code, "Unavailable"))
		return 503;
	return 400;
}

const char *wire_error_message(const struct wire_service *s, const struct error *err)
{
	const struct wire_error_status *known = wire_error_find(s, err->code);

	if (err->message[0])
		return err->message;
	return known && known->default_message ? known->default_message : err->code;
}
