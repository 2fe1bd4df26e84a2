/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One pass over bytes: their checksum (RFC 1071), and a fingerprint that tells contents apart, for the price of
 * one more addition a word.
 */
#ifndef ACCORD_CHECKSUM_H
#define ACCORD_CHECKSUM_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct checksum {
	uint64_t sum;         /* of 16-bit words in the host's order, not folded yet */
	uint64_t fingerprint; /* of contents, order and length; only of use within one process */
};

/* The sum alone, of a header: length is a multiple of 4 that the compiler knows. */
static inline uint64_t checksum_header(const uint8_t *bytes, uint32_t length)
{
	uint64_t sum = 0;
	uint32_t word;

	for (; length; bytes += sizeof(word), length -= (uint32_t)sizeof(word)) {
		memcpy(&word, bytes, sizeof(word));
		sum += word;
	}
	return sum;
}

struct checksum checksum_scan(const uint8_t *bytes, uint32_t length);
/* The same, as on processors without wide registers. */
struct checksum checksum_scan_narrow(const uint8_t *bytes, uint32_t length);

/* The sum folded to 16 bits, as a number in network order: 0xffff over what holds its own checksum. Sums of pieces
 * may be added before; all but the last must be of even length. */
static inline uint16_t checksum_fold(uint64_t sum)
{
	uint8_t bytes[2];
	uint16_t folded;

	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	folded = (uint16_t)sum;
	memcpy(bytes, &folded, sizeof(bytes));
	return (uint16_t)(bytes[0] << 8 | bytes[1]);
}

/* Is this the sum over something that holds its own checksum, and is not all zeros? As if it folded to 0xffff. */
static inline bool checksum_holds(uint64_t sum)
{
	return sum && sum % 0xffff == 0;
}

#endif /* ACCORD_CHECKSUM_H */
