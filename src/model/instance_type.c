/* SPDX-License-Identifier: Apache-2.0 */
#include "base/macros.h"
#include "base/text.h"
#include "model/instance_type.h"

/*
 * Processors and memory are what these names mean to people who know them from Amazon. The disks
 * are small, so that the small types start fast on a small machine, and double with each step.
 */
const struct instance_type instance_types[] = {
    /* name, vCPUs, MiB, GiB, current generation, free tier, whole disks */
    {"m1.small", 1, 1740, 4, false, false},	  {"m1.medium", 1, 3788, 8, false, false},
    {"t2.nano", 1, 512, 1, true, false},	  {"t2.micro", 1, 1024, 2, true, true},
    {"t2.small", 1, 2048, 4, true, false},	  {"t2.medium", 2, 4096, 8, true, false},
    {"t2.large", 2, 8192, 16, true, false},	  {"t2.xlarge", 4, 16384, 32, true, false},
    {"t3.nano", 2, 512, 1, true, false},	  {"t3.micro", 2, 1024, 2, true, true},
    {"t3.small", 2, 2048, 4, true, false},	  {"t3.medium", 2, 4096, 8, true, false},
    {"t3.large", 2, 8192, 16, true, false},	  {"t3.xlarge", 4, 16384, 32, true, false},
    {"t3.2xlarge", 8, 32768, 64, true, false},	  {"m5.large", 2, 8192, 16, true, false},
    {"m5.xlarge", 4, 16384, 32, true, false},	  {"m5.2xlarge", 8, 32768, 64, true, false},
    {"m5.4xlarge", 16, 65536, 128, true, false},  {"c5.large", 2, 4096, 16, true, false},
    {"c5.xlarge", 4, 8192, 32, true, false},	  {"c5.2xlarge", 8, 16384, 64, true, false},
    {"c5.4xlarge", 16, 32768, 128, true, false},  {"r5.large", 2, 16384, 16, true, false},
    {"r5.xlarge", 4, 32768, 32, true, false},	  {"r5.2xlarge", 8, 65536, 64, true, false},
    {"r5.4xlarge", 16, 131072, 128, true, false},
    /* With whole local disks, each the guest's alone; how large is the host's affair. */
    {"m3.medium", 1, 3840, 4, false, false, 1},	  {"c3.large", 2, 3840, 8, false, false, 2},
    {"i3.large", 2, 15616, 16, true, false, 1},	  {"i3.xlarge", 4, 31232, 32, true, false, 1},
    {"i3.2xlarge", 8, 62464, 64, true, false, 1}, {"d2.xlarge", 4, 31232, 32, true, false, 3},
    {"d2.2xlarge", 8, 62464, 64, true, false, 6},
};
const size_t instance_type_count = ARRAY_SIZE(instance_types);

const struct instance_type *instance_type_find(const char *name)
{
	for (size_t i = 0; i < instance_type_count; i++)
		if (str_eq(instance_types[i].name, name))
			return &instance_types[i];
	return NULL;
}
