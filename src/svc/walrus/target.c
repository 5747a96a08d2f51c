/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/walrus/target_priv.h"

#include <string.h>
#include <strings.h>

#include "base/text.h"
#include "object/limits.h"

/* Names of this service; the longer before those that they end in. All names below localhost lead
 * to this machine. */
static const char *const own_names[] = {"s3.localhost", "localhost"};

#define BUCKET_NAME_MIN 3
#define BUCKET_NAME_MAX 63

/* The part of the Host header before one of our names, or NULL. */
static const char *bucket_of_host(struct arena *a, const char *host)
{
	size_t len = strcspn(host, ":");

	for (size_t i = 0; i < ARRAY_SIZE(own_names); i++) {
		size_t own = strlen(own_names[i]);

		if (len == own && strncasecmp(host, own_names[i], own) == 0)
			return NULL;
		if (len > own + 1 && host[len - own - 1] == '.' &&
		    strncasecmp(host + len - own, own_names[i], own) == 0)
			return arena_strndup(a, host, len - own - 1);
	}
	return NULL;
}

static int decode(struct arena *a, const char *text, size_t len, const char **ret, struct error *e)
{
	char *decoded;
	size_t decoded_len;

	if (uri_decode(a, text, len, false, &decoded, &decoded_len) < 0)
		return error_set(e, "InvalidURI",
				 "The request's path holds a malformed %% escape.");
	if (memchr(decoded, '\0', decoded_len) || !utf8_valid(decoded, decoded_len))
		return error_set(e, "InvalidURI",
				 "The request's path must be UTF-8 text without NUL bytes.");
	*ret = decoded;
	return 0;
}

int target_parse(struct arena *a, const char *path, const char *host, struct target *ret,
		 struct error *e)
{
	struct target t = {.bucket = host ? bucket_of_host(a, host) : NULL};
	int r = 0;

	if (*path != '/')
		return error_set(e, "InvalidURI", "The request's path must begin with a slash.");
	path++;
	if (!t.bucket) {
		size_t len = strcspn(path, "/");

		if (len > 0)
			r = decode(a, path, len, &t.bucket, e);
		else if (*path == '/')
			return error_set(e, "InvalidURI",
					 "The request's path has an empty bucket name.");
		path += len + (path[len] == '/');
	}
	if (r >= 0 && *path)
		r = decode(a, path, strlen(path), &t.key, e);
	if (r < 0)
		return r;
	if (t.key && strlen(t.key) > STORE_KEY_MAX)
		return error_set(e, "KeyTooLongError", "The key has %zu bytes; %d are the limit.",
				 strlen(t.key), STORE_KEY_MAX);
	*ret = t;
	return 0;
}

static bool looks_like_address(const char *name)
{
	int dots = 0;

	for (const char *c = name; *c; c++) {
		if (*c == '.')
			dots++;
		else if (*c < '0' || *c > '9')
			return false;
	}
	return dots == 3;
}

static bool is_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

int bucket_name_check(const char *name, struct error *e)
{
	size_t len = strlen(name);
	const char *why = NULL;

	if (len < BUCKET_NAME_MIN || len > BUCKET_NAME_MAX)
		why = "it must have 3 to 63 characters";
	else if (strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789.-") != len)
		why = "it may hold lower-case letters, digits, dots and hyphens only";
	else if (!is_alnum(name[0]) || !is_alnum(name[len - 1]))
		why = "it must begin and end with a letter or digit";
	else if (strstr(name, ".."))
		why = "it may not hold two dots in a row";
	else if (looks_like_address(name))
		why = "it may not look like an IP address";
	return why ? error_set(e, "InvalidBucketName", "The bucket name %.70s is not valid: %s.",
			       name, why)
		   : 0;
}
