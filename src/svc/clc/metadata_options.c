/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include "base/text.h"
#include "svc/clc/instances.h"

enum { HOP_LIMIT_MIN = 1, HOP_LIMIT_MAX = 64, TAG_PATH_MAX = 255 };

struct shared_metadata_options *metadata_options_default(struct arena *a)
{
	struct shared_metadata_options *o = arena_new_struct(a, struct shared_metadata_options);

	o->http_tokens = "optional";
	o->http_endpoint = "enabled";
	o->http_put_response_hop_limit = WIRE_INT_OF(1);
	o->instance_metadata_tags = "disabled";
	return o;
}

/* Take a value that must be one of two. NULL: not given. */
static int choose(struct ec2_call *call, const char *name, const char *value, const char *x,
		  const char *y, const char **field)
{
	if (!value)
		return 0;
	if (!str_eq(value, x) && !str_eq(value, y))
		return ec2_error(call, "InvalidParameterValue",
				 "Value '%.64s' for parameter %s is invalid: it must be %s or %s",
				 value, name, x, y);
	*field = value;
	return 0;
}

int metadata_options_change(struct ec2_call *call, const struct metadata_options_change *in,
			    struct shared_metadata_options *o)
{
	const char *ipv6 = "disabled";
	int r =
	    choose(call, "HttpTokens", in->http_tokens, "optional", "required", &o->http_tokens);

	if (r >= 0)
		r = choose(call, "HttpEndpoint", in->http_endpoint, "enabled", "disabled",
			   &o->http_endpoint);
	if (r >= 0)
		r = choose(call, "InstanceMetadataTags", in->instance_metadata_tags, "enabled",
			   "disabled", &o->instance_metadata_tags);
	if (r >= 0)
		r = choose(call, "HttpProtocolIpv6", in->http_protocol_ipv6, "enabled", "disabled",
			   &ipv6);
	if (r < 0)
		return r;
	if (str_eq(ipv6, "enabled"))
		return ec2_error(call, "UnsupportedOperation",
				 "Instances have no IPv6 here, so HttpProtocolIpv6 can only be "
				 "disabled");
	if (!in->hop_limit.set)
		return 0;
	if (in->hop_limit.value < HOP_LIMIT_MIN || in->hop_limit.value > HOP_LIMIT_MAX)
		return ec2_error(call, "InvalidParameterValue",
				 "HttpPutResponseHopLimit must be between %d and %d, not %lld",
				 HOP_LIMIT_MIN, HOP_LIMIT_MAX, (long long)in->hop_limit.value);
	o->http_put_response_hop_limit = in->hop_limit;
	return 0;
}

bool metadata_shows_tags(const struct shared_metadata_options *o)
{
	return o && str_eq(o->instance_metadata_tags, "enabled");
}

int metadata_tags_check(struct ec2_call *call, const struct shared_tag_list *tags)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789+-=._:@,";

	for (size_t i = 0; i < tags->count; i++) {
		const char *key = tags->items[i].key;

		if (key[strspn(key, allowed)] || str_eq(key, ".") || str_eq(key, "..") ||
		    str_eq(key, "_index") || strlen(key) > TAG_PATH_MAX)
			return ec2_error(call, "InvalidParameterValue",
					 "'%.128s' is not a valid tag key while the instance's "
					 "metadata shows its tags: letters, digits and +-=._:@, "
					 "are allowed",
					 key);
	}
	return 0;
}
