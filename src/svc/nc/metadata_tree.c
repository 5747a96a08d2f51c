/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree is one table of leaves. For a request it is laid out for one instance (leaves that the
 * instance doesn't have are left out, {mac}, {tag}, {disk} and {local} are filled in), and then a path is either a
 * leaf, or the beginning of some, and so a directory whose listing follows from them. A few dozen
 * short strings: cheaper than keeping trees in step with specifications.
 */
#include "svc/nc/metadata_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/text.h"
#include "gen/shared.h"

#define TEXT "text/plain"

/* The versions that Amazon's service lists; ours are all alike. Ascending, as clients expect. */
static const char *const versions[] = {
    "1.0",	  "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15",
    "2008-02-01", "2008-09-01", "2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12",
    "2014-02-25", "2014-11-05", "2015-10-20", "2016-04-19", "2016-06-30", "2016-09-02",
    "2018-03-28", "2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03",
    "2021-03-23", "2021-07-15", "2022-09-24", "latest",
};

/* --- leaves --- */

struct leaf {
	const char *path; /* below the version */
	const struct entry *entry;
	const struct shared_tag *tag;
	const struct shared_block_device *disk;
	int local; /* ephemeral0, … */
};

typedef void print_fn(const struct metadata_view *v, const struct leaf *l, struct buf *out);

struct entry {
	const char *path;
	size_t text_offset; /* a string of the specification, when print is NULL */
	print_fn *print;
	bool (*exists)(
	    const struct metadata_view *v); /* NULL: always; strings exist when they are set */
	const char *content_type;	    /* NULL: text/plain */
};

static void print_index(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_printf(out, "%" PRId64,
		   v->spec->ami_launch_index.set ? v->spec->ami_launch_index.value : 0);
}

/* Truths about every instance of this cloud. */
static void print_unknown(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, "(unknown)");
}

static void print_none(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, "none");
}

static void print_on_demand(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, "on-demand");
}

static void print_hvm(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, "default-hvm");
}

static void print_default(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, "default");
}

static void print_zero(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_putc(out, '0');
}

static void print_empty_list(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, "[]");
}

static void print_domain(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, "amazonaws.com");
}

static void print_partition(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, "aws");
}

/* A root volume is called as it was registered, as Amazon's are, whatever the guest's kernel calls it. */
static const char *root_device(const struct metadata_view *v)
{
	bool ebs = str_eq(v->spec->root_device_type, "ebs");

	return ebs && v->spec->root_device_name ? v->spec->root_device_name : v->root_device;
}

static const char *short_name(const char *device)
{
	return str_prefix(device, "/dev/") ? device + 5 : device;
}

static void print_root(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, root_device(v));
}

static void print_root_name(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, short_name(root_device(v)));
}

/* EC2's names for them; the guest finds them by their serial numbers, ephemeral0 and so on. */
static void print_local(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_printf(out, "sd%c", 'b' + l->local);
}

static void print_disk(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, short_name(l->disk->device_name));
}

static void print_tag(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_puts(out, l->tag->value ? l->tag->value : "");
}

static bool has_key(const struct metadata_view *v)
{
	return v->spec->public_key && v->spec->key_name;
}

static void print_user_data(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	buf_append(out, v->spec->user_data.data, v->spec->user_data.len);
}

static bool has_user_data(const struct metadata_view *v)
{
	return v->spec->user_data.data && v->spec->user_data.len;
}

static void add(json_t *o, const char *name, const char *value)
{
	if (json_object_set_new(o, name, value ? json_string(value) : json_null()) < 0)
		abort();
}

/* Members as Amazon's, in its order; what this cloud has not is null there, too. */
static void print_document(const struct metadata_view *v, const struct leaf *l, struct buf *out)
{
	const struct shared_instance_spec *s = v->spec;
	char launched[CLOCK_ISO_LEN];
	json_t *o = json_object();
	char *text;

	clock_format_iso(s->launch_time.value, launched);
	strcpy(launched + 19, "Z"); /* whole seconds */
	add(o, "accountId", s->account_id);
	add(o, "architecture", "x86_64");
	add(o, "availabilityZone", s->availability_zone);
	add(o, "billingProducts", NULL);
	add(o, "devpayProductCodes", NULL);
	add(o, "marketplaceProductCodes", NULL);
	add(o, "imageId", s->image_id);
	add(o, "instanceId", s->instance_id);
	add(o, "instanceType", s->instance_type);
	add(o, "kernelId", NULL);
	add(o, "pendingTime", launched);
	add(o, "privateIp", s->private_ip);
	add(o, "ramdiskId", NULL);
	add(o, "region", s->region);
	add(o, "version", "2017-09-30");
	text = json_dumps(o, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
	json_decref(o);
	if (!text)
		abort();
	buf_puts(out, text);
	free(text);
}

#define STRING(member) .text_offset = offsetof(struct shared_instance_spec, member)
#define MD "meta-data/"
#define IF MD "network/interfaces/macs/{mac}/"

static const struct entry entries[] = {
    {"dynamic/instance-identity/document", .print = print_document},
    {MD "ami-id", STRING(image_id)},
    {MD "ami-launch-index", .print = print_index},
    {MD "ami-manifest-path", .print = print_unknown},
    {MD "block-device-mapping/ami", .print = print_root_name},
    {MD "block-device-mapping/ebs{disk}", .print = print_disk},
    {MD "block-device-mapping/ephemeral{local}", .print = print_local},
    {MD "block-device-mapping/root", .print = print_root},
    {MD "events/maintenance/history", .print = print_empty_list},
    {MD "events/maintenance/scheduled", .print = print_empty_list},
    {MD "hostname", STRING(private_dns_name)},
    {MD "instance-action", .print = print_none},
    {MD "instance-id", STRING(instance_id)},
    {MD "instance-life-cycle", .print = print_on_demand},
    {MD "instance-type", STRING(instance_type)},
    {MD "local-hostname", STRING(private_dns_name)},
    {MD "local-ipv4", STRING(private_ip)},
    {MD "mac", STRING(mac_address)},
    {IF "device-number", .print = print_zero},
    {IF "interface-id", STRING(network_interface_id)},
    {IF "local-hostname", STRING(private_dns_name)},
    {IF "local-ipv4s", STRING(private_ip)},
    {IF "mac", STRING(mac_address)},
    {IF "owner-id", STRING(account_id)},
    {IF "security-groups", .print = print_default},
    {IF "subnet-id", STRING(subnet_id)},
    {IF "subnet-ipv4-cidr-block", STRING(subnet_cidr)},
    {IF "vpc-id", STRING(vpc_id)},
    {IF "vpc-ipv4-cidr-block",
     STRING(subnet_cidr)}, /* the VPC has one subnet, as large as itself */
    {IF "vpc-ipv4-cidr-blocks", STRING(subnet_cidr)},
    {MD "placement/availability-zone", STRING(availability_zone)},
    {MD "placement/region", STRING(region)},
    {MD "profile", .print = print_hvm},
    {MD "public-keys/0/openssh-key", STRING(public_key), .exists = has_key},
    {MD "reservation-id", STRING(reservation_id)},
    {MD "security-groups", .print = print_default},
    {MD "services/domain", .print = print_domain},
    {MD "services/partition", .print = print_partition},
    {MD "tags/instance/{tag}", .print = print_tag},
    {"user-data", .print = print_user_data, .exists = has_user_data,
     .content_type = "application/octet-stream"},
};

static const char *text_of(const struct metadata_view *v, const struct entry *e)
{
	return *(const char *const *)((const char *)v->spec + e->text_offset);
}

static bool entry_exists(const struct metadata_view *v, const struct entry *e)
{
	if (e->exists && !e->exists(v))
		return false;
	return e->print || text_of(v, e);
}

/* --- laying the tree out for one instance --- */

struct tree {
	struct leaf *leaves;
	size_t count;
};

static const char *fill_in(struct arena *a, const char *path, const char *what, const char *with)
{
	const char *at = strstr(path, what);

	return arena_printf(a, "%.*s%s%s", (int)(at - path), path, with, at + strlen(what));
}

/* A key that would be a directory, or end its line, cannot be listed; the API refuses such keys
 * where tags are shown here. */
static bool tag_shown(const struct shared_tag *t)
{
	return t->key && *t->key && !strpbrk(t->key, "/\n\r") && !str_eq(t->key, ".") &&
	       !str_eq(t->key, "..");
}

static void lay_out_tags(const struct metadata_view *v, const struct entry *e, struct arena *a,
			 struct tree *t)
{
	const struct shared_metadata_options *o = v->spec->metadata_options;

	if (!o || !str_eq(o->instance_metadata_tags, "enabled"))
		return;
	for (size_t i = 0; i < v->spec->tags.count; i++) {
		const struct shared_tag *tag = &v->spec->tags.items[i];

		if (tag_shown(tag))
			t->leaves[t->count++] =
			    (struct leaf){fill_in(a, e->path, "{tag}", tag->key), e, tag, NULL};
	}
}

/* Volumes beside the root: ebs1, ebs2, … */
static void lay_out_disks(const struct metadata_view *v, const struct entry *e, struct arena *a, struct tree *t)
{
	int n = 0;

	for (size_t i = 0; i < v->spec->block_devices.count; i++) {
		const struct shared_block_device *d = &v->spec->block_devices.items[i];

		if ((d->boot.set && d->boot.value) || !str_eq(d->wanted, "attached"))
			continue;
		t->leaves[t->count++] = (struct leaf){fill_in(a, e->path, "{disk}", arena_printf(a, "%d", ++n)), e, NULL, d};
	}
}

static void lay_out_locals(const struct metadata_view *v, const struct entry *e, struct arena *a, struct tree *t)
{
	for (int i = 0; i < v->spec->local_disks.value; i++)
		t->leaves[t->count++] = (struct leaf){fill_in(a, e->path, "{local}", arena_printf(a, "%d", i)), e, .local = i};
}

static void lay_out(const struct metadata_view *v, struct arena *a, struct tree *t)
{
	t->leaves = arena_new_array(a, struct leaf,
				    ARRAY_SIZE(entries) + v->spec->tags.count + v->spec->block_devices.count +
					(size_t)v->spec->local_disks.value);
	t->count = 0;
	for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
		const struct entry *e = &entries[i];
		const char *path = e->path;

		if (strstr(path, "{tag}")) {
			lay_out_tags(v, e, a, t);
			continue;
		}
		if (strstr(path, "{disk}")) {
			lay_out_disks(v, e, a, t);
			continue;
		}
		if (strstr(path, "{local}")) {
			lay_out_locals(v, e, a, t);
			continue;
		}
		if (!entry_exists(v, e))
			continue;
		if (strstr(path, "{mac}"))
			path = fill_in(a, path, "{mac}",
				       v->spec->mac_address ? v->spec->mac_address : "");
		t->leaves[t->count++] = (struct leaf){path, e, NULL, NULL};
	}
}

/* --- answering --- */

static void page_of(struct buf *b, const char *content_type, struct arena *a,
		    struct metadata_page *ret)
{
	*ret = (struct metadata_page){content_type, arena_memdup(a, b->data ? b->data : "", b->len),
				      b->len};
	buf_done(b);
}

static void show_leaf(const struct metadata_view *v, const struct leaf *l, struct arena *a,
		      struct metadata_page *ret)
{
	struct buf b = BUF_INIT;

	if (l->entry->print)
		l->entry->print(v, l, &b);
	else
		buf_puts(&b, text_of(v, l->entry));
	page_of(&b, l->entry->content_type ? l->entry->content_type : TEXT, a, ret);
}

/* The part of a leaf's path that a listing of dir ("" or "meta-data/…/") shows; false when it is
 * elsewhere. */
static bool child_of(const char *path, const char *dir, const char **ret_name, size_t *ret_len)
{
	size_t n = strlen(dir);

	if (strncmp(path, dir, n))
		return false;
	*ret_name = path + n;
	*ret_len = strcspn(*ret_name, "/");
	return true;
}

/* Directories show a slash behind them; but not those of the top, and keys show their name instead,
 * as Amazon's do. */
static void print_child(const struct metadata_view *v, const char *dir, const char *name,
			size_t len, struct buf *out)
{
	if (str_eq(dir, MD "public-keys/"))
		buf_printf(out, "%.*s=%s", (int)len, name, v->spec->key_name);
	else
		buf_printf(out, "%.*s%s", (int)len, name, name[len] && *dir ? "/" : "");
}

static int list(const struct metadata_view *v, const struct tree *t, const char *dir,
		struct arena *a, struct metadata_page *ret)
{
	struct buf b = BUF_INIT;
	const char *last = NULL;
	size_t last_len = 0;

	/* Leaves of one directory stand together in the table: a name once seen is the last one
	 * seen. */
	for (size_t i = 0; i < t->count; i++) {
		const char *name;
		size_t len;

		if (!child_of(t->leaves[i].path, dir, &name, &len))
			continue;
		if (last && len == last_len && !memcmp(last, name, len))
			continue;
		if (last)
			buf_putc(&b, '\n');
		print_child(v, dir, name, len, &b);
		last = name;
		last_len = len;
	}
	if (!last)
		return -ENOENT;
	page_of(&b, TEXT, a, ret);
	return 0;
}

static void list_versions(struct arena *a, struct metadata_page *ret)
{
	struct buf b = BUF_INIT;

	for (size_t i = 0; i < ARRAY_SIZE(versions); i++)
		buf_printf(&b, "%s%s", i ? "\n" : "", versions[i]);
	page_of(&b, TEXT, a, ret);
}

/* Single slashes, none at the ends: "//latest//meta-data/" is "latest/meta-data". */
static char *tidy(struct arena *a, const char *path)
{
	char *out = arena_alloc(a, strlen(path) + 1);
	size_t n = 0;

	for (; *path; path++) {
		if (*path != '/' || (n && out[n - 1] != '/'))
			out[n++] = *path;
	}
	if (n && out[n - 1] == '/')
		n--;
	out[n] = '\0';
	return out;
}

/* What follows a known version: NULL when it is none. */
static const char *behind_version(const char *path)
{
	for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
		size_t n = strlen(versions[i]);

		if (!strncmp(path, versions[i], n) && (!path[n] || path[n] == '/'))
			return path + n + !!path[n];
	}
	return NULL;
}

int metadata_tree_get(const struct metadata_view *v, const char *path, struct arena *a,
		      struct metadata_page *ret)
{
	const char *tidied = tidy(a, path), *rest;
	struct tree t;

	if (!*tidied) {
		list_versions(a, ret);
		return 0;
	}
	rest = behind_version(tidied);
	if (!rest)
		return -ENOENT;
	lay_out(v, a, &t);
	for (size_t i = 0; i < t.count; i++) {
		if (str_eq(t.leaves[i].path, rest)) {
			show_leaf(v, &t.leaves[i], a, ret);
			return 0;
		}
	}
	return list(v, &t, *rest ? arena_printf(a, "%s/", rest) : "", a, ret);
}

bool metadata_is_token_path(const char *path)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *rest = behind_version(tidy(a, path));

	return rest && str_eq(rest, "api/token");
}
