/* SPDX-License-Identifier: Apache-2.0 */
#include "complaint.h"

#include <stdio.h>
#include <string.h>

static __thread char complaint[96];

__attribute__((format(printf, 2, 0))) static int keep(enum libbpf_print_level level, const char *format,
                                                      va_list arguments)
{
	if (level == LIBBPF_WARN && !complaint[0]) {
		vsnprintf(complaint, sizeof(complaint), format, arguments);
		complaint[strcspn(complaint, "\n")] = '\0';
	}
	return 0;
}

libbpf_print_fn_t accord_complaint_keep(void)
{
	complaint[0] = '\0';
	return libbpf_set_print(keep);
}

const char *accord_complaint(void)
{
	return complaint;
}
