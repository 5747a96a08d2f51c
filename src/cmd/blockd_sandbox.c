/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The filter is a table of calls that are always allowed, and rules for those whose arguments matter: memory is never made
 * executable, new tasks are threads only, signals go to this process only, device commands are two. What drivers do while they
 * run besides (dial again, make files, unmount) is allowed where such a driver is open. io_uring goes past such a filter: its rings are
 * made before, know four operations only (block/core), and no further ring can be made.
 */
#include "cmd/blockd_sandbox.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/io_uring.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/macros.h"
#include "block/core/layer.h"
#include "os/privs.h"

static const int always[] = {
	/* data; the C library's fstat() is newfstatat() */
	SCMP_SYS(read), SCMP_SYS(write), SCMP_SYS(readv), SCMP_SYS(writev), SCMP_SYS(pread64), SCMP_SYS(pwrite64), SCMP_SYS(preadv), SCMP_SYS(pwritev),
	SCMP_SYS(preadv2), SCMP_SYS(pwritev2), SCMP_SYS(io_uring_enter), SCMP_SYS(fdatasync), SCMP_SYS(fsync), SCMP_SYS(fallocate),
	SCMP_SYS(ftruncate), SCMP_SYS(lseek), SCMP_SYS(fadvise64), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(flock), SCMP_SYS(fcntl), SCMP_SYS(close),
	/* connections that come in */
	SCMP_SYS(accept4), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg), SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(sendfile),
	SCMP_SYS(getsockopt), SCMP_SYS(setsockopt), SCMP_SYS(getpeername), SCMP_SYS(getsockname), SCMP_SYS(shutdown), SCMP_SYS(unlink), SCMP_SYS(unlinkat),
	/* waiting */
	SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(epoll_pwait2), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_create1), SCMP_SYS(eventfd2), SCMP_SYS(poll),
	SCMP_SYS(ppoll), SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(nanosleep), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(clock_gettime), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(restart_syscall), SCMP_SYS(futex),
	/* memory and threads */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mincore), SCMP_SYS(mlock), SCMP_SYS(memfd_create),
	SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(sched_yield), SCMP_SYS(sched_getaffinity), SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(rt_sigaction), SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn), SCMP_SYS(sigaltstack),
	/* about itself */
	SCMP_SYS(getpid), SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid), SCMP_SYS(getegid), SCMP_SYS(getrandom),
	SCMP_SYS(getrusage), SCMP_SYS(uname), SCMP_SYS(sysinfo),
};

/* snap's scratch, a resolver's settings */
static const int files[] = { SCMP_SYS(openat), SCMP_SYS(open), SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(statx),
			     SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(readlink), SCMP_SYS(readlinkat),
			     SCMP_SYS(getdents64), SCMP_SYS(newfstatat) };
static const int dialling[] = { SCMP_SYS(connect) };
static const int resolving[] = { SCMP_SYS(bind), SCMP_SYS(sendmmsg), SCMP_SYS(recvmmsg) };
static const int unmounting[] = { SCMP_SYS(umount2), SCMP_SYS(lstat) };

static int allow_all(scmp_filter_ctx f, const int *calls, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int err = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
		if (err && err != -EDOM && err != -EEXIST) /* a call that this machine does not have, or a second time */
			return err;
	}
	return 0;
}

static int allow_if(scmp_filter_ctx f, int call, struct scmp_arg_cmp condition)
{
	return seccomp_rule_add_array(f, SCMP_ACT_ALLOW, call, 1, &condition);
}

static int add_conditional(scmp_filter_ctx f)
{
	const struct {
		int call;
		struct scmp_arg_cmp if_so;
	} rules[] = {
		{ SCMP_SYS(mmap), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) },
		{ SCMP_SYS(mprotect), SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0) },
		{ SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD | CLONE_VM, CLONE_THREAD | CLONE_VM) },
		{ SCMP_SYS(tgkill), SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()) },
		{ SCMP_SYS(kill), SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)getpid()) },
		{ SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, BLKDISCARD) },
		{ SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, BLKGETSIZE64) },
		{ SCMP_SYS(prctl), SCMP_A0(SCMP_CMP_EQ, PR_SET_NAME) },
		{ SCMP_SYS(io_uring_register), SCMP_A1(SCMP_CMP_EQ, IORING_REGISTER_FILES_UPDATE) },
	};

	for (size_t i = 0; i < ARRAY_SIZE(rules); i++) {
		int err = allow_if(f, rules[i].call, rules[i].if_so);
		if (err)
			return err;
	}
	/* Its flags are in memory, where no filter sees them: the C library then takes clone(). */
	return seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

static int allow_sockets(scmp_filter_ctx f, bool network)
{
	static const unsigned families[] = { AF_UNIX, AF_INET, AF_INET6, AF_NETLINK };
	int err = allow_all(f, dialling, ARRAY_SIZE(dialling));

	for (size_t i = 0; !err && i < (network ? ARRAY_SIZE(families) : 1); i++)
		err = allow_if(f, SCMP_SYS(socket), SCMP_A0(SCMP_CMP_EQ, families[i]));
	if (!err && network)
		err = allow_all(f, resolving, ARRAY_SIZE(resolving));
	if (!err && network)
		err = allow_if(f, SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_EQ, FIONREAD));
	return err;
}

static int add_rules(scmp_filter_ctx f, unsigned needs)
{
	int err = allow_all(f, always, ARRAY_SIZE(always));

	if (!err)
		err = add_conditional(f);
	if (!err && needs & BLK_NEEDS_FILES)
		err = allow_all(f, files, ARRAY_SIZE(files));
	if (!err && needs & (BLK_NEEDS_UNIX | BLK_NEEDS_INTERNET))
		err = allow_sockets(f, needs & BLK_NEEDS_INTERNET);
	if (!err && needs & BLK_NEEDS_UNMOUNT)
		err = allow_all(f, unmounting, ARRAY_SIZE(unmounting));
	return err;
}

/* In the place of the call; anything that was being done may be half done, so no log of the usual kind. */
static void refused(int signo, siginfo_t *info, void *context)
{
	char line[192], now[CLOCK_ISO_LEN];

	clock_format_iso(clock_unix_ms(), now);
	int len = snprintf(line, sizeof(line),
			   "ts=%s level=error svc=blockd msg=\"a system call that the sandbox forbids: ending (see --sandbox)\" syscall=%d\n", now, info->si_syscall);
	_unused_ ssize_t n = write(STDERR_FILENO, line, (size_t)len);
	raise(SIGSYS); /* by default now, SA_RESETHAND: the end */
}

int blockd_sandbox_enter(unsigned needs, struct error *e)
{
	struct sigaction action = { .sa_sigaction = refused, .sa_flags = SA_SIGINFO | SA_RESETHAND | SA_NODEFER };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) || sigaction(SIGSYS, &action, NULL))
		return error_errno(e, errno, "the sandbox");
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_TRAP);
	int err = f ? 0 : -ENOMEM;
	if (!err)
		err = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!err)
		err = seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* a tree, not a list */
	if (!err)
		err = seccomp_attr_set(f, SCMP_FLTATR_CTL_SSB, 1); /* no guard against code of others in the process: there is none, and it costs much */
	if (!err)
		err = add_rules(f, needs);
	if (!err)
		err = seccomp_load(f);
	if (f)
		seccomp_release(f);
	return err ? error_errno(e, err, "the filter of system calls (--sandbox off does without)") : 0;
}

int blockd_sandbox_bound(bool has_fuse, struct error *e)
{
	uint64_t keep = UINT64_C(1) << CAP_DAC_OVERRIDE | UINT64_C(1) << CAP_NET_BIND_SERVICE;

	if (geteuid())
		return 0;
	if (has_fuse)
		keep |= UINT64_C(1) << CAP_SYS_ADMIN;
	return privs_bound(keep, e);
}
