/* SPDX-License-Identifier: Apache-2.0 */
/* The map "heard", as the daemon reads it: which came first, a transaction's proposal or its SYN. */
#ifndef ACCORD_HEARD_H
#define ACCORD_HEARD_H

#include "core.h"

/* enum accord_syn_order. table: ACCORD_HEARD_SLOTS of them, written by the XDP program at any time. */
uint8_t accord_heard_syn(const struct accord_heard *table, const uint8_t *transaction);

#endif
