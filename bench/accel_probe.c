/* SPDX-License-Identifier: Apache-2.0 */
/* Says what guests run on here, as the node controller finds it: kvm or tcg, and why in the second line. */
#include <stdio.h>

#include "hyper/driver.h"

int main(void)
{
	char why[256];
	enum hyper_accel accel = hyper_probe(why, sizeof(why));

	printf("%s\n%s\n", hyper_accel_name(accel), why);
	return 0;
}
