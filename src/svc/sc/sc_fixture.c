/* SPDX-License-Identifier: Apache-2.0 */
#include "svc/sc/sc_fixture.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "block/back/back.h"
#include "block/core/testkit.h"
#include "gen/volume_rpc.h"
#include "os/file.h"
#include "svc/sc/snap_reader.h"

#define PATIENCE_MS 30000

/* ---- the node's double ---- */

static int ask(struct sc_fixture *f, const char *volume, const char *line, json_t **ret, struct error *e)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;

	if (f->node_mute)
		return error_set(e, "ServiceUnavailable", "the node is mute");
	int r = keeper_command(f->node, volume, line, 20000, &reply, e);
	if (r == -ENOENT || r == -ECONNREFUSED) {
		error_clear(e);
		return error_set(e, "VolumeNotOpen", "Volume %s is not open on this node", volume);
	}
	if (r == 0)
		*ret = json_loads(reply.data, 0, NULL);
	return r;
}

int volume_begin_view(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_begin_view_request *in,
		      struct volume_begin_view_response *out, struct error *e)
{
	struct sc_fixture *f = ctx;
	json_t *j = NULL;
	int r = ask(f, in->volume_id,
		    arena_printf(a, "snap begin name=%s,scratch=%s/node/%s/scratch-%s,scratch-size=%lld", in->name, f->dir, in->volume_id, in->name,
				 (long long)in->scratch_bytes.value), &j, e);

	if (r)
		return r;
	f->begins++;
	*out = (struct volume_begin_view_response){
		.socket = arena_printf(a, "%s/node/%s/nbd.sock", f->dir, in->volume_id),
		.export = arena_printf(a, "snap/%s", in->name),
		.base = arena_strdup(a, json_string_value(json_object_get(j, "base"))),
	};
	json_decref(j);
	r = ask(f, in->volume_id, "info", &j, e);
	out->size_bytes = WIRE_INT_OF(json_integer_value(json_object_get(j, "size_bytes")));
	json_decref(j);
	return r;
}

int volume_end_view(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_end_view_request *in,
		    struct volume_end_view_response *out, struct error *e)
{
	struct sc_fixture *f = ctx;
	json_t *j = NULL;
	int r = ask(f, in->volume_id, arena_printf(a, "snap end name=%s,commit=%s,force=on", in->name, in->commit.value ? "on" : "off"), &j, e);

	f->ends += r == 0;
	if (r && strstr(e->message, "there is no view")) {
		error_clear(e);
		r = ask(f, in->volume_id, "snap status", &j, e);
	}
	if (r == 0)
		out->base = arena_strdup(a, json_string_value(json_object_get(j, "base")));
	json_decref(j);
	if (r == 0 && in->commit.value && f->lose_ends) {
		f->lose_ends--;
		return error_set(e, "ServiceUnavailable", "the answer was lost");
	}
	return r;
}

static int describe(struct sc_fixture *f, const char *volume, struct volume_describe_volume_response *out, struct error *e)
{
	json_t *j = NULL;
	int r = ask(f, volume, "cow status", &j, e);

	out->size_bytes = WIRE_INT_OF(json_integer_value(json_object_get(j, "size_bytes")));
	out->filled_bytes = WIRE_INT_OF(json_integer_value(json_object_get(j, "filled_bytes")));
	out->complete = WIRE_BOOL_OF(str_eq(json_string_value(json_object_get(j, "state")), "complete"));
	json_decref(j);
	return r;
}

int volume_change_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_change_volume_request *in,
			 struct volume_describe_volume_response *out, struct error *e)
{
	struct sc_fixture *f = ctx;
	json_t *j = NULL;
	int r = 0;

	if (in->size_bytes.set)
		r = ask(f, in->volume_id, arena_printf(a, "resize %lld", (long long)in->size_bytes.value), &j, e);
	json_decref(TAKE_PTR(j));
	if (r == 0 && in->throttle)
		r = ask(f, in->volume_id, arena_printf(a, "throttle set %s", in->throttle), &j, e);
	json_decref(j);
	f->changes += r == 0;
	return r ? r : describe(f, in->volume_id, out, e);
}

int volume_describe_volume(void *ctx, struct arena *a, const struct tls_identity *peer, const struct volume_describe_volume_request *in,
			   struct volume_describe_volume_response *out, struct error *e)
{
	return describe(ctx, in->volume_id, out, e);
}

static void start_node(struct sc_fixture *f)
{
	const struct rpc_binding binding = { .service = &volume_service, .handlers = volume_rpc_handlers, .ctx = f };
	_cleanup_(freep) char *run = NULL, *log = NULL;
	struct error e = { 0 };

	if (asprintf(&run, "%s/node", f->dir) < 0 || asprintf(&log, "%s/log", f->dir) < 0)
		abort();
	dir_make(run, 0755);
	dir_make(log, 0755);
	if (keeper_new(&(struct keeper_settings){ .program = f->blockd, .run_dir = run, .log_dir = log }, &f->node, &e) ||
	    rpc_server_start(&binding, 1, "127.0.0.1", 0, f->node_tls, &f->node_rpc, &e))
		fail_msg("%s", e.message);
	snprintf(f->node_url, sizeof(f->node_url), "https://127.0.0.1:%u", rpc_server_port(f->node_rpc));
}

/* ---- snapshots as files ---- */

static void read_ended(struct snap_read *read)
{
	atomic_store((_Atomic bool *)read->ctx, true);
}

static int read_whole(struct snap_store *store, const char *id, uint64_t size, void *data)
{
	struct snap_reader_config c = { .snapshot = id, .readahead = -1 };
	struct snap_reader *r;
	struct error e = { 0 };
	int err = snap_reader_open(store, &c, &r, &e);

	if (err)
		return err;
	err = snap_reader_size(r) == size ? 0 : -EINVAL;
	for (uint64_t off = 0; off < size && !err; off += MIB) {
		struct iovec iov = { (char *)data + off, MIN_OF(MIB, size - off) };
		_Atomic bool ended = false;
		struct snap_read read = { .off_bytes = off, .len_bytes = iov.iov_len, .iov = &iov, .iov_count = 1, .done = read_ended,
					  .ctx = (void *)&ended };
		if (!snap_reader_read(r, &read)) {
			while (!ended)
				usleep(100);
		}
		err = read.result;
	}
	snap_reader_close(r);
	return err;
}

static char *export_back(struct sc *sc, const char *snapshot)
{
	struct snap_info info;
	struct error e = { 0 };
	char *spec, path[4096];
	_cleanup_(fd_closep) int fd = -1;

	snprintf(path, sizeof(path), "%s/%s.copy", sc->dir, snapshot);
	if (asprintf(&spec, "file:path=%s,read-only=on,direct=off", path) < 0)
		abort();
	if (access(path, F_OK) == 0)
		return spec;
	if (snap_info(sc->store, snapshot, &info, &e))
		return spec;
	_cleanup_(freep) char *data = malloc(info.size_bytes);
	if (read_whole(sc->store, snapshot, info.size_bytes, data)) /* it is just being stopped */
		return spec;
	fd = open(path, O_RDWR | O_CREAT, 0644);
	if (fd_pwrite_all(fd, data, info.size_bytes, 0))
		abort();
	return spec;
}

/* ---- starting ---- */

static bool port_free(int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	_cleanup_(fd_closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int));
	return fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
}

static int free_ports(void)
{
	for (int i = 0; i < 300; i++) {
		int base = 12000 + (getpid() + i) % 300 * 30;
		if (port_free(base + PORT_SC) && port_free(base + PORT_OPS_SC))
			return base;
	}
	fail_msg("no free ports");
	return -1;
}

static void make_settings(struct sc_fixture *f, const char *hypervisor)
{
	_cleanup_(freep) char *certs = NULL, *bin = NULL, *program = NULL, *snapshotd = NULL;
	struct error e = { 0 };
	char port[16];

	snprintf(port, sizeof(port), "%d", free_ports());
	setenv("MALLEE_STATE", f->dir, 1);
	setenv("MALLEE_HYPERVISOR", hypervisor, 1);
	setenv("MALLEE_PORT_BASE", port, 1);
	if (asprintf(&certs, "%s/certs", f->dir) < 0 || asprintf(&bin, "%s/bin", f->dir) < 0 ||
	    asprintf(&program, "%s/mallee-blockd", bin) < 0 || asprintf(&snapshotd, "%s/mallee-snapshotd", bin) < 0)
		abort();
	dir_make(certs, 0755);
	dir_make(bin, 0755);
	if (symlink(f->blockd, program) || symlink(f->blockd, snapshotd))
		abort();
	if (tls_ca_init(certs, "sctest", &e) < 0 || tls_issue(certs, TLS_ROLE_SC, "sc", (const char *const[]){ NULL }, &e) < 0 ||
	    tls_issue(certs, TLS_ROLE_NC, "n1", (const char *const[]){ NULL }, &e) < 0 || tls_context_load(certs, TLS_ROLE_NC, &f->node_tls, &e) < 0 ||
	    settings_load(&f->settings, &e) < 0)
		fail_msg("%s", e.message);
}

void sc_fixture_start(struct sc_fixture *f)
{
	struct error e = { 0 };

	f->sc = sc_new();
	f->sc->export_back = export_back;
	f->sc->objects = bucket_objects(&f->bucket);
	f->sc->store = snap_store_open(f->sc->objects);
	if (sc_begin(f->sc, f->settings, &e) < 0)
		fail_msg("%s", e.message);
}

void sc_fixture_restart(struct sc_fixture *f)
{
	sc_stop(f->sc);
	sc_fixture_start(f);
}

struct sc_fixture *sc_fixture_new(const char *blockd, const char *hypervisor)
{
	struct sc_fixture *f = calloc(1, sizeof(*f));

	if (!f)
		abort();
	log_init("sc", getenv("SC_TEST_LOG") ? LOG_LEVEL_DEBUG : (enum log_level)(LOG_LEVEL_ERROR + 1));
	f->blockd = realpath(blockd, NULL);
	assert_non_null(f->blockd);
	strcpy(f->dir, "/var/tmp/mallee-sc-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	f->arena = arena_new();
	bucket_init(&f->bucket, 1);
	make_settings(f, hypervisor);
	start_node(f);
	sc_fixture_start(f);
	return f;
}

static void end_processes(const char *dir, const char *folder)
{
	char path[4096];
	unsigned count;

	snprintf(path, sizeof(path), "%s/%s", dir, folder);
	keeper_end_all(path, 10000, &count, NULL);
}

void sc_fixture_free(struct sc_fixture *f)
{
	sc_stop(f->sc);
	rpc_server_stop(f->node_rpc);
	keeper_free(f->node);
	end_processes(f->dir, "node");
	end_processes(f->dir, "sc/served");
	end_processes(f->dir, "sc/exports");
	bucket_done(&f->bucket);
	tls_context_free(f->node_tls);
	settings_free(f->settings);
	dir_remove(f->dir);
	arena_free(f->arena);
	free((char *)f->blockd);
	free(f);
}

/* ---- wanted ---- */

static void apply(struct sc_fixture *f, struct storage_apply_storage_request *in)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct storage_apply_storage_response out = { 0 };
	struct error e = { 0 };

	if (storage_apply_storage(f->sc, a, NULL, in, &out, &e) < 0)
		fail_msg("%s", e.message);
	assert_string_equal(out.epoch, f->sc->epoch);
}

void fix_volume(struct sc_fixture *f, const struct fix_volume *v)
{
	struct storage_volume_attachment at = { .instance_id = v->instance, .node_id = "n1", .generation = WIRE_INT_OF(v->attachment) };
	struct storage_volume_limits limits = { .iops = WIRE_INT_OF(v->iops) };
	struct storage_volume_spec spec = { .volume_id = v->id, .generation = WIRE_INT_OF(++f->generation),
					    .wanted = v->deleted ? "deleted" : "available", .account_id = "1",
					    .size_bytes = WIRE_INT_OF((int64_t)v->size_bytes), .snapshot_id = v->snapshot, .volume_type = "gp3",
					    .limits = &limits, .attachment = v->instance ? &at : NULL };
	struct storage_apply_storage_request in = { .volumes = { .set = true, .count = 1, .items = &spec } };

	apply(f, &in);
}

void fix_snapshot(struct sc_fixture *f, const struct fix_snapshot *s)
{
	struct storage_snapshot_import import = { .url = s->url, .sha256 = s->sha256 };
	struct storage_snapshot_spec spec = { .snapshot_id = s->id, .generation = WIRE_INT_OF(++f->generation),
					      .wanted = s->deleted ? "deleted" : "completed", .account_id = "1", .volume_id = s->volume,
					      .copy_of = s->copy_of, .import = s->url ? &import : NULL };
	struct storage_apply_storage_request in = { .snapshots = { .set = true, .count = 1, .items = &spec } };

	apply(f, &in);
}

void fix_forget(struct sc_fixture *f, const char *volume, const char *snapshot)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	struct storage_forget_storage_request in = { 0 };
	struct error e = { 0 };

	if (volume)
		in.volume_ids.count = 1;
	in.volume_ids.items = (void *)&volume;
	if (snapshot)
		in.snapshot_ids.count = 1;
	in.snapshot_ids.items = (void *)&snapshot;
	assert_int_equal(storage_forget_storage(f->sc, a, NULL, &in, &e), 0);
}

/* ---- what is ---- */

static struct storage_describe_storage_response *look(struct sc_fixture *f)
{
	struct storage_describe_storage_response *out = arena_new_struct(f->arena, struct storage_describe_storage_response);
	struct storage_describe_storage_request in = { 0 };
	struct error e = { 0 };

	assert_int_equal(storage_describe_storage(f->sc, f->arena, NULL, &in, out, &e), 0);
	return out;
}

const char *fix_volume_state(struct sc_fixture *f, const char *id, struct storage_volume_observed *ret)
{
	struct storage_describe_storage_response *d = look(f);

	for (size_t i = 0; i < d->volumes.count; i++) {
		if (!str_eq(d->volumes.items[i].volume_id, id))
			continue;
		if (ret)
			*ret = d->volumes.items[i];
		return d->volumes.items[i].state;
	}
	return "";
}

const char *fix_snapshot_state(struct sc_fixture *f, const char *id, struct storage_snapshot_observed *ret)
{
	struct storage_describe_storage_response *d = look(f);

	for (size_t i = 0; i < d->snapshots.count; i++) {
		if (!str_eq(d->snapshots.items[i].snapshot_id, id))
			continue;
		if (ret)
			*ret = d->snapshots.items[i];
		return d->snapshots.items[i].state;
	}
	return "";
}

bool fix_until(bool (*fn)(struct sc_fixture *f, const void *arg), struct sc_fixture *f, const void *arg)
{
	int64_t end = clock_mono_ms() + PATIENCE_MS;

	while (!fn(f, arg)) {
		if (clock_mono_ms() > end)
			return false;
		usleep(5000);
	}
	return true;
}

void fix_await_volume(struct sc_fixture *f, const char *id, const char *state)
{
	struct storage_volume_observed v = { 0 };
	int64_t end = clock_mono_ms() + PATIENCE_MS;

	while (!str_eq(fix_volume_state(f, id, &v), state)) {
		if (clock_mono_ms() > end)
			fail_msg("%s is %s, not %s: %s", id, v.state, state, v.reason ? v.reason : "");
		usleep(5000);
	}
}

void fix_await_snapshot(struct sc_fixture *f, const char *id, const char *state)
{
	struct storage_snapshot_observed s = { 0 };
	int64_t end = clock_mono_ms() + PATIENCE_MS;

	while (!str_eq(fix_snapshot_state(f, id, &s), state)) {
		if (clock_mono_ms() > end || (str_eq(s.state, "error") && str_eq(state, "completed")))
			fail_msg("%s is %s, not %s: %s", id, s.state, state, s.reason ? s.reason : "");
		usleep(5000);
	}
}

/* ---- the node as a caller ---- */

static const struct tls_identity n1 = { .role = TLS_ROLE_NC, .id = "n1" };

int fix_open(struct sc_fixture *f, const char *volume, const char *instance, int64_t generation, struct storage_open_volume_response *ret,
	     struct error *e)
{
	struct storage_open_volume_request in = { .volume_id = volume, .instance_id = instance, .node_id = "n1",
						  .generation = WIRE_INT_OF(generation), .node_url = f->node_url };

	return storage_open_volume(f->sc, f->arena, &n1, &in, ret, e);
}

void fix_attach(struct sc_fixture *f, const char *volume, const char *instance, int64_t generation)
{
	struct storage_open_volume_response out;
	int64_t end = clock_mono_ms() + PATIENCE_MS;
	struct error e = { 0 };
	struct arena *a = f->arena;

	while (fix_open(f, volume, instance, generation, &out, &e)) {
		if (!str_eq(e.code, "VolumeNotReady") || clock_mono_ms() > end)
			fail_msg("%s", e.message);
		error_clear(&e);
		usleep(10000);
	}
	for (size_t i = 0; i < out.files.count; i++)
		assert_int_equal(access(out.files.items[i], W_OK), 0);
	const char *const args[] = { "--filter", arena_printf(a, "throttle:%s", out.throttle), "--filter", arena_printf(a, "snap:%s", out.snap),
				     "--filter", arena_printf(a, "cow:%s", out.cow), "--back", out.back, "--front",
				     arena_printf(a, "nbd:socket=%s/node/%s/nbd.sock", f->dir, volume), NULL };
	if (keeper_start(f->node, &(struct keeper_volume){ .id = volume, .uid = geteuid(), .gid = getegid(), .args = args }, PATIENCE_MS, &e))
		fail_msg("%s", e.message);
}

void fix_detach(struct sc_fixture *f, const char *volume, int64_t generation)
{
	struct storage_volume_holder in = { .volume_id = volume, .node_id = "n1", .generation = WIRE_INT_OF(generation) };
	int64_t end = clock_mono_ms() + PATIENCE_MS;
	struct error e = { 0 };

	while (storage_release_volume(f->sc, f->arena, &n1, &in, &e)) {
		if (!str_eq(e.code, "VolumeBusy") || clock_mono_ms() > end)
			fail_msg("%s", e.message);
		error_clear(&e);
		usleep(10000);
	}
	if (keeper_stop(f->node, volume, PATIENCE_MS, &e) || storage_close_volume(f->sc, f->arena, &n1, &in, &e))
		fail_msg("%s", e.message);
}

void fix_kill(struct sc_fixture *f, const char *volume)
{
	struct keeper_status list[16];
	size_t n = keeper_list(f->node, list, 16);

	for (size_t i = 0; i < n; i++) {
		if (str_eq(list[i].id, volume) && list[i].pid)
			kill(list[i].pid, SIGKILL);
	}
}

static void io(struct sc_fixture *f, const char *volume, enum blk_op op, uint64_t off, void *data, size_t len)
{
	static const struct blk_layer_ops *const drivers[] = { &blk_nbd_ops, NULL };
	struct blk_stack *s = NULL;
	struct error e = { 0 };
	char back[256];

	snprintf(back, sizeof(back), "nbd:socket=%s/node/%s/nbd.sock", f->dir, volume);
	struct blk_stack_settings settings = { .drivers = drivers, .back = back, .queues = 1 };
	for (int tries = 0; blk_stack_open(&settings, &s, &e); tries++) {
		if (tries > 500)
			fail_msg("%s", e.message);
		error_clear(&e);
		usleep(10000); /* its process was killed, and comes again */
	}
	while (len) {
		size_t part = MIN_OF(len, (size_t)MIB);
		assert_int_equal(kit_io(s, op, 0, off, data, part), 0);
		data = (char *)data + part;
		off += part;
		len -= part;
	}
	blk_stack_close(s, &e);
}

void fix_write(struct sc_fixture *f, const char *volume, uint64_t off, const void *data, size_t len)
{
	io(f, volume, BLK_WRITE, off, (void *)data, len);
}

void fix_read(struct sc_fixture *f, const char *volume, uint64_t off, void *data, size_t len)
{
	io(f, volume, BLK_READ, off, data, len);
}

/* ---- what is stored ---- */

void fix_read_snapshot(struct sc_fixture *f, const char *id, uint64_t size, void *data)
{
	assert_int_equal(read_whole(f->sc->store, id, size, data), 0);
}
