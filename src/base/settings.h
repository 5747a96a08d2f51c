/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_BASE_SETTINGS_H
#define MALLEE_BASE_SETTINGS_H

#include <stdint.h>

#include "base/buf.h"
#include "base/error.h"

/*
 * Every setting of the cloud, in one table (settings.c): name, environment variable, default, limits, doc.
 * Precedence: environment over $MALLEE_STATE/mallee.conf (name = value lines, # comments) over the default.
 * `mallee up` writes mallee.conf with what it chose, so that daemons started later agree.
 */
enum setting {
	SETTING_STATE,        /* MALLEE_STATE: state folder, /var/lib/mallee; environment only */
	SETTING_CLOUD_ID,     /* short id carried by all that is made on the host; chosen at first up */
	SETTING_REGION,       /* MALLEE_REGION: us-east-1 */
	SETTING_ZONE,         /* MALLEE_ZONE: availability zone, region + "a" */
	SETTING_LISTEN,       /* MALLEE_LISTEN: address of the public listeners, 127.0.0.1 */
	SETTING_PORT_BASE,    /* MALLEE_PORT_BASE: 8773; shifts every port below */
	SETTING_SUBNET,       /* MALLEE_SUBNET: guests' IPv4 subnet, CIDR; chosen at first up */
	SETTING_HYPERVISOR,   /* MALLEE_HYPERVISOR: auto, kvm, tcg, fake */
	SETTING_NODE_ID,      /* MALLEE_NODE_ID: this node's name; host name */
	SETTING_CACHE_MIB,    /* MALLEE_IMAGE_CACHE_MIB: limit of NC's image cache */
	SETTING_RESERVE_MIB,  /* MALLEE_RESERVE_MIB: host memory that placement leaves alone */
	SETTING_OVERCOMMIT_CPU, /* MALLEE_CPU_RATIO: vCPUs sold per host CPU */
	SETTING_LOCAL_DISKS,  /* MALLEE_LOCAL_DISKS: whole disks of this node that instances may be given */
	SETTING_LOG_LEVEL,    /* MALLEE_LOG_LEVEL: info */
	SETTING_EBS_POOL,     /* MALLEE_EBS_POOL: files, or disks:/dev/sdb,/dev/sdc */
	SETTING_FIGURES_S,    /* MALLEE_FIGURES_S: how often the node samples live figures */
	SETTING_COUNT
};

struct settings;

/* Reads the environment and the file. Errors name the setting, its value and what is accepted. */
int settings_load(struct settings **ret, struct error *e);
void settings_free(struct settings *s);
DEFINE_CLEANUP(struct settings *, settings_free, settings_freep)

const char *settings_get(const struct settings *s, enum setting which); /* "" when unset and without default */
int64_t settings_int(const struct settings *s, enum setting which);
/* Set in memory; settings_save() writes mallee.conf atomically. */
int settings_set(struct settings *s, enum setting which, const char *value, struct error *e);
int settings_save(const struct settings *s, struct error *e);
/* $MALLEE_STATE "/" + formatted path, malloc()ed. */
char *settings_path(const struct settings *s, const char *fmt, ...) _printf_(2, 3);
/* The table as text for `mallee --help` and the man page. */
void settings_describe(struct buf *out);

/* Ports, as offsets from SETTING_PORT_BASE. */
enum port {
	PORT_API = 0,      /* EC2, STS, IAM: clc */
	PORT_S3 = 1,       /* walrus */
	PORT_CLC = 2,      /* internal, mutual TLS */
	PORT_CC = 3,
	PORT_NC = 4,
	PORT_WALRUS = 5,
	PORT_METADATA = 6, /* instance metadata on the guests' gateway */
	PORT_SC = 7,
	PORT_OPS_CLC = 10, /* /healthz and /metrics, plain HTTP, loopback only */
	PORT_OPS_CC = 11,
	PORT_OPS_NC = 12,
	PORT_OPS_WALRUS = 13,
	PORT_OPS_SC = 14,
	PORT_SPAN = 20,    /* ports [base, base + 20) belong to one cloud */
};
uint16_t settings_port(const struct settings *s, enum port which);

#endif
