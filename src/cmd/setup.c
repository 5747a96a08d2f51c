/* SPDX-License-Identifier: Apache-2.0 */
#include "cmd/setup.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/id.h"
#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "cmd/pool_disks.h"
#include "cmd/service.h"
#include "net/net.h"
#include "os/file.h"
#include "os/privs.h"
#include "tls/tls.h"

/* Folders of the state, and whose they are. Guests' QEMU must be able to walk through nc/. */
static const struct folder {
	const char *name;
	mode_t mode;
	bool services; /* owned by the services' user; else by root */
} folders[] = {
    {"bin", 0755, false}, {"certs", 0755, false}, {"clc", 0700, true},
    {"cc", 0700, true},	  {"walrus", 0700, true}, {"nc", 0755, false},
    {"sc", 0711, true},	  {"log", 0755, false},	  {"run", 0755, false},
    {"keys", 0700, false},
};

/* What runs besides the services: what starts them, and what nc and sc start for each volume. */
static const char *const other_programs[] = {"mallee", "mallee-blockd", "mallee-snapshotd"};

static void new_cloud_id(char out[static 5])
{
	static const char letters[] = "abcdefghijkmnpqrstuvwxyz23456789";
	unsigned char random[4];

	random_bytes(random, sizeof(random));
	out[0] = letters[random[0] % 24]; /* a letter first */
	for (int i = 1; i < 4; i++)
		out[i] = letters[random[i] % 32];
	out[4] = '\0';
}

int setup_settings(struct settings *s, struct error *e)
{
	char id[5], subnet[64];
	int r = 0;

	if (!*settings_get(s, SETTING_CLOUD_ID)) {
		new_cloud_id(id);
		r = settings_set(s, SETTING_CLOUD_ID, id, e);
	}
	if (r == 0 && !*settings_get(s, SETTING_SUBNET)) {
		r = net_choose_subnet(subnet, sizeof(subnet), e);
		if (r == 0)
			r = settings_set(s, SETTING_SUBNET, subnet, e);
	} else if (r == 0 && !is_fake(s)) {
		r = net_check_subnet(settings_get(s, SETTING_SUBNET),
				     settings_get(s, SETTING_CLOUD_ID), e);
	}
	/* A name that the host changes later would make this node another one. */
	if (r == 0)
		r = settings_set(s, SETTING_NODE_ID, settings_get(s, SETTING_NODE_ID), e);
	if (r == 0) {
		r = dir_make(settings_get(s, SETTING_STATE), 0755);
		if (r < 0)
			return error_errno(e, r, "Cannot make the state folder %s",
					   settings_get(s, SETTING_STATE));
		r = settings_save(s, e);
	}
	return r;
}

static int service_user(const struct settings *s, uid_t *ret_uid, gid_t *ret_gid, struct error *e)
{
	int r;

	*ret_uid = geteuid();
	*ret_gid = getegid();
	if (*ret_uid != 0 || is_fake(s))
		return 0;
	r = privs_lookup_user(SERVICE_USER, ret_uid, ret_gid);
	return r < 0 ? error_errno(e, r, "There is no user " SERVICE_USER) : 0;
}

static int make_folders(struct settings *s, uid_t uid, gid_t gid, struct error *e)
{
	for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
		_cleanup_(freep) char *path = settings_path(s, "%s", folders[i].name);
		int r = dir_make(path, folders[i].mode);

		if (r < 0)
			return error_errno(e, r, "Cannot make %s", path);
		if (geteuid() == 0 && folders[i].services && chown(path, uid, gid) < 0)
			return error_errno(e, errno, "Cannot give %s to its user", path);
	}
	return 0;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

static int copy_program(const char *from, const char *to)
{
	_cleanup_(fd_closep) int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
	_cleanup_(freep) char *tmp = NULL;
	struct stat st, old;

	if (in < 0 || fstat(in, &st) < 0)
		return -errno;
	if (stat(to, &old) == 0 && same_file(&st, &old))
		return 0;
	if (asprintf(&tmp, "%s.new", to) < 0)
		abort();
	unlink(tmp);
	out = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0755);
	if (out < 0)
		return -errno;
	for (off_t left = st.st_size; left > 0;) {
		ssize_t n = sendfile(out, in, NULL, (size_t)left);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		left -= n;
	}
	if (fchmod(out, 0755) < 0 ||
	    futimens(out, (struct timespec[2]){st.st_mtim, st.st_mtim}) < 0 || fsync(out) < 0 ||
	    rename(tmp, to) < 0)
		return -errno;
	return 0;
}

/* The services run from copies: their users may not be able to walk to the build folder, and a
 * build must not change what runs. */
static int copy_programs(struct settings *s, struct error *e)
{
	_cleanup_(freep) char *dir = program_dir();
	_cleanup_(freep) char *target = settings_path(s, "bin");

	if (str_eq(dir, target))
		return 0;
	for (size_t i = 0; i < SERVICE_COUNT + ARRAY_SIZE(other_programs); i++) {
		const char *name = i < SERVICE_COUNT ? services[i].program
						     : other_programs[i - SERVICE_COUNT];
		_cleanup_(freep) char *from = NULL, *to = settings_path(s, "bin/%s", name);
		int r;

		if (asprintf(&from, "%s/%s", dir, name) < 0)
			abort();
		r = copy_program(from, to);
		if (r < 0)
			return error_errno(e, r, "Cannot copy %s to %s", from, to);
	}
	return 0;
}

static int give_key(struct settings *s, enum tls_role role, uid_t uid, gid_t gid, struct error *e)
{
	_cleanup_(freep) char *key = settings_path(s, "certs/%s.key", tls_role_name(role));

	if (geteuid() == 0 && chown(key, uid, gid) < 0)
		return error_errno(e, errno, "Cannot give %s to its user", key);
	return 0;
}

static int issue_certificates(struct settings *s, uid_t uid, gid_t gid, struct error *e)
{
	_cleanup_(freep) char *dir = settings_path(s, "certs");
	int r = tls_ca_init(dir, settings_get(s, SETTING_CLOUD_ID), e);

	for (size_t i = 0; i < SERVICE_COUNT && r == 0; i++) {
		const struct service *svc = &services[i];
		const char *id =
		    svc->role == TLS_ROLE_NC ? settings_get(s, SETTING_NODE_ID) : svc->name;

		r = tls_issue(dir, svc->role, id, NULL, e);
		if (r == 0)
			r = give_key(s, svc->role, svc->as_root ? 0 : uid, svc->as_root ? 0 : gid,
				     e);
	}
	if (r == 0)
		r = tls_issue(dir, TLS_ROLE_OPERATOR, "operator", NULL, e);
	return r;
}

int setup_state(struct settings *s, struct error *e)
{
	uid_t uid;
	gid_t gid;
	int r = service_user(s, &uid, &gid, e);

	if (r == 0)
		r = make_folders(s, uid, gid, e);
	if (r == 0)
		r = pool_disks_give(s, uid, gid, e);
	if (r == 0)
		r = copy_programs(s, e);
	if (r == 0)
		r = issue_certificates(s, uid, gid, e);
	return r;
}
