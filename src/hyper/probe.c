/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does /dev/kvm run guests? A device that opens proves nothing: nested and paravirtual set-ups have
 * one under which a kernel crawls through an instruction emulator, or hangs. So a child process
 * runs a small guest (probe_guest.c) and reports how far it came after each stage; the parent waits
 * PROBE_TIMEOUT_MS, kills it, and judges.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "hyper/probe_priv.h"
#include "os/file.h"

const char *hyper_accel_name(enum hyper_accel accel)
{
	static const char *const names[] = {
	    [HYPER_ACCEL_TCG] = "tcg", [HYPER_ACCEL_KVM] = "kvm", [HYPER_ACCEL_NONE] = "none"};

	return names[accel];
}

static const char *const stage_text[] = {
    [PROBE_REAL_MODE] = "real-mode code, as firmware runs",
    [PROBE_PRIVILEGED] = "privileged code, as a kernel runs at its start",
    [PROBE_LOOP] = "a counting loop",
};

static int64_t per_second(int64_t instructions, int64_t us)
{
	return us > 0 ? instructions * 1000000 / us : INT64_MAX;
}

static enum hyper_accel say_slow(const char *what, int64_t rate, int64_t min, char *why,
				 size_t size)
{
	snprintf(why, size, "/dev/kvm runs %s at %.2f M instructions/s, below %.0f M/s", what,
		 (double)rate / 1e6, (double)min / 1e6);
	return HYPER_ACCEL_TCG;
}

static enum hyper_accel judge_times(const struct probe_result *r, char *why, size_t size)
{
	int64_t real = per_second(PROBE_REAL_INSTRUCTIONS, r->real_mode_us);
	int64_t loop = per_second(PROBE_LOOP_INSTRUCTIONS, r->loop_us);

	if (real < PROBE_MIN_REAL_PER_S)
		return say_slow(stage_text[PROBE_REAL_MODE], real, PROBE_MIN_REAL_PER_S, why, size);
	if (loop < PROBE_MIN_LOOP_PER_S)
		return say_slow(stage_text[PROBE_LOOP], loop, PROBE_MIN_LOOP_PER_S, why, size);
	if (r->privileged_us > PROBE_MAX_PRIVILEGED_US) {
		snprintf(why, size, "/dev/kvm needs %" PRId64 " ms for %d rounds of %s",
			 r->privileged_us / 1000, PROBE_PRIVILEGED_ROUNDS,
			 stage_text[PROBE_PRIVILEGED]);
		return HYPER_ACCEL_TCG;
	}
	snprintf(why, size, "%.1f M instructions in %.1f ms", PROBE_LOOP_INSTRUCTIONS / 1e6,
		 (double)r->loop_us / 1e3);
	return HYPER_ACCEL_KVM;
}

enum hyper_accel probe_decide(const struct probe_result *r, char *why, size_t size)
{
	switch (r->stage) {
	case PROBE_DONE:
		return judge_times(r, why, size);
	case PROBE_NO_DEVICE:
		snprintf(why, size, "/dev/kvm: %s", strerror(r->err));
		break;
	case PROBE_NO_VM:
		snprintf(why, size, "/dev/kvm makes no machine: %s",
			 r->timed_out ? "no answer" : strerror(r->err));
		break;
	default:
		if (r->timed_out)
			snprintf(why, size, "/dev/kvm did not get through %s within %d ms",
				 stage_text[r->stage], PROBE_TIMEOUT_MS);
		else if (r->err != 0)
			snprintf(why, size, "/dev/kvm fails at %s: %s", stage_text[r->stage],
				 strerror(r->err));
		else
			snprintf(why, size, "/dev/kvm stops at %s (KVM exit %d)",
				 stage_text[r->stage], r->exit_reason);
		break;
	}
	return HYPER_ACCEL_TCG;
}

static void send_report(void *ctx, const struct probe_result *r)
{
	(void)fd_write_all(*(int *)ctx, r, sizeof(*r)); /* same program at both ends of the pipe */
}

/* The newest report that arrives until the child is done or the time is over. */
static void read_reports(int fd, struct probe_result *r)
{
	int64_t deadline = clock_mono_ms() + PROBE_TIMEOUT_MS;
	struct probe_result got;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = deadline - clock_mono_ms();

		if (left <= 0 || poll(&p, 1, (int)left) == 0) {
			r->timed_out = true;
			return;
		}
		if (!(p.revents & (POLLIN | POLLHUP)))
			continue; /* a signal */
		if (read(fd, &got, sizeof(got)) != (ssize_t)sizeof(got))
			return; /* the child has ended */
		*r = got;
	}
}

enum hyper_accel hyper_probe(char *why, size_t size)
{
	struct probe_result r = {.stage = PROBE_NO_VM, .exit_reason = -1};
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		snprintf(why, size, "cannot start the probe: %s", strerror(errno));
		return HYPER_ACCEL_TCG;
	}
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		probe_run(&r, send_report, &fds[1]);
		_exit(0);
	}
	close(fds[1]);
	read_reports(fds[0], &r);
	close(fds[0]);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return probe_decide(&r, why, size);
}
