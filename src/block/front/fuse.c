/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The volume as one regular file: FUSE lets a file system be mounted on a file, and its root is then that file. A loop device
 * with direct I/O stands on it where a host has neither nbd nor ublk.
 *
 * The mount's descriptor is read on the thread of queue 0; each request takes a slot with a buffer of its own, and goes through
 * the stack; its answer is written when it is done. With no slot free nothing is read: the kernel waits.
 *
 * Requests of any offset and length are served: what is no whole number of blocks is read whole and cut, or read, changed and
 * written. The kernel lets several direct writes through at a time, to the same bytes too: what touches blocks that are being read,
 * changed and written waits until that has ended.
 */
#define FUSE_USE_VERSION 35
#include "block/front/fronts.h"

#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macros.h"
#include "base/text.h"

#define SLOTS 64u
#define DATA_BYTES (1u << 20)                      /* of one request */
#define BUFFER_BYTES (DATA_BYTES + 2 * 4096u)      /* with the rest of its first and last block */
#define IDLE_NS 1000000000u                        /* buffers go back after so long without a request */

struct slot {
	struct blk_req req;
	struct iovec iov;
	struct fuse_front *front;
	struct slot *next;        /* free, or changing */
	fuse_req_t fuse;
	char *buffer;             /* BUFFER_BYTES, twice */
	uint64_t off_bytes;       /* as it was asked */
	size_t len_bytes;
	uint32_t write_flags;     /* of a write */
	bool parts;               /* a write of parts of blocks, whose read comes first */
	bool started;             /* on the list of changing ones: it waits for none before it */
};

struct fuse_front {
	struct blk_front *front;
	struct blk_stack *stack;
	struct blk_queue *queue;
	struct fuse_session *session;
	bool mounted;
	char *path;
	bool made_file;
	struct fuse_buf in;       /* libfuse's, for what is read */
	struct blk_watch watch;
	struct slot slot[SLOTS], *free;
	struct slot *changing;    /* writes and zeroes, as they came */
	unsigned busy;
	char *memory;
	bool touched;             /* buffers have memory */
	struct blk_timer idle;
	bool reading;             /* in receive(): not again from within */
	bool closing;
	pthread_mutex_t lock;
	pthread_cond_t quiet;
	bool is_quiet;
	struct blk_listener listener;
	_Atomic uint64_t requests, unaligned;
};

static struct fuse_front *front_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

/* ---- slots ---- */

static void receive(struct fuse_front *f);

static void give_memory_back(struct blk_timer *t)
{
	struct fuse_front *f = (struct fuse_front *)((char *)t - offsetof(struct fuse_front, idle));

	if (f->busy || !f->touched)
		return;
	madvise(f->memory, (size_t)SLOTS * 2 * BUFFER_BYTES, MADV_DONTNEED);
	f->touched = false;
}

static void tell_quiet(struct fuse_front *f)
{
	pthread_mutex_lock(&f->lock);
	f->is_quiet = true;
	pthread_cond_signal(&f->quiet);
	pthread_mutex_unlock(&f->lock);
}

static struct slot *take_slot(struct fuse_front *f, fuse_req_t req)
{
	struct slot *s = f->free;

	assert(s); /* nothing is read without one */
	f->free = s->next;
	f->busy++;
	f->touched = true;
	blk_count(&f->requests, 1);
	memset(&s->req, 0, sizeof(s->req));
	s->req.queue = f->queue;
	s->req.ctx = s;
	s->fuse = req;
	s->parts = false;
	return s;
}

static void free_slot(struct slot *s)
{
	struct fuse_front *f = s->front;

	s->next = f->free;
	f->free = s;
	if (--f->busy == 0) {
		if (f->closing)
			tell_quiet(f);
		else
			blk_timer_set(f->queue, &f->idle, blk_queue_now(f->queue) + IDLE_NS);
	}
	if (!f->closing && !f->reading)
		receive(f);
}

/* The whole blocks round [off, off + len). */
static void blocks_of(const struct slot *s, uint64_t *ret_from, uint64_t *ret_to)
{
	uint32_t block = blk_stack_info(s->front->stack)->block_bytes;

	*ret_from = s->off_bytes / block * block;
	*ret_to = (s->off_bytes + s->len_bytes + block - 1) / block * block;
}

/* Those are read or written by the slot's one buffer. */
static void submit_blocks(struct slot *s, enum blk_op op, uint32_t flags)
{
	uint64_t from, to;

	blocks_of(s, &from, &to);
	s->iov = (struct iovec){ s->buffer, to - from };
	s->req.op = op;
	s->req.flags = flags;
	s->req.off_bytes = from;
	s->req.len_bytes = to - from;
	s->req.iov = &s->iov;
	s->req.iov_count = 1;
	blk_stack_submit(s->front->stack, &s->req);
}

static size_t head_of(const struct slot *s)
{
	return s->off_bytes % blk_stack_info(s->front->stack)->block_bytes;
}

/* ---- changes, of which those of parts of blocks have theirs alone ---- */

static bool meets_earlier(const struct slot *s)
{
	uint64_t from, to, t_from, t_to;

	blocks_of(s, &from, &to);
	for (const struct slot *t = s->front->changing; t != s; t = t->next) {
		blocks_of(t, &t_from, &t_to);
		if ((s->parts || t->parts) && from < t_to && t_from < to)
			return true;
	}
	return false;
}

static void change_start(struct slot *s)
{
	s->started = true;
	if (s->req.op == BLK_WRITE_ZEROES)
		blk_stack_submit(s->front->stack, &s->req);
	else if (s->parts)
		submit_blocks(s, BLK_READ, 0);
	else
		submit_blocks(s, BLK_WRITE, s->write_flags);
}

static void change_enter(struct slot *s)
{
	struct slot **at = &s->front->changing;

	while (*at)
		at = &(*at)->next;
	*at = s;
	s->next = NULL;
	s->started = false;
	if (!meets_earlier(s))
		change_start(s);
}

static void change_leave(struct slot *s)
{
	struct slot **at = &s->front->changing;

	while (*at != s)
		at = &(*at)->next;
	*at = s->next;
	for (struct slot *t = s->front->changing; t; t = t->next) {
		if (!t->started && !meets_earlier(t))
			change_start(t);
	}
}

/* ---- requests ---- */

static void reply_done(struct blk_req *r)
{
	struct slot *s = r->ctx;

	fuse_reply_err(s->fuse, -r->result);
	free_slot(s);
}

static void read_done(struct blk_req *r)
{
	struct slot *s = r->ctx;

	if (r->result)
		fuse_reply_err(s->fuse, -r->result);
	else
		fuse_reply_buf(s->fuse, s->buffer + head_of(s), s->len_bytes);
	free_slot(s);
}

/* Cut at the end; false when nothing is left. */
static bool inside(struct fuse_front *f, uint64_t off, size_t *len)
{
	uint64_t size = blk_stack_info(f->stack)->size_bytes;

	if (off >= size)
		return false;
	*len = MIN_OF(*len, MIN_OF((uint64_t)DATA_BYTES, size - off));
	return *len > 0;
}

static void do_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct fuse_front *f = front_of(req);

	if (!inside(f, (uint64_t)off, &len)) {
		fuse_reply_buf(req, NULL, 0);
		return;
	}
	struct slot *s = take_slot(f, req);
	s->off_bytes = (uint64_t)off;
	s->len_bytes = len;
	s->req.done = read_done;
	submit_blocks(s, BLK_READ, 0);
}

static void write_done(struct blk_req *r)
{
	struct slot *s = r->ctx;

	if (r->result)
		fuse_reply_err(s->fuse, -r->result);
	else
		fuse_reply_write(s->fuse, s->len_bytes);
	change_leave(s);
	free_slot(s);
}

/* The old blocks are in the buffer, the new bytes behind it. */
static void change_done(struct blk_req *r)
{
	struct slot *s = r->ctx;

	if (r->result) {
		write_done(r);
		return;
	}
	memcpy(s->buffer + head_of(s), s->buffer + BUFFER_BYTES, s->len_bytes);
	memset(&s->req, 0, sizeof(s->req));
	s->req.queue = s->front->queue;
	s->req.ctx = s;
	s->req.done = write_done;
	submit_blocks(s, BLK_WRITE, s->write_flags);
}

static void zeroes_done(struct blk_req *r)
{
	change_leave(r->ctx);
	reply_done(r);
}

static void do_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t len, off_t off, struct fuse_file_info *fi)
{
	struct fuse_front *f = front_of(req);
	uint32_t block = blk_stack_info(f->stack)->block_bytes;

	if (blk_stack_info(f->stack)->read_only) {
		fuse_reply_err(req, EROFS);
		return;
	}
	if (!inside(f, (uint64_t)off, &len)) {
		fuse_reply_err(req, ENOSPC);
		return;
	}
	struct slot *s = take_slot(f, req);
	s->off_bytes = (uint64_t)off;
	s->len_bytes = len;
	s->write_flags = fi->flags & (O_SYNC | O_DSYNC) ? BLK_FUA : 0;
	if (s->off_bytes % block || len % block) {
		blk_count(&f->unaligned, 1);
		memcpy(s->buffer + BUFFER_BYTES, data, len);
		s->parts = true;
		s->req.done = change_done;
	} else {
		memcpy(s->buffer, data, len);
		s->req.done = write_done;
	}
	change_enter(s);
}

static void do_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
	struct fuse_front *f = front_of(req);

	if (blk_stack_info(f->stack)->read_only) {
		fuse_reply_err(req, 0);
		return;
	}
	struct slot *s = take_slot(f, req);
	s->req.op = BLK_FLUSH;
	s->req.done = reply_done;
	blk_stack_submit(f->stack, &s->req);
}

/* PUNCH_HOLE and ZERO_RANGE, of whole blocks: what a loop device sends. A volume's size is not a file's to change. */
static void do_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
	struct fuse_front *f = front_of(req);
	const struct blk_info *info = blk_stack_info(f->stack);
	int what = mode & ~FALLOC_FL_KEEP_SIZE;
	int err = 0;

	if (info->read_only)
		err = EROFS;
	else if (what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE)
		err = EOPNOTSUPP;
	else if (off < 0 || len <= 0 || (uint64_t)off > info->size_bytes || (uint64_t)len > info->size_bytes - (uint64_t)off ||
		 off % info->block_bytes || len % info->block_bytes)
		err = EINVAL;
	if (err) {
		fuse_reply_err(req, err);
		return;
	}
	struct slot *s = take_slot(f, req);
	s->off_bytes = (uint64_t)off;
	s->len_bytes = (size_t)len;
	s->req.op = BLK_WRITE_ZEROES;
	s->req.flags = what == FALLOC_FL_PUNCH_HOLE ? BLK_MAY_UNMAP : 0;
	s->req.off_bytes = (uint64_t)off;
	s->req.len_bytes = (uint64_t)len;
	s->req.done = zeroes_done;
	change_enter(s);
}

static void attributes(struct fuse_front *f, struct stat *st)
{
	const struct blk_info *info = blk_stack_info(f->stack);

	*st = (struct stat){ .st_ino = FUSE_ROOT_ID, .st_mode = S_IFREG | (info->read_only ? 0400 : 0600), .st_nlink = 1,
			     .st_uid = getuid(), .st_gid = getgid(), .st_size = (off_t)info->size_bytes,
			     .st_blksize = 4096, .st_blocks = (blkcnt_t)(info->size_bytes / 512) };
}

static void do_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st;

	attributes(front_of(req), &st);
	fuse_reply_attr(req, &st, 1.0);
}

/* Times and the like are taken and not kept; size, owner and mode are the volume's. */
static void do_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
	if ((to_set & FUSE_SET_ATTR_SIZE) && (uint64_t)attr->st_size != blk_stack_info(front_of(req)->stack)->size_bytes) {
		fuse_reply_err(req, EPERM);
		return;
	}
	if (to_set & (FUSE_SET_ATTR_MODE | FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID)) {
		fuse_reply_err(req, EPERM);
		return;
	}
	do_getattr(req, ino, fi);
}

static void do_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_front *f = front_of(req);

	if (blk_stack_info(f->stack)->read_only && (fi->flags & O_ACCMODE) != O_RDONLY) {
		fuse_reply_err(req, EROFS);
		return;
	}
	fi->direct_io = 1; /* the stack's caches are enough, and other front ends may write */
	fuse_reply_open(req, fi);
}

static void do_init(void *ctx, struct fuse_conn_info *conn)
{
	conn->max_write = DATA_BYTES;
	conn->max_read = DATA_BYTES;
	conn->max_background = SLOTS;
	conn->congestion_threshold = SLOTS;
	conn->want |= conn->capable & (FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO);
}

static const struct fuse_lowlevel_ops operations = {
	.init = do_init,
	.getattr = do_getattr,
	.setattr = do_setattr,
	.open = do_open,
	.read = do_read,
	.write = do_write,
	.fsync = do_fsync,
	.fallocate = do_fallocate,
};

/* ---- the mount's descriptor ---- */

static void gone(struct fuse_front *f, const char *why)
{
	char text[256];

	blk_watch_remove(&f->watch);
	snprintf(text, sizeof(text), "fuse: %s: %s", f->path, why);
	f->front->say(f->front->say_ctx, false, text);
}

static void receive(struct fuse_front *f)
{
	f->reading = true;
	while (f->free && f->watch.queue && !f->closing) {
		int n = fuse_session_receive_buf(f->session, &f->in);
		if (n == -EINTR)
			continue;
		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			gone(f, n ? strerror(-n) : "unmounted");
			break;
		}
		fuse_session_process_buf(f->session, &f->in);
		if (fuse_session_exited(f->session)) {
			gone(f, "unmounted");
			break;
		}
	}
	f->reading = false;
}

static void on_readable(struct blk_watch *w, uint32_t events)
{
	receive((struct fuse_front *)((char *)w - offsetof(struct fuse_front, watch)));
}

/* ---- life ---- */

static void begin(void *ctx)
{
	struct fuse_front *f = ctx;

	if (blk_watch_add(f->queue, &f->watch, fuse_session_fd(f->session), EPOLLIN, on_readable))
		f->front->say(f->front->say_ctx, true, "fuse: the mount cannot be watched");
}

static void end(void *ctx)
{
	struct fuse_front *f = ctx;

	f->closing = true;
	blk_watch_remove(&f->watch);
	blk_timer_cancel(&f->idle);
	if (!f->busy)
		tell_quiet(f);
}

static void free_all(struct fuse_front *f)
{
	if (f->mounted)
		fuse_session_unmount(f->session);
	if (f->session)
		fuse_session_destroy(f->session);
	if (f->made_file)
		unlink(f->path);
	if (f->memory && f->memory != MAP_FAILED)
		munmap(f->memory, (size_t)SLOTS * 2 * BUFFER_BYTES);
	free(f->in.mem);
	free(f->path);
	pthread_cond_destroy(&f->quiet);
	pthread_mutex_destroy(&f->lock);
	free(f);
}

/* The file to mount on. One that a killed process left mounted answers ENOTCONN: its mount is taken away first. */
static int make_place(struct fuse_front *f, struct error *e)
{
	struct stat st;

	/* Opened, since the kernel may still know the dead one's attributes. */
	int probe = open(f->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (probe >= 0)
		close(probe);
	else if (errno == ENOTCONN && umount2(f->path, MNT_DETACH))
		return error_errno(e, errno, "%s is left from a process that died; `umount -l` it", f->path);
	int fd = open(f->path, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0) {
		close(fd);
		f->made_file = true;
		return 0;
	}
	if (errno != EEXIST)
		return error_errno(e, errno, "Making %s, to mount the volume on", f->path);
	if (lstat(f->path, &st))
		return error_errno(e, errno, "%s", f->path);
	if (!S_ISREG(st.st_mode) || st.st_size)
		return error_set(e, "InvalidOption", "%s is not an empty file: the volume would hide what is there", f->path);
	return 0;
}

static int mount_it(struct fuse_front *f, bool allow_other, struct error *e)
{
	char options[128];
	char *argv[] = { "mallee-blockd", "-o", options, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(3, argv);
	int err = make_place(f, e);

	if (err)
		return err;
	snprintf(options, sizeof(options), "fsname=mallee,subtype=mallee,max_read=%u%s", DATA_BYTES, allow_other ? ",allow_other" : "");
	f->session = fuse_session_new(&args, &operations, sizeof(operations), f);
	fuse_opt_free_args(&args);
	if (!f->session)
		return error_set(e, "Unsupported", "libfuse cannot make a session");
	if (fuse_session_mount(f->session, f->path))
		return error_set(e, "Unsupported", "%s cannot be mounted on: is there a /dev/fuse, and are you root or is fusermount3 installed?",
				 f->path);
	f->mounted = true;
	int fd = fuse_session_fd(f->session);
	return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) ? error_errno(e, errno, "fuse") : 0;
}

static int make_slots(struct fuse_front *f, struct error *e)
{
	f->memory = mmap(NULL, (size_t)SLOTS * 2 * BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (f->memory == MAP_FAILED)
		return error_errno(e, errno, "fuse: buffers");
	for (unsigned i = 0; i < SLOTS; i++) {
		f->slot[i].front = f;
		f->slot[i].buffer = f->memory + (size_t)i * 2 * BUFFER_BYTES;
		f->slot[i].next = f->free;
		f->free = &f->slot[i];
	}
	return 0;
}

static void on_resized(struct blk_listener *l, uint64_t size_bytes)
{
	struct fuse_front *f = (struct fuse_front *)((char *)l - offsetof(struct fuse_front, listener));

	fuse_lowlevel_notify_inval_inode(f->session, FUSE_ROOT_ID, -1, 0);
}

static int fuse_open(struct blk_front *front, const struct blk_values *v, struct error *e)
{
	struct fuse_front *f = calloc(1, sizeof(*f));

	if (!f)
		return error_errno(e, ENOMEM, "fuse");
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->quiet, NULL);
	f->front = front;
	f->stack = front->stack;
	f->queue = blk_stack_queue(front->stack, 0);
	f->idle.fn = give_memory_back;
	f->listener.resized = on_resized;
	f->path = strdup(blk_values_text(v, "mount"));
	int err = f->path ? make_slots(f, e) : error_errno(e, ENOMEM, "fuse");
	if (!err)
		err = mount_it(f, blk_values_bool(v, "allow-other"), e);
	if (err) {
		free_all(f);
		return err;
	}
	front->needs = BLK_NEEDS_UNMOUNT;
	front->state = f;
	blk_stack_listen(f->stack, &f->listener);
	blk_queue_call(f->queue, begin, f);
	return 0;
}

static void fuse_close(struct blk_front *front)
{
	struct fuse_front *f = front->state;

	blk_stack_unlisten(f->stack, &f->listener);
	blk_queue_call(f->queue, end, f);
	pthread_mutex_lock(&f->lock);
	while (!f->is_quiet)
		pthread_cond_wait(&f->quiet, &f->lock);
	pthread_mutex_unlock(&f->lock);
	free_all(f);
}

static void fuse_stats(struct blk_front *front, struct blk_stats_sink *sink)
{
	struct fuse_front *f = front->state;

	blk_stats_emit(sink, "fuse", "requests", true, f->requests, "requests served");
	blk_stats_emit(sink, "fuse", "unaligned_writes", true, f->unaligned, "writes of parts of blocks, which take a read first");
}

static const struct blk_option fuse_options[] = {
	{ .name = "mount", .type = BLK_OPT_TEXT, .required = true, .doc = "the file that becomes the volume: an empty one, or made and removed again" },
	{ .name = "allow-other", .type = BLK_OPT_BOOL, .fallback = "off", .doc = "let users other than the one that mounted it in" },
	{ 0 },
};

const struct blk_front_ops blk_fuse_ops = {
	.name = "fuse",
	.doc = "the volume as one file",
	.options = fuse_options,
	.open = fuse_open,
	.close = fuse_close,
	.stats = fuse_stats,
};
