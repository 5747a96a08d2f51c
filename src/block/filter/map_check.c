/* SPDX-License-Identifier: Apache-2.0 */
#include "block/filter/map_check.h"

#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block/filter/cow_bits_priv.h"
#include "os/file.h"

static int damaged(const char *path, const char *what, unsigned long long page, struct error *e)
{
	error_set(e, "InvalidMap", "%s is damaged: %s (page %llu)", path, what, page);
	return -EBADMSG;
}

static int read_at(int fd, void *to, size_t len, uint64_t off)
{
	ssize_t n = pread(fd, to, len, (off_t)off);

	return n < 0 ? -errno : n == (ssize_t)len ? 0 : -EBADMSG;
}

/* *ret_count: bits that the header tells of; 0: the map was never used. */
static int check_header(int fd, const char *path, uint64_t *ret_count, struct error *e)
{
	uint8_t pages[2][BITS_PAGE];
	int err = read_at(fd, pages, sizeof(pages), 0);

	if (err == -EBADMSG)
		return damaged(path, "it is too short for a map", 0, e);
	if (err)
		return error_errno(e, err, "reading %s", path);
	*ret_count = 0;
	if (bits_is_blank(pages[0])) { /* the first header goes to the second page: this one was being made */
		if (!bits_header_is_valid(pages[1], 1))
			return 0;
		memcpy(ret_count, pages[1] + 32, sizeof(*ret_count));
	} else {
		bool valid[2] = { bits_header_is_valid(pages[0], 0), bits_header_is_valid(pages[1], 1) };
		uint64_t generation[2];
		if (!valid[0] && !valid[1])
			return damaged(path, "no header can be read", 0, e);
		memcpy(&generation[0], pages[0] + 16, 8);
		memcpy(&generation[1], pages[1] + 16, 8);
		bool second = valid[1] && (!valid[0] || le64toh(generation[1]) > le64toh(generation[0]));
		memcpy(ret_count, pages[second] + 32, sizeof(*ret_count));
	}
	*ret_count = le64toh(*ret_count);
	return 0;
}

static int check_page(int fd, const char *path, uint64_t page, struct error *e)
{
	uint8_t slot[2][BITS_PAGE];
	int err = read_at(fd, slot, sizeof(slot), bits_slot_offset(page, 0));

	if (err == -EBADMSG)
		return damaged(path, "it is shorter than its header says", (unsigned long long)page, e);
	if (err)
		return error_errno(e, err, "reading %s", path);
	if (bits_slot_is_valid(slot[0], page, 0) || bits_slot_is_valid(slot[1], page, 1) || bits_is_blank(slot[0]))
		return 0;
	return damaged(path, "neither copy can be read", (unsigned long long)page, e);
}

int blk_map_check(const char *path, struct error *e)
{
	_cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	uint64_t count = 0;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return error_errno(e, errno, "opening %s", path);
	int err = st.st_size ? check_header(fd, path, &count, e) : 0;
	for (uint64_t page = 0; !err && page * BITS_PER_PAGE < count; page++)
		err = check_page(fd, path, page, e);
	return err;
}
