// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: a descriptor passes the check if, and only if, it is the one valid encoding of a node (section 5.1 of the
 * specification, as read below); then each of its TLVs is found, and no other.
 *
 * The input is a node ID and a descriptor.
 */
#include "descriptor.h"
#include "script.h"

static uint32_t pair(const uint8_t *at)
{
	return (uint32_t)(at[0] << 8 | at[1]);
}

/* In the order of the specification: counts, children, TLVs; not in that of the check. */
static int allowed(const uint8_t *bytes, uint32_t length, uint8_t node)
{
	uint32_t end, at;
	int last = -1;

	if (length < 4)
		return 0;
	end = 4u + bytes[0] + pair(bytes + 2);
	if (end > length || pair(bytes + 2) > 1024 || bytes[1] > 1)
		return 0;
	for (uint32_t i = 0; i < bytes[0]; i++) {
		if (bytes[4 + i] > 63 || bytes[4 + i] == node || bytes[4 + i] <= last)
			return 0;
		last = bytes[4 + i];
	}
	last = -1;
	for (at = 4u + bytes[0]; at < end; at += 4 + pair(bytes + at + 2)) {
		if (at + 4 > end || at + 4 + pair(bytes + at + 2) > end || (int)pair(bytes + at) <= last)
			return 0;
		last = (int)pair(bytes + at);
	}
	return 1;
}

static void check_find(const uint8_t *prefix)
{
	uint32_t at = 4u + prefix[0], end = at + pair(prefix + 2);
	uint32_t absent = 0x5a5a;
	uint16_t length;

	for (; at < end; at += 4 + pair(prefix + at + 2)) {
		HOLD(descriptor_find(prefix, (uint16_t)pair(prefix + at), &length) == prefix + at + 4);
		HOLD(length == pair(prefix + at + 2));
		absent = pair(prefix + at) == absent ? absent + 1 : absent;
	}
	HOLD(descriptor_find(prefix, (uint16_t)absent, &length) == NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	uint32_t length, held;
	uint8_t *prefix, node;

	if (size < 1)
		return 0;
	node = bytes[0] & 63;
	length = (uint32_t)size - 1;
	held = length < DESCRIPTOR_PREFIX_BYTES ? length : DESCRIPTOR_PREFIX_BYTES;
	/* Of exactly what the check may look at, so that the sanitizer sees a read beyond it. */
	prefix = malloc(held ? held : 1);
	memcpy(prefix, bytes + 1, held);
	HOLD((descriptor_check(prefix, length, node) == ACCORD_REASON_OK) == (allowed(bytes + 1, length, node) != 0));
	if (!descriptor_check(prefix, length, node))
		check_find(prefix);
	free(prefix);
	return 0;
}
