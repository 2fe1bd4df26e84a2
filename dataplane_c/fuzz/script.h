/* SPDX-License-Identifier: Apache-2.0 */
/* What the targets share: an input that is read as a script, and an end that says which condition did not hold. */
#ifndef ACCORD_FUZZ_SCRIPT_H
#define ACCORD_FUZZ_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static inline void fuzz_hold(bool condition, const char *what, const char *file, int line)
{
	if (condition)
		return;
	fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
	abort();
}

#define HOLD(condition) fuzz_hold(condition, #condition, __FILE__, __LINE__)

struct script {
	const uint8_t *bytes;
	size_t left;
};

/* The next byte; 0 when there is none. */
static inline uint8_t pull(struct script *script)
{
	if (!script->left)
		return 0;
	script->left--;
	return *script->bytes++;
}

/* Up to so many bytes; returns how many. */
static inline uint32_t pull_bytes(struct script *script, uint8_t *to, uint32_t length)
{
	if (length > script->left)
		length = (uint32_t)script->left;
	if (length)
		memcpy(to, script->bytes, length);
	script->bytes += length;
	script->left -= length;
	return length;
}

#endif /* ACCORD_FUZZ_SCRIPT_H */
