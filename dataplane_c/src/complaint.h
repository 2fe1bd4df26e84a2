/* SPDX-License-Identifier: Apache-2.0 */
/* libbpf speaks to stderr unless told otherwise. Its first complaint is the one that says why. */
#ifndef ACCORD_COMPLAINT_H
#define ACCORD_COMPLAINT_H

#include <bpf/libbpf.h>

/* From now on complaints of this thread are kept; returns what libbpf_set_print takes when that is to end. */
libbpf_print_fn_t accord_complaint_keep(void);

/* The first one since then; empty: none. */
const char *accord_complaint(void);

#endif
