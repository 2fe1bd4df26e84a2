/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where `accord trace stages` looks: a function that does nothing, in the dynamic symbol table, for a uprobe.
 * An engine passes it a handful of times in a negotiation, not once for a packet; nobody looking, it is a call.
 */
#ifndef ACCORD_STAGE_H
#define ACCORD_STAGE_H

#include "core.h"

/* transaction: 12 bytes. role: enum role. stage: enum accord_stage. reason: enum accord_reason, of FAILED. */
__attribute__((visibility("default"))) void accord_stage_reached(const uint8_t *transaction, uint32_t role,
                                                                 uint32_t stage, uint32_t step, uint32_t reason);

#endif /* ACCORD_STAGE_H */
