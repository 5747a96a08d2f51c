/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MALLEE_HYPER_FAKE_PRIV_H
#define MALLEE_HYPER_FAKE_PRIV_H

#include <pthread.h>
#include <stdbool.h>
#include <time.h>

#include "base/buf.h"
#include "hyper/driver.h"

/* fake.conf: what tests make the fake hypervisor do; the file's form stands in fake.c. Lines that
 * say nothing known are skipped. */
enum fake_fault {
	FAKE_START_FAILS,
	FAKE_START_UNREACHABLE,
	FAKE_IGNORES_SHUTDOWN,
	FAKE_POWERS_OFF,
	FAKE_CRASHES,
	FAKE_KEEPS_DISKS,
	FAKE_ATTACH_FAILS,
	FAKE_ATTACH_UNREACHABLE,
};

struct fake_rules;
struct fake_rules *fake_rules_parse(const char *text);
void fake_rules_free(struct fake_rules *r);
bool fake_rule(const struct fake_rules *r, const char *instance_id,
	       enum fake_fault fault); /* r may be NULL: none */
void fake_rules_host(const struct fake_rules *r, struct hyper_host *ret);

/*
 * The disks of one machine. Text of one line a disk says the same, in the machine's file: place,
 * whether the guest was asked to let go, serial.
 */
struct fake_disk {
	int slot; /* -1: the boot disk */
	int64_t gone_mono_ms; /* asked: when the guest lets go */
	bool asked;
	char serial[HYPER_SERIAL_BYTES + 1];
};

struct fake_disks {
	struct fake_disk list[HYPER_DISK_SLOTS + 1];
	size_t count;
};

void fake_disks_print(const struct fake_disks *d, struct buf *out);
void fake_disks_parse(struct fake_disks *ret, const char *text); /* lines of no sense are left out */
void fake_disks_set(struct fake_disks *ret, const struct hyper_machine *m);
bool fake_disks_asked(const struct fake_disks *d); /* any of them */
/* Take out those whose time has come. How many. */
size_t fake_disks_expire(struct fake_disks *d, int64_t now_mono_ms);

#define FAKE_BUCKETS 4096

struct fake_machine {
	struct fake_machine *next;
	enum hyper_state state,
	    next_state; /* next_state: after due_mono_ms, when due_mono_ms > 0 */
	enum hyper_off_reason off_reason;
	int64_t due_mono_ms;
	char *name;
	const char *id; /* in name */
	struct fake_disks disks;
};

struct fake {
	uint32_t magic;
	char *cloud_id, *dir, *conf_path;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed;
	struct fake_machine *buckets[FAKE_BUCKETS];
	size_t changing; /* machines with a due time */
	bool unplugging; /* some disk was asked for */
	struct fake_rules *rules;
	struct timespec conf_time;
	bool stopping, thread_started;
	pthread_t thread;
	void (*watch_fn)(void *ctx, const char *name);
	void *watch_ctx;
};
#define FAKE_MAGIC 0x66616b31u

struct fake *fake_of(struct hyper *h);
/* The three want f->lock. */
struct fake_machine **fake_find(struct fake *f, const char *name);
int fake_store(struct fake *f, const struct fake_machine *m);
void fake_refresh_rules(struct fake *f);

int fake_disk_attach(struct hyper *h, const char *name, const struct hyper_disk *d,
		     struct error *e);
int fake_disk_detach(struct hyper *h, const char *name, const char *serial, bool force,
		     struct error *e);
int fake_disk_list(struct hyper *h, const char *name, struct arena *a,
		   struct hyper_disk_status **ret, size_t *ret_count, struct error *e);

#endif
