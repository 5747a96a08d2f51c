/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/nc/nc.h"

#include <assert.h>
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/text.h"
#include "hyper/host.h"
#include "os/file.h"
#include "os/privs.h"
#include "svc/nc/nc_priv.h"
#include "wire/codec.h"

static const struct metric_desc metric_descs[NC_METRIC_COUNT] = {
    [NC_M_INSTANCES] = {"mallee_nc_instances", "Instances that are not terminated", METRIC_GAUGE},
    [NC_M_RUNNING] = {"mallee_nc_instances_running", "Instances that run", METRIC_GAUGE},
    [NC_M_LAUNCHES] = {"mallee_nc_launches_total", "First starts of guests", METRIC_COUNTER},
    [NC_M_LAUNCH_FAILURES] = {"mallee_nc_launch_failures_total", "Launches given up",
			      METRIC_COUNTER},
    [NC_M_RESTARTS] = {"mallee_nc_restarts_total",
		       "Guests started again after a crash, a drain or a host boot",
		       METRIC_COUNTER},
    [NC_M_RETRIES] = {"mallee_nc_retries_total", "Steps that failed and are tried again",
		      METRIC_COUNTER},
    [NC_M_CACHE_BYTES] = {"mallee_nc_image_cache_bytes", "Bytes in the image cache", METRIC_GAUGE},
    [NC_M_MENDED] = {"mallee_nc_network_mended_total",
		     "Things of the guests' network found changed and mended", METRIC_COUNTER},
    [NC_M_VOLUMES] = {"mallee_nc_volumes_open", "Volumes that are open for instances", METRIC_GAUGE},
    [NC_M_VOLUMES_CLOSING] = {"mallee_nc_volumes_closing", "Volumes that nobody wants here any more and are still to be closed",
			      METRIC_GAUGE},
    [NC_M_BLOCKD_RESTARTS] = {"mallee_nc_blockd_restarts_total", "Processes of volumes that died and were started again",
			      METRIC_COUNTER},
};

/* What root keeps: taps, rules and raw ARP; files of other users; dnsmasq, which is started, looked at
 * (the network namespace of another user's process takes CAP_SYS_PTRACE) and drops its rights itself. */
#define CAP(c) (UINT64_C(1) << (c))
#define NC_CAPS                                                                                    \
	(CAP(CAP_NET_ADMIN) | CAP(CAP_NET_RAW) | CAP(CAP_NET_BIND_SERVICE) | CAP(CAP_CHOWN) |      \
	 CAP(CAP_DAC_OVERRIDE) | CAP(CAP_FOWNER) | CAP(CAP_KILL) | CAP(CAP_SETUID) |               \
	 CAP(CAP_SETGID) | CAP(CAP_SETPCAP) | CAP(CAP_SYS_PTRACE))

static int read_boot_id(char out[static 40], struct error *e)
{
	_cleanup_(freep) char *text = NULL;
	size_t len;
	int r = file_read("/proc/sys/kernel/random/boot_id", 64, &text, &len);

	if (r < 0)
		return error_errno(e, r, "cannot read the host's boot id");
	snprintf(out, 40, "%.*s", (int)strcspn(text, "\n"), text);
	return 0;
}

static void init_locks(struct nc *nc)
{
	pthread_cond_t *const conds[] = {&nc->shown, &nc->stop, &nc->light.filled,
					 &nc->heavy.filled, &nc->close_due};
	pthread_condattr_t attr;

	pthread_mutex_init(&nc->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	for (size_t i = 0; i < ARRAY_SIZE(conds); i++)
		pthread_cond_init(conds[i], &attr);
	pthread_condattr_destroy(&attr);
	nc->light.last = &nc->light.first;
	nc->heavy.last = &nc->heavy.first;
}

static int copy_settings(struct nc *nc, const struct settings *s, struct error *e)
{
	int r = settings_load(&nc->settings, e);

	for (int i = SETTING_CLOUD_ID; r == 0 && i < SETTING_COUNT; i++) {
		const char *value = settings_get(s, (enum setting)i);

		if (*value)
			r = settings_set(nc->settings, (enum setting)i, value, e);
	}
	if (r < 0)
		return r;
	nc->cloud_id = settings_get(nc->settings, SETTING_CLOUD_ID);
	nc->node_id = settings_get(nc->settings, SETTING_NODE_ID);
	if (!*nc->cloud_id || !*nc->node_id)
		return error_set(
		    e, "InternalError",
		    "the cloud has no id, or this node no name: start it with `mallee up`");
	nc->dir = settings_path(nc->settings, "nc");
	nc->volumes_dir = settings_path(nc->settings, "nc/volumes");
	nc->sc_dir = settings_path(nc->settings, "sc");
	nc->uid_base = nc_uid_base(nc->cloud_id);
	return 0;
}

static void choose_hypervisor(struct nc *nc)
{
	const char *want = settings_get(nc->settings, SETTING_HYPERVISOR);

	nc->ops = &hyper_kvm_ops;
	if (str_eq(want, "fake")) {
		nc->ops = &hyper_fake_ops;
		nc->accel = HYPER_ACCEL_NONE;
		strcpy(nc->accel_why, "the fake hypervisor runs nothing");
	} else if (str_eq(want, "kvm") || str_eq(want, "tcg")) {
		nc->accel = str_eq(want, "kvm") ? HYPER_ACCEL_KVM : HYPER_ACCEL_TCG;
		strcpy(nc->accel_why, "chosen by the setting");
	} else {
		nc->accel = hyper_probe(nc->accel_why, sizeof(nc->accel_why));
	}
	log_info("hypervisor", "driver=%s accelerator=%s reason=%s", nc->ops->name,
		 hyper_accel_name(nc->accel), log_quote(nc->accel_why));
}

/* Folders that each guest's QEMU passes through on the way to its disk. */
static int make_folders(struct nc *nc, struct error *e)
{
	_cleanup_(freep) char *instances = NULL;
	int r;

	if (asprintf(&instances, "%s/instances", nc->dir) < 0)
		abort();
	r = dir_make(instances, 0711);
	if (r < 0)
		return error_errno(e, r, "cannot make %s", instances);
	if (nc->ops->fakes_disks)
		return 0;
	chmod(nc->dir, 0711);
	chmod(instances, 0711);
	return path_traversable(instances, nc->uid_base, (gid_t)nc->uid_base, e);
}

static int open_hypervisor(struct nc *nc, struct error *e)
{
	struct hyper_config c = {.cloud_id = nc->cloud_id, .run_dir = nc->dir, .accel = nc->accel};
	int r = nc->ops->open(&c, &nc->hyper, e);

	if (r == 0 && nc->ops->watch)
		r = nc->ops->watch(nc->hyper, nc_watch, nc);
	return r;
}

static int open_cache(struct nc *nc, struct error *e)
{
	_cleanup_(freep) char *dir = NULL;
	struct image_cache_config c = {.limit_bytes = settings_int(nc->settings, SETTING_CACHE_MIB)
						      << 20};

	if (asprintf(&dir, "%s/cache", nc->dir) < 0)
		abort();
	c.dir = dir;
	return image_cache_open(&c, &nc->cache, e);
}

struct ids {
	size_t count;
	const char **items;
};

static void list_ports(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	struct ids *l = ctx;

	if (inst->rec.state != NC_TERMINATED)
		l->items[l->count++] = inst->id;
}

/* No thread runs yet, so nothing is removed from the table meanwhile. */
static int open_net(struct nc *nc, struct error *e)
{
	_cleanup_(freep) char *dir = NULL;
	struct net_config c = {
	    .cloud_id = nc->cloud_id,
	    .subnet = settings_get(nc->settings, SETTING_SUBNET),
	    .region = settings_get(nc->settings, SETTING_REGION),
	    .metadata_port = settings_port(nc->settings, PORT_METADATA),
	    .api_ports = {settings_port(nc->settings, PORT_API),
			  settings_port(nc->settings, PORT_S3)},
	};
	struct ids ports = {0};
	int r;

	if (nc->ops->fakes_network)
		return 0;
	if (asprintf(&dir, "%s/net", nc->dir) < 0 ||
	    !(ports.items = calloc(nc->count + 1, sizeof(*ports.items))))
		abort();
	c.dir = dir;
	r = net_open(&c, &nc->net, e);
	if (r == 0) {
		nc_each(nc, list_ports, &ports);
		r = net_port_prune(nc->net, ports.items, ports.count, e);
	}
	free(ports.items);
	return r;
}

struct find_ip {
	uint32_t ipv4_be;
	const struct nc_instance *found;
};

static void match_ip(struct nc *nc, struct nc_instance *inst, void *ctx)
{
	struct find_ip *f = ctx;
	enum nc_state shown = nc_shown_state(inst);
	bool on = shown == NC_PENDING || shown == NC_RUNNING;

	if (on && inst->ipv4_be == f->ipv4_be)
		f->found = inst;
}

static int lookup_by_ip(void *ctx, uint32_t ipv4_be, struct arena *a,
			const struct shared_instance_spec **ret)
{
	struct nc *nc = ctx;
	struct find_ip f = {.ipv4_be = ipv4_be};

	pthread_mutex_lock(&nc->lock);
	nc_each(nc, match_ip, &f);
	if (f.found)
		*ret = wire_copy(a, &shared_shape_instance_spec, f.found->spec);
	pthread_mutex_unlock(&nc->lock);
	return f.found ? 0 : -ENOENT;
}

static int start_metadata(struct nc *nc, struct error *e)
{
	struct metadata_config c = {
	    .address = nc->net ? net_gateway(nc->net) : NULL,
	    .port = settings_port(nc->settings, PORT_METADATA),
	    .dir = nc->dir,
	    .lookup = lookup_by_ip,
	    .ctx = nc,
	};

	return metadata_start(&c, &nc->metadata, e);
}

static void log_disk_mode(struct nc *nc)
{
	_cleanup_(freep) char *path = NULL;

	if (nc->ops->fakes_disks || asprintf(&path, "%s/nc.db", nc->dir) < 0)
		return;
	if (hyper_direct_io(path))
		log_info("disks", "cache=none io=native");
	else
		log_warn(
		    "the state folder's file system takes no O_DIRECT: guests' disks go through the page cache",
		    "cache=writeback io=threads");
}

static int check_root(struct nc *nc, struct error *e)
{
	if (nc->ops->fakes_disks)
		return 0;
	if (geteuid() != 0)
		return error_set(
		    e, "InternalError",
		    "mallee-nc must run as root: taps, rules and guests' disks need it");
	return privs_bound(NC_CAPS, e);
}

static int open_state(struct nc *nc, struct error *e)
{
	_cleanup_(freep) char *path = NULL, *certs = settings_path(nc->settings, "certs");
	int r;

	if (asprintf(&path, "%s/nc.db", nc->dir) < 0)
		abort();
	r = state_open(path, &nc->state, e);
	if (r == 0)
		r = nc_load(nc, e);
	if (r == 0)
		r = tls_context_load(certs, TLS_ROLE_NC, &nc->tls, e);
	return r;
}

static int start(struct nc *nc, const struct settings *s, struct error *e)
{
	/* In this order: what later ones need, and rights dropped before the first thread is there.
	 */
	static int (*const steps[])(struct nc * nc, struct error * e) = {
	    check_root,	     make_folders,  open_state,	    open_cache,	   open_hypervisor, open_net,
	    nc_volumes_open, nc_disks_open, start_metadata, nc_work_start, nc_rpc_start,
	};
	int r = copy_settings(nc, s, e);

	if (r == 0)
		r = read_boot_id(nc->boot_id, e);
	if (r == 0)
		choose_hypervisor(nc);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(steps); i++)
		r = steps[i](nc, e);
	if (r < 0)
		return r;
	log_disk_mode(nc);
	pthread_mutex_lock(&nc->lock);
	nc_kick_all(nc);
	pthread_mutex_unlock(&nc->lock);
	log_info("node ready", "node=%s instances=%zu held=%d", nc->node_id, nc->count, nc->held);
	return 0;
}

int nc_start(const struct settings *s, struct nc **ret, struct error *e)
{
	struct nc *nc = calloc(1, sizeof(*nc));
	int r;

	if (!nc)
		abort();
	nc->magic = NC_MAGIC;
	sampler_init(&nc->sampler);
	nc->metrics = metrics_new(metric_descs, NC_METRIC_COUNT);
	init_locks(nc);
	random_token(nc->epoch, sizeof(nc->epoch) - 1);
	r = start(nc, s, e);
	if (r < 0) {
		nc_stop(nc);
		return r;
	}
	*ret = nc;
	return 0;
}

void nc_stop(struct nc *nc)
{
	if (!nc)
		return;
	assert(nc->magic == NC_MAGIC);
	nc_work_stop(nc); /* wakes long polls too */
	if (nc->rpc)
		rpc_server_stop(nc->rpc);
	if (nc->ops_server)
		http_server_stop(nc->ops_server, 1000);
	metadata_stop(nc->metadata);
	if (nc->hyper)
		nc->ops->close(nc->hyper);
	if (nc->net)
		net_close(nc->net);
	image_cache_close(nc->cache);
	nc_volumes_free(nc);
	nc_table_free(nc);
	if (nc->state)
		state_close(nc->state);
	for (size_t i = 0; i < ARRAY_SIZE(nc->sc); i++)
		rpc_client_free(nc->sc[i].client);
	tls_context_free(nc->tls);
	sampler_done(&nc->sampler);
	metrics_free(nc->metrics);
	settings_free(nc->settings);
	free(nc->dir);
	pthread_cond_destroy(&nc->shown);
	pthread_cond_destroy(&nc->stop);
	pthread_cond_destroy(&nc->light.filled);
	pthread_cond_destroy(&nc->heavy.filled);
	pthread_cond_destroy(&nc->close_due);
	pthread_mutex_destroy(&nc->lock);
	nc->magic = 0;
	free(nc);
}
