/* SPDX-License-Identifier: Apache-2.0 */
/* Node descriptors: the checks that need neither the graph nor a protocol. */
#ifndef ACCORD_DESCRIPTOR_H
#define ACCORD_DESCRIPTOR_H

#include <stdint.h>

#include "core.h"

enum descriptor_constant {
	/* Header, children and TLVs lie within this many first bytes; only payload follows. */
	DESCRIPTOR_PREFIX_BYTES = sizeof(struct accord_descriptor) + ACCORD_MAX_NODES + ACCORD_MAX_TLV_BYTES,
};

/*
 * Check a descriptor of length bytes, of which prefix holds the first min(length, DESCRIPTOR_PREFIX_BYTES).
 * Returns OK, BAD_DESCRIPTOR (does not parse) or NOT_CANONICAL (parses, but is not its one valid encoding).
 */
uint32_t descriptor_check(const uint8_t *prefix, uint32_t length, uint8_t node);

/* The value of a TLV in a descriptor that passed the check, or NULL. */
const uint8_t *descriptor_find(const uint8_t *prefix, uint16_t type, uint16_t *length);

#endif /* ACCORD_DESCRIPTOR_H */
