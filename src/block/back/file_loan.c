/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lending (struct blk_loan): a long read that the page cache has whole is not copied but named by its place in the file, and
 * sendfile() takes the pages from there. Whether the cache has it is asked of a mapping that nothing is ever read through: that
 * pages are missing, or a file was cut, shows as an error of the call and never as a signal.
 *
 * What begins with zeroes is not lent: it may be zeroes throughout, which a front end says in fewer bytes when it sees them.
 */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "block/back/file_priv.h"

#define PEEK_BYTES 512u

/* mincore() tells what the page cache has to who owns the file or may write it, and says "all" to others. */
static bool may_ask(const struct file *f)
{
	struct stat st;

	return !f->read_only || geteuid() == 0 || (!fstat(f->fd, &st) && st.st_uid == geteuid());
}

void file_loans_start(struct file *f, uint64_t size_bytes)
{
	if (!may_ask(f))
		return;
	void *pages = mmap(NULL, size_bytes, PROT_NONE, MAP_SHARED | MAP_NORESERVE, f->fd, 0);

	if (pages == MAP_FAILED)
		return; /* a file system that maps nothing */
	f->pages = pages;
	f->pages_bytes = size_bytes;
}

void file_loans_stop(struct file *f)
{
	if (f->pages)
		munmap(f->pages, f->pages_bytes);
	f->pages = NULL;
}

void file_loans_resize(struct file *f, uint64_t size_bytes)
{
	if (!f->pages)
		return;
	void *pages = mremap(f->pages, f->pages_bytes, size_bytes, MREMAP_MAYMOVE);
	if (pages == MAP_FAILED) {
		file_loans_stop(f);
		return;
	}
	f->pages = pages;
	f->pages_bytes = size_bytes;
}

static bool is_cached(const struct file *f, const struct blk_req *r)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), first = r->off_bytes / page * page, bytes = r->off_bytes + r->len_bytes - first;
	unsigned char there[FILE_LOAN_MAX_BYTES / 4096 + 1];

	if (mincore(f->pages + first, bytes, there))
		return false;
	for (uint64_t i = 0; i < (bytes + page - 1) / page; i++) {
		if (!(there[i] & 1))
			return false;
	}
	return true;
}

static bool begins_with_zeroes(const struct file *f, const struct blk_req *r)
{
	static const char zeroes[PEEK_BYTES];
	char first[PEEK_BYTES];
	ssize_t n = preadv2(f->fd, &(struct iovec){ first, sizeof(first) }, 1, (off_t)r->off_bytes, RWF_NOWAIT);

	return n != (ssize_t)sizeof(first) || memcmp(first, zeroes, sizeof(first)) == 0;
}

bool file_lend(struct file_queue *fq, struct blk_req *r)
{
	struct file *f = fq->file;

	if (!f->pages || r->len_bytes < FILE_LOAN_MIN_BYTES || r->len_bytes > FILE_LOAN_MAX_BYTES || !f->now_flags)
		return false;
	if (begins_with_zeroes(f, r) || !is_cached(f, r))
		return false;
	r->loan.given = true;
	r->loan.fd = f->fd;
	r->loan.off_bytes = r->off_bytes;
	blk_count(&fq->counters.lent_reads, 1);
	blk_complete(r, 0);
	return true;
}
