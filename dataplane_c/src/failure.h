/* SPDX-License-Identifier: Apache-2.0 */
/* How the parts of a port say what went wrong: filled once, where it is known, and carried up unchanged. */
#ifndef ACCORD_FAILURE_H
#define ACCORD_FAILURE_H

#include "core.h"

/* Fills failure (which may be NULL) and returns -reason. error: a positive errno; its text ends the detail. */
__attribute__((format(printf, 4, 5))) int accord_fail(struct accord_failure *failure, enum accord_reason reason,
                                                      int error, const char *format, ...);

/* The reason that fits an errno, when the call itself says no more than that. */
enum accord_reason accord_reason_of_errno(int error, enum accord_reason otherwise);

#endif
