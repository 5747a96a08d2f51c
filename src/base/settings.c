/* SPDX-License-Identifier: Apache-2.0 */
#include "base/settings.h"

#include <arpa/inet.h>
#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/settings_priv.h"
#include "base/text.h"

struct settings {
	char *values[SETTING_COUNT];
	enum setting_source sources[SETTING_COUNT];
};

/* ---- what a value must look like ---- */

static bool is_lower_alnum(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool check_state(const char *v)
{
	return v[0] == '/' && strlen(v) < 200 && !strpbrk(v, "\n\r");
}

static bool check_cloud_id(const char *v)
{
	size_t n = strlen(v);

	for (const char *p = v; *p; p++) {
		if (!is_lower_alnum(*p))
			return false;
	}
	return n >= 2 && n <= 8 && v[0] >= 'a';
}

/* us-east-1, us-gov-west-1: words of lower-case letters, then a number. */
static bool check_region(const char *v)
{
	size_t len = strlen(v);
	int words = 0;

	if (len > 32)
		return false;
	for (;;) {
		size_t n = strspn(v, "abcdefghijklmnopqrstuvwxyz");

		if (n == 0)
			break;
		words++;
		v += n;
		if (*v++ != '-')
			return false;
	}
	len = strspn(v, "0123456789");
	return words >= 2 && len >= 1 && len <= 2 && v[len] == '\0';
}

static bool check_zone(const char *v)
{
	size_t n = strlen(v);

	for (const char *p = v; *p; p++) {
		if (!is_lower_alnum(*p) && *p != '-')
			return false;
	}
	return n >= 3 && n <= 40 && isalpha((unsigned char)v[0]) &&
	       isalpha((unsigned char)v[n - 1]);
}

static bool check_ipv4(const char *v)
{
	struct in_addr a;

	return inet_pton(AF_INET, v, &a) == 1;
}

static bool check_subnet(const char *v)
{
	const char *slash = strchr(v, '/');
	char address[INET_ADDRSTRLEN];
	struct in_addr a;
	uint64_t bits;

	if (!slash || (size_t)(slash - v) >= sizeof(address))
		return false;
	memcpy(address, v, (size_t)(slash - v));
	address[slash - v] = '\0';
	if (inet_pton(AF_INET, address, &a) != 1 || parse_u64(slash + 1, 16, 28, &bits) < 0)
		return false;
	return (ntohl(a.s_addr) & (UINT32_MAX >> bits)) == 0;
}

static bool check_hypervisor(const char *v)
{
	return str_eq(v, "auto") || str_eq(v, "kvm") || str_eq(v, "tcg") || str_eq(v, "fake");
}

static bool check_node_id(const char *v)
{
	size_t n = strlen(v);

	for (const char *p = v; *p; p++) {
		if (!isalnum((unsigned char)*p) && *p != '-' && *p != '.')
			return false;
	}
	return n >= 1 && n <= 63 && isalnum((unsigned char)v[0]);
}

static bool check_log_level(const char *v)
{
	enum log_level level;

	return log_level_parse(v, &level) == 0;
}

#define DEVICE_LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._:+-"

/* Each a path below /dev without "..", and none twice. */
static bool check_devices(const char *v)
{
	for (const char *at = v; *at;) {
		size_t len = strcspn(at, ",");

		if (len < 6 || len > 100 || strncmp(at, "/dev/", 5) != 0 || strspn(at + 5, DEVICE_LETTERS) < len - 5 ||
		    memmem(at, len, "..", 2))
			return false;
		for (const char *other = v; other < at; other += strcspn(other, ",") + 1)
			if (strcspn(other, ",") == len && strncmp(other, at, len) == 0)
				return false;
		at += len;
		if (*at == ',' && !*++at)
			return false;
	}
	return true;
}

static bool check_ebs_pool(const char *v)
{
	static const char disks[] = "disks:";

	if (!str_prefix(v, disks))
		return str_eq(v, "files");
	v += strlen(disks);
	return *v && check_devices(v);
}

static const struct setting_desc table[SETTING_COUNT] = {
    [SETTING_STATE] =
	{
	    .name = "state",
	    .env = "MALLEE_STATE",
	    .fallback = "/var/lib/mallee",
	    .check = check_state,
	    .accepts = "an absolute path of less than 200 characters",
	    .doc = "Folder that holds everything the cloud keeps. Only the environment sets it.",
	},
    [SETTING_CLOUD_ID] =
	{
	    .name = "cloud_id",
	    .check = check_cloud_id,
	    .accepts = "2 to 8 lower-case letters and digits, a letter first",
	    .doc = "Short id that everything made on the host carries. Chosen at the first start.",
	},
    [SETTING_REGION] =
	{
	    .name = "region",
	    .env = "MALLEE_REGION",
	    .fallback = "us-east-1",
	    .check = check_region,
	    .accepts = "a region's name such as us-east-1",
	    .doc = "Name of the region that clients sign for.",
	},
    [SETTING_ZONE] =
	{
	    .name = "zone",
	    .env = "MALLEE_ZONE",
	    .check = check_zone,
	    .accepts = "the region's name and a letter, such as us-east-1a",
	    .doc = "Availability zone. The region's name and \"a\" unless set.",
	},
    [SETTING_LISTEN] =
	{
	    .name = "listen",
	    .env = "MALLEE_LISTEN",
	    .fallback = "127.0.0.1",
	    .check = check_ipv4,
	    .accepts = "an IPv4 address of this machine, or 0.0.0.0 for all",
	    .doc = "Address on which the EC2 and S3 APIs listen.",
	},
    [SETTING_PORT_BASE] =
	{
	    .name = "port_base",
	    .env = "MALLEE_PORT_BASE",
	    .fallback = "8773",
	    .min = 1024,
	    .max = 65536 - PORT_SPAN - 1,
	    .doc = "First of the 20 TCP ports that the cloud uses: the EC2 API; S3 is the next.",
	},
    [SETTING_SUBNET] =
	{
	    .name = "subnet",
	    .env = "MALLEE_SUBNET",
	    .check = check_subnet,
	    .accepts = "an IPv4 network such as 10.77.0.0/20, its length from 16 to 28 bits",
	    .doc = "Network of the guests. Chosen clear of the host's routes at the first start.",
	},
    [SETTING_HYPERVISOR] =
	{
	    .name = "hypervisor",
	    .env = "MALLEE_HYPERVISOR",
	    .fallback = "auto",
	    .check = check_hypervisor,
	    .accepts = "auto, kvm, tcg or fake",
	    .doc = "How guests run. auto probes KVM and falls back to emulation; fake runs none.",
	},
    [SETTING_NODE_ID] =
	{
	    .name = "node_id",
	    .env = "MALLEE_NODE_ID",
	    .check = check_node_id,
	    .accepts = "1 to 63 letters, digits, dots and dashes",
	    .doc = "Name of this node. The host's name unless set.",
	},
    [SETTING_CACHE_MIB] =
	{
	    .name = "image_cache_mib",
	    .env = "MALLEE_IMAGE_CACHE_MIB",
	    .fallback = "10240",
	    .min = 64,
	    .max = INT64_C(1) << 30,
	    .unit = "MiB",
	    .doc = "Limit of the node's cache of images.",
	},
    [SETTING_RESERVE_MIB] =
	{
	    .name = "reserve_mib",
	    .env = "MALLEE_RESERVE_MIB",
	    .fallback = "512",
	    .min = 0,
	    .max = INT64_C(1) << 24,
	    .unit = "MiB",
	    .doc = "Memory of the host that is never given to guests.",
	},
    [SETTING_OVERCOMMIT_CPU] =
	{
	    .name = "cpu_ratio",
	    .env = "MALLEE_CPU_RATIO",
	    .fallback = "8",
	    .min = 1,
	    .max = 100,
	    .doc = "Virtual CPUs sold for each CPU of the host.",
	},
    [SETTING_LOCAL_DISKS] =
	{
	    .name = "local_disks",
	    .env = "MALLEE_LOCAL_DISKS",
	    .check = check_devices,
	    .accepts = "paths of whole block devices below /dev, separated by commas",
	    .doc = "Whole disks of this node that instances of types such as i3.large are given. What is on them is lost.",
	},
    [SETTING_LOG_LEVEL] =
	{
	    .name = "log_level",
	    .env = "MALLEE_LOG_LEVEL",
	    .fallback = "info",
	    .check = check_log_level,
	    .accepts = "debug, info, warn or error",
	    .doc = "Least important event that is logged.",
	},
    [SETTING_EBS_POOL] =
	{
	    .name = "ebs_pool",
	    .env = "MALLEE_EBS_POOL",
	    .fallback = "files",
	    .check = check_ebs_pool,
	    .accepts = "files, or disks: and whole block devices, such as disks:/dev/sdb,/dev/sdc",
	    .doc = "What EBS volumes are made of: files in the state folder, or blank disks, one a volume.",
	},
    [SETTING_FIGURES_S] =
	{
	    .name = "figures_s",
	    .env = "MALLEE_FIGURES_S",
	    .fallback = "5",
	    .min = 1,
	    .max = 300,
	    .unit = "s",
	    .doc = "How often a node samples what its instances' disks, NICs and CPUs do (`mallee top`, metrics).",
	},
};

static bool is_integer(const struct setting_desc *d)
{
	return d->max != 0;
}

const struct setting_desc *setting_describe(enum setting which)
{
	return &table[which];
}

int setting_by_name(const char *name)
{
	for (int i = 0; i < SETTING_COUNT; i++) {
		if (str_eq(table[i].name, name))
			return i;
	}
	return -ENOENT;
}

/* where: "MALLEE_REGION" or "/var/lib/mallee/mallee.conf:3: region" */
static int check_value(const struct setting_desc *d, const char *where, const char *value,
		       struct error *e)
{
	int64_t n;

	if (is_integer(d)) {
		if (parse_i64(value, d->min, d->max, &n) == 0)
			return 0;
		return error_set(e, "InvalidSetting",
				 "%s is \"%.64s\"; it takes a whole number from %lld to %lld%s%s.",
				 where, value, (long long)d->min, (long long)d->max,
				 d->unit ? " " : "", d->unit ? d->unit : "");
	}
	if (d->check(value))
		return 0;
	return error_set(e, "InvalidSetting", "%s is \"%.64s\"; it takes %s.", where, value,
			 d->accepts);
}

static void assign(struct settings *s, enum setting which, const char *value,
		   enum setting_source source)
{
	char *copy = strdup(value);

	if (!copy)
		abort();
	free(s->values[which]);
	s->values[which] = copy;
	s->sources[which] = source;
}

int settings_assign(struct settings *s, enum setting which, const char *where, const char *value,
		    enum setting_source source, struct error *e)
{
	int r = check_value(&table[which], where, value, e);

	if (r < 0)
		return r;
	assign(s, which, value, source);
	return 0;
}

enum setting_source settings_source(const struct settings *s, enum setting which)
{
	return s->sources[which];
}

/* The host's name without what a node id may not hold. */
static void default_node_id(struct settings *s)
{
	char name[64];
	size_t n = 0;

	if (gethostname(name, sizeof(name)) < 0)
		name[0] = '\0';
	name[sizeof(name) - 1] = '\0';
	for (const char *p = name; *p; p++) {
		if (isalnum((unsigned char)*p) || (n > 0 && (*p == '-' || *p == '.')))
			name[n++] = *p;
		else if (n > 0)
			name[n++] = '-';
	}
	name[n] = '\0';
	assign(s, SETTING_NODE_ID, n ? name : "node", SETTING_FROM_DEFAULT);
}

/* What follows from other values as long as nobody has set it. */
static void derive(struct settings *s)
{
	char zone[64];

	if (s->sources[SETTING_ZONE] != SETTING_FROM_DEFAULT)
		return;
	snprintf(zone, sizeof(zone), "%sa", s->values[SETTING_REGION]);
	assign(s, SETTING_ZONE, zone, SETTING_FROM_DEFAULT);
}

static int check_zone_region(const struct settings *s, struct error *e)
{
	const char *region = s->values[SETTING_REGION], *zone = s->values[SETTING_ZONE];

	if (str_prefix(zone, region) && isalpha((unsigned char)zone[strlen(zone) - 1]))
		return 0;
	return error_set(
	    e, "InvalidSetting",
	    "The zone \"%s\" does not lie in the region \"%s\": a zone's name is its region's "
	    "and a letter. Set MALLEE_ZONE and MALLEE_REGION to names that agree.",
	    zone, region);
}

static int load_environment(struct settings *s, struct error *e)
{
	for (int i = 0; i < SETTING_COUNT; i++) {
		const char *value = table[i].env ? getenv(table[i].env) : NULL;
		int r;

		if (!value || !*value)
			continue;
		r = settings_assign(s, (enum setting)i, table[i].env, value, SETTING_FROM_ENV, e);
		if (r < 0)
			return r;
	}
	return 0;
}

static void trim_slashes(char *path)
{
	size_t n = strlen(path);

	while (n > 1 && path[n - 1] == '/')
		path[--n] = '\0';
}

int settings_load(struct settings **ret, struct error *e)
{
	_cleanup_(settings_freep) struct settings *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		abort();
	for (int i = 0; i < SETTING_COUNT; i++)
		assign(s, (enum setting)i, table[i].fallback ? table[i].fallback : "",
		       SETTING_FROM_DEFAULT);
	default_node_id(s);
	/* Twice: first for the folder in which the file lies, then to overrule the file. */
	r = load_environment(s, e);
	if (r < 0)
		return r;
	trim_slashes(s->values[SETTING_STATE]);
	r = settings_file_load(s, e);
	if (r < 0)
		return r;
	r = load_environment(s, e);
	if (r < 0)
		return r;
	trim_slashes(s->values[SETTING_STATE]);
	derive(s);
	r = check_zone_region(s, e);
	if (r < 0)
		return r;
	*ret = TAKE_PTR(s);
	return 0;
}

void settings_free(struct settings *s)
{
	if (!s)
		return;
	for (int i = 0; i < SETTING_COUNT; i++)
		free(s->values[i]);
	free(s);
}

const char *settings_get(const struct settings *s, enum setting which)
{
	assert(which < SETTING_COUNT);
	return s->values[which];
}

int64_t settings_int(const struct settings *s, enum setting which)
{
	const struct setting_desc *d = &table[which];
	int64_t n = 0;

	assert(is_integer(d));
	if (parse_i64(s->values[which], d->min, d->max, &n) < 0)
		abort(); /* values are checked before they get here */
	return n;
}

int settings_set(struct settings *s, enum setting which, const char *value, struct error *e)
{
	int r = settings_assign(s, which, table[which].name, value, SETTING_FROM_CALLER, e);

	if (r < 0)
		return r;
	trim_slashes(s->values[SETTING_STATE]);
	derive(s);
	return 0;
}

char *settings_path(const struct settings *s, const char *fmt, ...)
{
	struct buf b = BUF_INIT;
	va_list ap;

	buf_printf(&b, "%s/", s->values[SETTING_STATE]);
	va_start(ap, fmt);
	buf_vprintf(&b, fmt, ap);
	va_end(ap);
	return buf_steal(&b);
}

void settings_describe(struct buf *out)
{
	for (int i = 0; i < SETTING_COUNT; i++) {
		const struct setting_desc *d = &table[i];

		buf_printf(out, "  %s", d->env ? d->env : d->name);
		if (d->fallback)
			buf_printf(out, " (%s%s%s)", d->fallback, d->unit ? " " : "",
				   d->unit ? d->unit : "");
		buf_printf(out, "\n      %s\n", d->doc);
		if (d->accepts)
			buf_printf(out, "      Takes %s.\n", d->accepts);
		else
			buf_printf(out, "      Takes a whole number from %lld to %lld.\n",
				   (long long)d->min, (long long)d->max);
	}
}

uint16_t settings_port(const struct settings *s, enum port which)
{
	assert(which < PORT_SPAN);
	return (uint16_t)(settings_int(s, SETTING_PORT_BASE) + which);
}
