/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a volume is made of. Its folder, volumes/ID, has data.raw (its data; with a whole disk only its length counts), cow.map (what of
 * it is in data.raw; the rest reads from its source) and changes.map with a second half (what changed since the last snapshot); of one on a
 * disk also a link to the device, for who takes the cloud away.
 * They are made here, empty, so that whoever serves the volume may be given them: in a folder of ours it can make none.
 *
 * The strings that are told of a volume depend on its id, source and device alone: who opens it again gets the same ones.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/text.h"
#include "os/file.h"
#include "svc/sc/sc_priv.h"

#define START_MS 10000 /* it goes on trying behind that */
#define STOP_MS 60000

static const char *const files[] = { "data.raw", "cow.map", "changes.map", "changes.map.2" };

void sc_volume_path(const struct sc *sc, const char *id, const char *file, char *out, size_t size)
{
	snprintf(out, size, "%s/volumes/%s%s%s", sc->dir, id, file ? "/" : "", file ? file : "");
}

static int make_file(const char *path, int64_t size_bytes, struct error *e)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return error_errno(e, errno, "making %s", path);
	if (st.st_size < size_bytes && (ftruncate(fd, size_bytes) || fsync(fd)))
		return error_errno(e, errno, "making %s with %lld bytes", path, (long long)size_bytes);
	return 0;
}

int sc_make_files(struct sc *sc, const char *id, int64_t size_bytes, struct error *e)
{
	char folder[4096], path[4096];
	int r;

	sc_volume_path(sc, id, NULL, folder, sizeof(folder));
	r = mkdir(folder, 0711) && errno != EEXIST ? -errno : 0;
	if (!r && chmod(folder, 0711))
		r = -errno;
	if (r)
		return error_errno(e, r, "making %s", folder);
	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(files); i++) {
		sc_volume_path(sc, id, files[i], path, sizeof(path));
		r = make_file(path, i == 0 ? size_bytes : 0, e);
	}
	if (r == 0) {
		r = dir_sync(folder);
		if (r < 0)
			error_errno(e, r, "making %s", folder);
	}
	return r;
}

int sc_link_device(struct sc *sc, const char *id, const char *device, struct error *e)
{
	char path[4096];

	sc_volume_path(sc, id, "device", path, sizeof(path));
	if (symlink(device, path) && errno != EEXIST)
		return error_errno(e, errno, "making %s", path);
	return 0;
}

int sc_remove_files(struct sc *sc, const char *id, struct error *e)
{
	char folder[4096];

	sc_volume_path(sc, id, NULL, folder, sizeof(folder));
	int r = dir_remove(folder);
	return r ? error_errno(e, r, "removing %s", folder) : 0;
}

int sc_grow_file(struct sc *sc, const char *id, int64_t size_bytes, struct error *e)
{
	char path[4096];

	sc_volume_path(sc, id, "data.raw", path, sizeof(path));
	return make_file(path, size_bytes, e);
}

/* ---- limits ---- */

static void print_limit(char *out, size_t size, const char *name, int64_t rate, int64_t burst, int64_t seconds)
{
	bool bursts = rate > 0 && burst > rate && seconds > 0;
	int64_t saved = bursts ? (burst - rate) * seconds : 0; /* it melts at the difference */

	snprintf(out, size, "%s=%lld,%s-peak=%lld,%s-burst=%lld", name, (long long)rate, name, (long long)(bursts ? burst : 0), name,
		 (long long)saved);
}

void sc_print_throttle(const struct storage_volume_limits *l, char out[static SC_THROTTLE_MAX])
{
	static const struct storage_volume_limits none;
	char iops[100], bps[120];

	/* All is said, also what is unlimited: set again, it replaces whatever held before. */
	l = l ? l : &none;
	print_limit(iops, sizeof(iops), "iops", l->iops.value, l->burst_iops.value, l->burst_seconds.value);
	print_limit(bps, sizeof(bps), "bps", l->bytes_per_second.value, l->burst_bytes_per_second.value, l->burst_seconds.value);
	snprintf(out, SC_THROTTLE_MAX, "%s,%s,io-bytes=%lld", iops, bps, (long long)(l->io_bytes.value >= 512 ? l->io_bytes.value : 262144));
}

/* ---- the stack ---- */

/* A value inside an option: its commas twice, and once more for each list that it lies in. */
static const char *quote(struct arena *a, const char *value, int times)
{
	_cleanup_(buf_done) struct buf out = BUF_INIT;

	for (const char *c = value; *c; c++) {
		for (int i = 0; i < (*c == ',' ? 1 << times : 1); i++)
			buf_putc(&out, *c);
	}
	return arena_strdup(a, out.data ? out.data : "");
}

static const char *path_of(struct sc *sc, struct arena *a, const char *id, const char *file)
{
	char path[4096];

	sc_volume_path(sc, id, file, path, sizeof(path));
	return arena_strdup(a, path);
}

static const char *cow_options(struct sc *sc, struct arena *a, const char *id, const char *snapshot)
{
	const char *map = quote(a, path_of(sc, a, id, "cow.map"), 1);
	char socket[4096];

	if (!snapshot)
		return arena_printf(a, "source=zero,map=%s", map);
	sc_export_socket(sc, snapshot, socket, sizeof(socket));
	return arena_printf(a, "source=nbd:socket=%s,source-id=%s,map=%s", quote(a, socket, 2), snapshot, map);
}

void sc_describe_stack(struct sc *sc, struct arena *a, const char *id, const char *device, const char *snapshot, struct sc_stack *ret)
{
	const char *data = path_of(sc, a, id, "data.raw");
	const char **list = arena_new_array(a, const char *, ARRAY_SIZE(files) + 2);
	size_t n = 0;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++)
		list[n++] = path_of(sc, a, id, files[i]);
	if (*device)
		list[n++] = arena_strdup(a, device);
	ret->files = list;
	ret->back = *device ? arena_printf(a, "file:path=%s,size-of=%s", quote(a, device, 1), quote(a, data, 1)) :
			      arena_printf(a, "file:path=%s%s", quote(a, data, 1), sc->direct ? "" : ",direct=off");
	ret->snap = arena_printf(a, "map=%s", quote(a, path_of(sc, a, id, "changes.map"), 1));
	ret->cow = cow_options(sc, a, id, snapshot);
}

/* ---- our own process ---- */

void sc_serve_socket(const struct sc *sc, const char *id, char *out, size_t size)
{
	snprintf(out, size, "%s/served/%s/nbd.sock", sc->dir, id);
}

int sc_serve(struct sc *sc, const char *id, const struct sc_volume_record *rec, const char *snapshot, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	char socket[4096], key[4096];
	const char *args[16];
	size_t n = 0;
	struct sc_stack s;
	int r = rec->key_id[0] ? sc_key_file(sc, id, rec, key, sizeof(key), e) : 0;

	if (r)
		return r;
	sc_describe_stack(sc, a, id, rec->device, snapshot, &s);
	sc_serve_socket(sc, id, socket, sizeof(socket));
	args[n++] = "--filter";
	args[n++] = arena_printf(a, "snap:%s", s.snap);
	args[n++] = "--filter";
	args[n++] = arena_printf(a, "cow:%s%s", s.cow, sc->fake ? ",fill=off" : ""); /* thousands of fake volumes stay sparse */
	if (rec->key_id[0]) {
		args[n++] = "--filter";
		args[n++] = arena_printf(a, "crypt:key-file=%s", quote(a, key, 1));
	}
	args[n++] = "--back";
	args[n++] = s.back;
	args[n++] = "--front";
	args[n++] = arena_printf(a, "nbd:socket=%s,read-only=on", quote(a, socket, 1));
	args[n] = NULL;
	return sc_keep(sc->volumes, &(struct keeper_volume){ .id = id, .uid = geteuid(), .gid = getegid(), .args = args }, START_MS, e);
}

int sc_serve_end(struct sc *sc, const char *id, struct error *e)
{
	int r = keeper_stop(sc->volumes, id, STOP_MS, e);

	if (r == 0 || r == -ETIMEDOUT)
		sc_key_drop(sc, id);
	return r;
}

int sc_keep(struct keeper *k, const struct keeper_volume *v, int timeout_ms, struct error *e)
{
	struct error why = { 0 };
	int r = keeper_start(k, v, timeout_ms, &why);

	if (r == -EEXIST) { /* an older release asked for another stack: who reads from it waits, and connects again */
		error_clear(&why);
		r = keeper_stop(k, v->id, STOP_MS, &why);
		if (r == 0)
			r = keeper_start(k, v, timeout_ms, &why);
	}
	if (r && e)
		*e = why;
	return r;
}

bool sc_keeps(struct keeper *k, const char *id)
{
	size_t max = keeper_list(k, NULL, 0) + 16;
	struct keeper_status *list = calloc(max, sizeof(*list));
	bool found = false;

	if (!list)
		abort();
	size_t n = MIN_OF(keeper_list(k, list, max), max);
	for (size_t i = 0; i < n; i++)
		found |= str_eq(list[i].id, id);
	free(list);
	return found;
}
