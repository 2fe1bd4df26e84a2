/* SPDX-License-Identifier: Apache-2.0 */
#include "failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int accord_fail(struct accord_failure *failure, enum accord_reason reason, int error, const char *format, ...)
{
	char text[48] = "";
	va_list arguments;
	size_t used;

	if (!failure)
		return -(int)reason;
	failure->reason = (uint16_t)reason;
	failure->error = error;
	va_start(arguments, format);
	vsnprintf(failure->detail, sizeof(failure->detail), format, arguments);
	va_end(arguments);
	if (error) {
		used = strlen(failure->detail);
		snprintf(failure->detail + used, sizeof(failure->detail) - used, ": %s", strerror_r(error, text, sizeof(text)));
	}
	return -(int)reason;
}

enum accord_reason accord_reason_of_errno(int error, enum accord_reason otherwise)
{
	switch (error) {
	case EPERM:
	case EACCES:
		return ACCORD_REASON_NO_PRIVILEGE;
	case ENODEV:
	case ENXIO:
		return ACCORD_REASON_NO_INTERFACE;
	case EOPNOTSUPP:
	case EAFNOSUPPORT:
	case EPROTONOSUPPORT:
	case ENOPROTOOPT:
	case ENOSYS:
		return ACCORD_REASON_NO_KERNEL_SUPPORT;
	case ENOMEM:
	case ENOBUFS:
		return ACCORD_REASON_NO_MEMORY;
	default:
		return otherwise;
	}
}
