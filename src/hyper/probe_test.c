/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "hyper/host_priv.h"
#include "hyper/probe_priv.h"

static void test_decisions(void **state)
{
	static const struct {
		struct probe_result result;
		enum hyper_accel want;
		const char *words; /* in the text for the operator */
	} rows[] = {
	    {{.stage = PROBE_NO_DEVICE, .err = ENOENT}, HYPER_ACCEL_TCG, "No such file"},
	    {{.stage = PROBE_NO_DEVICE, .err = EACCES}, HYPER_ACCEL_TCG, "Permission denied"},
	    {{.stage = PROBE_NO_VM, .err = ENOMEM}, HYPER_ACCEL_TCG, "makes no machine"},
	    {{.stage = PROBE_NO_VM, .timed_out = true}, HYPER_ACCEL_TCG, "no answer"},
	    {{.stage = PROBE_REAL_MODE, .timed_out = true}, HYPER_ACCEL_TCG, "within 2000 ms"},
	    {{.stage = PROBE_PRIVILEGED, .exit_reason = 17, .real_mode_us = 5000},
	     HYPER_ACCEL_TCG,
	     "KVM exit 17"},
	    {{.stage = PROBE_LOOP, .err = EFAULT, .real_mode_us = 5000, .privileged_us = 1},
	     HYPER_ACCEL_TCG,
	     "Bad address"},
	    /* a processor that runs everything */
	    {{.stage = PROBE_DONE, .real_mode_us = 80, .privileged_us = 900, .loop_us = 2900},
	     HYPER_ACCEL_KVM,
	     "8.0 M instructions in 2.9 ms"},
	    /* real mode emulated, as before 2010, the rest at speed */
	    {{.stage = PROBE_DONE, .real_mode_us = 60000, .privileged_us = 900, .loop_us = 2900},
	     HYPER_ACCEL_KVM,
	     "8.0 M"},
	    /* an emulator for all of it */
	    {{.stage = PROBE_DONE,
	      .real_mode_us = 133000,
	      .privileged_us = 9000,
	      .loop_us = 400000},
	     HYPER_ACCEL_TCG,
	     "0.75 M instructions/s, below 1 M/s"},
	    {{.stage = PROBE_DONE,
	      .real_mode_us = 50000,
	      .privileged_us = 9000,
	      .loop_us = 1600000},
	     HYPER_ACCEL_TCG,
	     "5.00 M instructions/s, below 50 M/s"},
	    {{.stage = PROBE_DONE, .real_mode_us = 50, .privileged_us = 700000, .loop_us = 3000},
	     HYPER_ACCEL_TCG,
	     "700 ms"},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		char why[200];

		assert_int_equal(probe_decide(&rows[i].result, why, sizeof(why)), rows[i].want);
		if (!strstr(why, rows[i].words) || !strncmp(why, "tcg:", 4) ||
		    !strncmp(why, "kvm:", 4))
			fail_msg("row %zu says \"%s\" without \"%s\"", i, why, rows[i].words);
	}
}

/* Whatever this machine has, the probe ends in time and says why. */
static void test_probe_is_bounded(void **state)
{
	int64_t start = clock_mono_ms();
	char why[200] = "";
	enum hyper_accel accel = hyper_probe(why, sizeof(why));

	assert_true(accel == HYPER_ACCEL_KVM || accel == HYPER_ACCEL_TCG);
	/* The reason stands behind the accelerator's name and does not repeat it. */
	assert_true(*why && strncmp(why, "kvm:", 4) != 0 && strncmp(why, "tcg:", 4) != 0);
	assert_string_equal(hyper_accel_name(accel), accel == HYPER_ACCEL_KVM ? "kvm" : "tcg");
	assert_true(clock_mono_ms() - start < PROBE_TIMEOUT_MS + 2000);
	print_message("%s\n", why);
}

static void test_device_access(void **state)
{
	static const struct {
		mode_t mode;
		uid_t uid;
		gid_t gid;
		bool want;
	} rows[] = {
	    {0600, 0, 0, true},	   /* as a bare kernel makes it */
	    {0660, 0, 995, false}, /* as distributions do: root:kvm */
	    {0640, 0, 995, true},    {0666, 0, 0, false},
	    {0600, 64055, 0, false}, {0660, 0, 64055, false},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		struct stat st = {.st_mode = S_IFCHR | rows[i].mode,
				  .st_uid = rows[i].uid,
				  .st_gid = rows[i].gid};

		assert_int_equal(host_needs_access(&st, 64055, 64055, 995), rows[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_decisions),
	    cmocka_unit_test(test_probe_is_bounded),
	    cmocka_unit_test(test_device_access),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
