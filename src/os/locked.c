/* SPDX-License-Identifier: Apache-2.0 */
#include "os/locked.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "os/file.h"

/* The length stands before what the caller sees. */
struct locked {
	size_t mapped_bytes;
	_Alignas(16) char bytes[];
};

void *locked_new(size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), mapped = (sizeof(struct locked) + bytes + page - 1) / page * page;
	struct locked *l = mmap(NULL, mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (l == MAP_FAILED)
		return NULL;
	if (madvise(l, mapped, MADV_DONTDUMP) || madvise(l, mapped, MADV_WIPEONFORK)) {
		munmap(l, mapped);
		return NULL;
	}
	(void)mlock(l, mapped);
	l->mapped_bytes = mapped;
	return l->bytes;
}

void locked_free(void *p)
{
	if (!p)
		return;
	struct locked *l = (struct locked *)((char *)p - offsetof(struct locked, bytes));
	size_t mapped = l->mapped_bytes;
	explicit_bzero(l, mapped);
	munmap(l, mapped);
}

static int check_file(const char *path, const struct stat *st, size_t bytes, struct error *e)
{
	if (!S_ISREG(st->st_mode))
		return error_set(e, "InvalidKeyFile", "%s is no regular file", path);
	if (st->st_uid && st->st_uid != geteuid())
		return error_set(e, "InvalidKeyFile", "%s belongs to user %u: a key's file belongs to root or to who reads it", path, st->st_uid);
	if (st->st_mode & 077)
		return error_set(e, "InvalidKeyFile", "%s has mode %04o: nobody but its owner may have rights on it (chmod 0400)", path,
				 st->st_mode & 07777);
	if (st->st_size != (off_t)bytes)
		return error_set(e, "InvalidKeyFile", "%s has %lld bytes: a key has exactly %zu", path, (long long)st->st_size, bytes);
	return 0;
}

int locked_read(const char *path, void *to, size_t bytes, struct error *e)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return error_errno(e, errno, "opening the key file %s", path);
	int err = check_file(path, &st, bytes, e);
	if (err)
		return err;
	for (size_t at = 0; at < bytes;) {
		ssize_t n = read(fd, (char *)to + at, bytes - at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return error_errno(e, n ? errno : EIO, "reading the key file %s", path);
		at += (size_t)n;
	}
	return 0;
}

void process_seal(void)
{
	prctl(PR_SET_DUMPABLE, 0);
}
