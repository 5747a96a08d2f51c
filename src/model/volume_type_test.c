/* SPDX-License-Identifier: Apache-2.0 */
#include "model/volume_type.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/macros.h"

#define MIB UINT64_C(1048576)

static struct volume_limits of(const char *type, uint64_t gib, uint64_t iops, uint64_t mib)
{
	struct volume_limits l = { 0 };
	struct error e = { 0 };

	if (volume_type_limits(volume_type_find(type), gib, iops, mib, &l, &e))
		fail_msg("%s %llu %llu %llu: %s", type, (unsigned long long)gib, (unsigned long long)iops, (unsigned long long)mib, e.message);
	return l;
}

static void test_limits(void **state)
{
	struct volume_limits l = of("gp3", 1, 0, 0);
	assert_true(l.iops == 3000 && l.burst_iops == 3000 && l.bytes_per_s == 125 * MIB && l.io_bytes == 262144);
	l = of("gp3", 100, 16000, 1000);
	assert_true(l.iops == 16000 && l.bytes_per_s == 1000 * MIB && l.shown_iops == 16000 && l.shown_mib_per_s == 1000);
	l = of("gp3", 65536, 80000, 2000);
	assert_true(l.iops == 80000 && l.bytes_per_s == 2000 * MIB);
	l = of("gp2", 1, 0, 0);
	assert_true(l.iops == 100 && l.burst_iops == 3000 && l.burst_s == 1862 && l.bytes_per_s == 128 * MIB && !l.shown_mib_per_s);
	l = of("gp2", 500, 0, 0);
	assert_true(l.iops == 1500 && l.burst_iops == 3000 && l.burst_s == 3600 && l.bytes_per_s == 250 * MIB);
	l = of("gp2", 16384, 0, 0);
	assert_true(l.iops == 16000 && l.burst_iops == 16000 && l.burst_s == 0);
	l = of("io2", 4, 2000, 0);
	assert_true(l.iops == 2000 && l.bytes_per_s == 2000 * UINT64_C(262144));
	l = of("io2", 4, 4000, 0);
	assert_true(l.iops == 4000 && l.bytes_per_s == 1000 * MIB);
	l = of("io2", 65536, 256000, 0);
	assert_true(l.iops == 256000 && l.shown_iops == 256000 && l.bytes_per_s == 4000 * MIB);
	l = of("io1", 1000, 50000, 0);
	assert_true(l.iops == 50000 && l.bytes_per_s == 1000 * MIB);
	l = of("io1", 16384, 64000, 0);
	assert_true(l.iops == 64000 && l.bytes_per_s == 1000 * MIB);
	l = of("st1", 1024, 0, 0);
	assert_true(!l.iops && !l.shown_iops && l.bytes_per_s == 40 * MIB && l.burst_bytes_per_s == 250 * MIB && l.io_bytes == MIB);
	l = of("st1", 16384, 0, 0);
	assert_true(l.bytes_per_s == 500 * MIB && l.burst_bytes_per_s == 500 * MIB);
	l = of("sc1", 2048, 0, 0);
	assert_true(l.bytes_per_s == 24 * MIB && l.burst_bytes_per_s == 160 * MIB);
	l = of("standard", 1, 0, 0);
	assert_true(l.iops == 100 && l.burst_iops == 300 && !l.shown_iops);
}

static void test_refused(void **state)
{
	static const struct {
		const char *type;
		uint64_t gib, iops, mib;
		const char *code;
	} cases[] = {
		{ "gp3", 0, 0, 0, "InvalidParameterValue" },
		{ "gp3", 65537, 0, 0, "InvalidParameterValue" },
		{ "gp3", 10, 2999, 0, "InvalidParameterValue" },
		{ "gp3", 1000, 80001, 0, "InvalidParameterValue" },
		{ "gp3", 10, 5001, 0, "InvalidParameterValue" },  /* 500 for each GiB */
		{ "gp3", 10, 0, 124, "InvalidParameterValue" },
		{ "gp3", 100, 3000, 751, "InvalidParameterValue" }, /* 0.25 MiB/s for each */
		{ "gp3", 100, 16000, 2001, "InvalidParameterValue" },
		{ "gp2", 16385, 0, 0, "InvalidParameterValue" },
		{ "gp2", 10, 100, 0, "InvalidParameterCombination" },
		{ "gp2", 10, 0, 125, "InvalidParameterCombination" },
		{ "io1", 10, 0, 0, "MissingParameter" },
		{ "io1", 3, 100, 0, "InvalidParameterValue" },
		{ "io1", 10, 501, 0, "InvalidParameterValue" },
		{ "io1", 16385, 100, 0, "InvalidParameterValue" },
		{ "io1", 16384, 64001, 0, "InvalidParameterValue" },
		{ "io2", 10, 99, 0, "InvalidParameterValue" },
		{ "io2", 10, 10001, 0, "InvalidParameterValue" }, /* 1000 for each GiB */
		{ "io2", 1000, 256001, 0, "InvalidParameterValue" },
		{ "io2", 65537, 100, 0, "InvalidParameterValue" },
		{ "st1", 124, 0, 0, "InvalidParameterValue" },
		{ "st1", 125, 500, 0, "InvalidParameterCombination" },
		{ "standard", 1025, 0, 0, "InvalidParameterValue" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct volume_limits l;
		struct error e = { 0 };
		assert_true(volume_type_limits(volume_type_find(cases[i].type), cases[i].gib, cases[i].iops, cases[i].mib, &l, &e) < 0);
		assert_string_equal(e.code, cases[i].code);
	}
	assert_null(volume_type_find("gp4"));
	assert_null(volume_type_find(NULL));
	assert_false(volume_type_boots(volume_type_find("st1")));
	assert_true(volume_type_boots(volume_type_find("standard")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
