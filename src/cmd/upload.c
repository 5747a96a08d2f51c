/* SPDX-License-Identifier: Apache-2.0 */
/* From a file to a registered image: convert, upload in parts, import as a snapshot, register, wait. */
#include "cmd/upload.h"

#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/text.h"
#include "cmd/cmd_priv.h"
#include "os/file.h"
#include "os/spawn.h"

#define PART_BYTES (64u << 20) /* S3 allows 10,000 parts: images of up to 640 GB */
#define BUCKET "mallee-images"
#define AVAILABLE_TIMEOUT_MS 600000
#define IMPORT_TIMEOUT_MS 3600000
#define ROOT_DEVICE "/dev/sda1"
#define MD5_LEN 16

static void progress(const struct import *i, const char *what, uint64_t done, uint64_t total)
{
	if (i->quiet)
		return;
	if (isatty(STDOUT_FILENO))
		printf("\r  %s %s: %d%%%s", what, i->name, total ? (int)(done * 100 / total) : 100,
		       done == total ? "\n" : "");
	else if (done == total)
		printf("  %s %s: done\n", what, i->name);
	fflush(stdout);
}

/* One part, whose ETag is its MD5 by S3's rules, appended to the list that completes the upload. */
static int upload_part(struct client *c, const char *object, const char *upload_id, int number,
		       const void *data, size_t len, struct buf *list, struct error *e)
{
	unsigned char md5[MD5_LEN];
	char hex[2 * MD5_LEN + 1];
	char path[512];

	if (gnutls_hash_fast(GNUTLS_DIG_MD5, data, len, md5) < 0)
		return error_set(e, "InternalError",
				 "GnuTLS computes no MD5 here, which S3's ETags need");
	hex_encode(md5, sizeof(md5), hex);
	buf_printf(list, "<Part><PartNumber>%d</PartNumber><ETag>\"%s\"</ETag></Part>", number,
		   hex);
	snprintf(path, sizeof(path), "%s?partNumber=%d&uploadId=%s", object, number, upload_id);
	return client_s3(c, "PUT", path, data, len, NULL, e);
}

static int upload_parts(struct client *c, const struct import *i, const char *object,
			const char *upload_id, const char *data, uint64_t size, struct error *e)
{
	_cleanup_(buf_done) struct buf list = BUF_INIT;
	char path[512];
	int number = 1, r;

	buf_puts(&list, "<CompleteMultipartUpload>");
	for (uint64_t off = 0; off < size; off += PART_BYTES, number++) {
		size_t len = (size_t)MIN_OF((uint64_t)PART_BYTES, size - off);

		r = upload_part(c, object, upload_id, number, data + off, len, &list, e);
		if (r < 0)
			return r;
		progress(i, "uploading", off + len, size);
	}
	buf_puts(&list, "</CompleteMultipartUpload>");
	snprintf(path, sizeof(path), "%s?uploadId=%s", object, upload_id);
	return client_s3(c, "POST", path, list.data, list.len, NULL, e);
}

static int make_bucket(struct client *c, struct error *e)
{
	struct error mine = {0};
	int r = client_s3(c, "PUT", "/" BUCKET, NULL, 0, NULL, &mine);

	if (r == 0 || str_eq(mine.code, "BucketAlreadyOwnedByYou"))
		return 0;
	return error_set(e, mine.code, "%s", mine.message);
}

static int start_upload(struct client *c, const char *object, char *upload_id, size_t size,
			struct error *e)
{
	_cleanup_(buf_done) struct buf reply = BUF_INIT;
	char path[512];
	const char *from, *to;
	int r;

	snprintf(path, sizeof(path), "%s?uploads", object);
	r = client_s3(c, "POST", path, NULL, 0, &reply, e);
	if (r < 0)
		return r;
	from = reply.data ? strstr(reply.data, "<UploadId>") : NULL;
	to = from ? strstr(from, "</UploadId>") : NULL;
	if (!to || (size_t)(to - from) >= size)
		return error_set(e, "InternalError",
				 "The object store began an upload without naming it");
	from += strlen("<UploadId>");
	snprintf(upload_id, size, "%.*s", (int)(to - from), from);
	return 0;
}

static int upload_mapped(struct client *c, const struct import *i, const char *object,
			 const char *data, uint64_t size, struct error *e)
{
	char upload_id[256], path[512];
	int r = start_upload(c, object, upload_id, sizeof(upload_id), e);

	if (r < 0)
		return r;
	r = upload_parts(c, i, object, upload_id, data, size, e);
	if (r < 0) {
		struct error ignored = {0};

		snprintf(path, sizeof(path), "%s?uploadId=%s", object, upload_id);
		client_s3(c, "DELETE", path, NULL, 0, NULL, &ignored);
	}
	return r;
}

static int upload(struct client *c, const struct import *i, const char *file, const char *object,
		  struct error *e)
{
	_cleanup_(fd_closep) int fd = open(file, O_RDONLY | O_CLOEXEC);
	struct stat st;
	char *data;
	int r;

	if (fd < 0 || fstat(fd, &st) < 0)
		return error_errno(e, errno, "Cannot read %s", file);
	if (st.st_size == 0 || st.st_size % 512)
		return error_set(
		    e, "InvalidImage",
		    "%s has %lld bytes: a disk has a multiple of 512, and more than none", file,
		    (long long)st.st_size);
	r = make_bucket(c, e);
	if (r < 0)
		return r;
	data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		return error_errno(e, errno, "Cannot map %s", file);
	madvise(data, (size_t)st.st_size, MADV_SEQUENTIAL);
	r = upload_mapped(c, i, object, data, (uint64_t)st.st_size, e);
	munmap(data, (size_t)st.st_size);
	return r;
}

static bool is_qcow2(const char *file)
{
	_cleanup_(fd_closep) int fd = open(file, O_RDONLY | O_CLOEXEC);
	char magic[4];

	return fd >= 0 && read(fd, magic, sizeof(magic)) == sizeof(magic) &&
	       !memcmp(magic, "QFI\xfb", sizeof(magic));
}

/*
 * A qcow2 image may name a backing file, or a file that holds its data, and qemu-img would read
 * these: an image from elsewhere could bring any file of this host into a guest. The header (of
 * QEMU's docs/interop/qcow2.txt, numbers big-endian): version at 4, offset of the backing file's
 * name at 8, and since version 3 the features that a reader must know at 72, where 4 is the data
 * file.
 */
static int check_alone(const char *file, struct error *e)
{
	_cleanup_(fd_closep) int fd = open(file, O_RDONLY | O_CLOEXEC);
	unsigned char h[80] = {0};
	uint64_t backing = 0;
	ssize_t n = fd < 0 ? -1 : pread(fd, h, sizeof(h), 0);

	if (n < 0)
		return error_errno(e, errno, "Cannot read %s", file);
	for (int i = 8; i < 16; i++)
		backing = backing << 8 | h[i];
	if (n == (ssize_t)sizeof(h) && !backing && (h[7] < 3 || !(h[79] & 4)))
		return 0;
	return error_set(e, "InvalidImage",
			 "%s is cut off, or names another file that holds its data: give it as one file "
			 "(qemu-img convert -O qcow2), if you trust where it is from",
			 file);
}

/* A qcow2 image as raw, in the cache folder; its format is given, never guessed. */
static int convert(const char *file, char **ret_raw, struct error *e)
{
	_cleanup_(freep) char *dir = cache_dir(), *raw = NULL;
	int r = check_alone(file, e);

	if (r < 0)
		return r;
	r = dir_make(dir, 0755);
	if (r < 0)
		return error_errno(e, r, "Cannot make %s", dir);
	if (asprintf(&raw, "%s/import-%d.raw", dir, (int)getpid()) < 0)
		abort();
	struct spawn s = {
	    .argv = (const char *const[]){"qemu-img", "convert", "-f", "qcow2", "-O", "raw", file,
					  raw, NULL},
	    .timeout_ms = 3600000,
	};
	r = spawn_run(&s, NULL, NULL, e);
	if (r < 0) {
		unlink(raw);
		return r;
	}
	*ret_raw = TAKE_PTR(raw);
	return 0;
}

static int wait_available(struct client *c, const char *image_id, struct error *e)
{
	int64_t until = clock_mono_ms() + AVAILABLE_TIMEOUT_MS;

	while (clock_mono_ms() < until) {
		_cleanup_(arena_freep) struct arena *a = arena_new();
		const char *ids[] = {image_id};
		struct ec2_describe_images_request in = {.image_ids = {true, 1, ids}};
		const struct ec2_describe_images_result *out;
		const struct ec2_image *image;
		void *reply;
		int r = client_ec2(c, "DescribeImages", &in, a, &reply, e);

		if (r < 0)
			return r;
		out = reply;
		image = out->images.count ? &out->images.items[0] : NULL;
		if (image && str_eq(image->state, "available"))
			return 0;
		if (image && str_eq(image->state, "failed"))
			return error_set(e, "ImageFailed", "The image %s could not be made: %s",
					 image_id,
					 image->state_reason && image->state_reason->message
					     ? image->state_reason->message
					     : "no reason given");
		usleep(200000);
	}
	return error_set(e, "TimedOut",
			 "The image %s is still pending after ten minutes; see clc.log", image_id);
}

static int make_public(struct client *c, const char *image_id, struct arena *a, struct error *e)
{
	struct ec2_launch_permission all = {.group = "all"};
	struct ec2_launch_permission_modifications changes = {.add = {true, 1, &all}};
	struct ec2_modify_image_attribute_request in = {.image_id = image_id,
							.launch_permission = &changes};

	return client_ec2(c, "ModifyImageAttribute", &in, a, NULL, e);
}

/* ---- from the object to an image ---- */

/* The root is a disk of the node's, which fetches the object. */
static int register_object(struct client *c, const struct import *i, const char *key,
			   struct arena *a, const char **ret_image_id, struct error *e)
{
	struct ec2_register_image_request in = {
	    .image_location = arena_printf(a, BUCKET "/%s", key),
	    .name = i->name,
	    .description = i->description,
	    .architecture = "x86_64",
	    .virtualization_type = "hvm",
	    .root_device_name = "/dev/vda"};
	void *reply;
	int r = client_ec2(c, "RegisterImage", &in, a, &reply, e);

	if (r < 0)
		return r;
	*ret_image_id = ((const struct ec2_register_image_result *)reply)->image_id;
	return 0;
}

/* One look: *ret_done when it is completed, else how far it is. */
static int look_at_import(struct client *c, const char *task_id, int64_t *ret_percent,
			  bool *ret_done, struct error *e)
{
	_cleanup_(arena_freep) struct arena *a = arena_new();
	const char *ids[] = {task_id};
	struct ec2_describe_import_snapshot_tasks_request in = {.import_task_ids = {true, 1, ids}};
	void *reply;
	int r = client_ec2(c, "DescribeImportSnapshotTasks", &in, a, &reply, e);

	if (r < 0)
		return r;
	const struct ec2_describe_import_snapshot_tasks_result *out = reply;
	const struct ec2_snapshot_task_detail *d =
	    out->import_snapshot_tasks.count
		? out->import_snapshot_tasks.items[0].snapshot_task_detail
		: NULL;
	if (!d || !d->status)
		return error_set(e, "InternalError", "The import %s is gone", task_id);
	*ret_done = str_eq(d->status, "completed");
	if (!*ret_done && !str_eq(d->status, "active"))
		return error_set(e, "ImportFailed", "The snapshot could not be made: %s",
				 d->status_message ? d->status_message : "no reason given");
	if (d->progress)
		(void)parse_i64(d->progress, 0, 100, ret_percent);
	return 0;
}

static int wait_imported(struct client *c, const struct import *i, const char *task_id,
			 struct error *e)
{
	int64_t until = clock_mono_ms() + IMPORT_TIMEOUT_MS, percent = 0, shown = -1;
	bool done = false;

	while (clock_mono_ms() < until) {
		int r = look_at_import(c, task_id, &percent, &done, e);

		if (r < 0)
			return r;
		if (done) {
			progress(i, "importing", 100, 100);
			return 0;
		}
		if (percent != shown && percent < 100)
			progress(i, "importing", (uint64_t)percent, 100);
		shown = percent;
		usleep(200000);
	}
	return error_set(e, "TimedOut",
			 "The import %s is still active after an hour; see sc.log", task_id);
}

static int import_snapshot(struct client *c, const struct import *i, const char *key,
			   struct arena *a, const char **ret_snapshot_id, struct error *e)
{
	struct ec2_user_bucket bucket = {.s3_bucket = BUCKET, .s3_key = key};
	struct ec2_snapshot_disk_container disk = {.format = "RAW", .user_bucket = &bucket};
	struct ec2_import_snapshot_request in = {
	    .disk_container = &disk, .description = arena_printf(a, "Image %s", i->name)};
	void *reply;
	int r = client_ec2(c, "ImportSnapshot", &in, a, &reply, e);

	if (r < 0)
		return r;
	const struct ec2_import_snapshot_result *out = reply;
	*ret_snapshot_id = out->snapshot_task_detail ? out->snapshot_task_detail->snapshot_id : NULL;
	return wait_imported(c, i, out->import_task_id, e);
}

static int register_snapshot(struct client *c, const struct import *i, const char *snapshot_id,
			     struct arena *a, const char **ret_image_id, struct error *e)
{
	struct ec2_ebs_block_device ebs = {.snapshot_id = snapshot_id,
					   .volume_type = "gp3",
					   .delete_on_termination = WIRE_BOOL_OF(true)};
	struct ec2_block_device_mapping root = {.device_name = ROOT_DEVICE, .ebs = &ebs};
	struct ec2_register_image_request in = {.name = i->name,
						.description = i->description,
						.architecture = "x86_64",
						.virtualization_type = "hvm",
						.root_device_name = ROOT_DEVICE,
						.block_device_mappings = {true, 1, &root}};
	void *reply;
	int r = client_ec2(c, "RegisterImage", &in, a, &reply, e);

	if (r < 0)
		return r;
	*ret_image_id = ((const struct ec2_register_image_result *)reply)->image_id;
	return 0;
}

/* The object has served when there is a snapshot, and the snapshot when there is an image; neither is left behind otherwise. */
static int make_of_snapshot(struct client *c, const struct import *i, const char *object,
			    const char *key, struct arena *a, const char **ret_image_id,
			    struct error *e)
{
	const char *snapshot_id = NULL;
	struct error ignored = {0};
	int r = import_snapshot(c, i, key, a, &snapshot_id, e);

	client_s3(c, "DELETE", object, NULL, 0, NULL, &ignored);
	if (r == 0)
		r = register_snapshot(c, i, snapshot_id, a, ret_image_id, e);
	if (r < 0 && snapshot_id) {
		struct ec2_delete_snapshot_request gone = {.snapshot_id = snapshot_id};

		error_clear(&ignored);
		client_ec2(c, "DeleteSnapshot", &gone, a, NULL, &ignored);
	}
	return r;
}

int image_import(struct client *c, const struct settings *s, const struct import *i,
		 struct arena *a, const char **ret_image_id, struct error *e)
{
	_cleanup_(freep) char *raw = NULL;
	const char *escaped =
	    arena_printf(a, "%s-%lld.raw", uri_encode(a, i->name, strlen(i->name), false),
			 (long long)clock_unix_ms());
	const char *key = arena_printf(a, "%s-%s", i->name, strrchr(escaped, '-') + 1);
	const char *object = arena_printf(a, "/" BUCKET "/%s", escaped);
	int r = 0;

	if (is_qcow2(i->file)) {
		progress(i, "converting", 0, 1);
		r = convert(i->file, &raw, e);
		if (r == 0)
			progress(i, "converting", 1, 1);
	}
	if (r == 0)
		r = upload(c, i, raw ? raw : i->file, object, e);
	if (raw)
		unlink(raw);
	if (r == 0)
		r = i->instance_store ? register_object(c, i, key, a, ret_image_id, e)
				      : make_of_snapshot(c, i, object, key, a, ret_image_id, e);
	if (r == 0)
		r = wait_available(c, *ret_image_id, e);
	if (r == 0 && i->public)
		r = make_public(c, *ret_image_id, a, e);
	return r;
}

int image_build_tiny(const char *output, char **ret_path, struct error *e)
{
	_cleanup_(freep) char *script = share_path("image/tiny/build"), *dir = cache_dir(),
			      *cache = NULL, *path = NULL;
	int code = 0, r;

	if (asprintf(&cache, "%s/tiny", dir) < 0 ||
	    asprintf(&path, "%s%s", output ? output : dir, output ? "" : "/tiny.raw") < 0)
		abort();
	r = dir_make(cache, 0755);
	if (r < 0)
		return error_errno(e, r, "Cannot make %s", cache);
	r = run_visibly((const char *const[]){"/bin/sh", script, "--if-changed", "--output", path,
					      "--cache", cache, NULL},
			&code, e);
	if (r < 0)
		return r;
	if (code != 0)
		return error_set(e, "BuildFailed", "%s failed; the lines above say why", script);
	*ret_path = TAKE_PTR(path);
	return 0;
}
