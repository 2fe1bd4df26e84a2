// SPDX-License-Identifier: Apache-2.0
/* One pass over a packet: its checksum against RFC 1071's own code, its fingerprint against all small changes. */
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "checksum.h"
#include "world.h"

enum {
	LONGEST = 9000,
};

/* RFC 1071 section 4.1, in network order. */
static uint16_t by_the_book(const uint8_t *bytes, uint32_t length)
{
	uint32_t sum = 0;

	for (uint32_t i = 0; i < length; i++) {
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return (uint16_t)sum;
}

/* In memory of exactly that length, so that a sanitizer sees a read beyond it. */
static uint8_t *exactly(uint32_t length, uint64_t *random, int fill)
{
	uint8_t *bytes = malloc(length ? length : 1);

	for (uint32_t i = 0; bytes && i < length; i++)
		bytes[i] = fill < 0 ? (uint8_t)test_random(random) : (uint8_t)fill;
	return bytes;
}

static void the_sum_is_that_of_rfc_1071_for_every_length_and_contents(void)
{
	uint64_t random = 1071;

	for (uint32_t length = 0; length <= LONGEST; length += length < 300 ? 1 : 271)
		for (int fill = -1; fill < 256; fill += 128) {
			uint8_t *bytes = exactly(length, &random, fill);

			CHECK_EQUAL(checksum_fold(checksum_scan(bytes, length).sum), by_the_book(bytes, length));
			if (length % 4 == 0)
				CHECK_EQUAL(checksum_fold(checksum_header(bytes, length)), by_the_book(bytes, length));
			free(bytes);
		}
}

static void wide_registers_change_neither_sum_nor_fingerprint(void)
{
	uint64_t random = 2;

	for (uint32_t length = 0; length < 1500; length++) {
		uint8_t *bytes = exactly(length, &random, length % 3 ? -1 : 0xff);
		struct checksum wide = checksum_scan(bytes, length), narrow = checksum_scan_narrow(bytes, length);

		CHECK_EQUAL(wide.sum, narrow.sum);
		CHECK_EQUAL(wide.fingerprint, narrow.fingerprint);
		CHECK_EQUAL(checksum_fold(narrow.sum), by_the_book(bytes, length));
		free(bytes);
	}
}

static void nothing_is_lost_where_every_bit_is_set(void)
{
	uint8_t *bytes = exactly(LONGEST, NULL, 0xff);

	for (uint32_t length = 2; length <= LONGEST; length += 2)
		CHECK_EQUAL(checksum_fold(checksum_scan(bytes, length).sum), 0xffff);
	free(bytes);
}

static void a_fingerprint_tells_every_change_of_one_bit_and_of_the_length(void)
{
	uint64_t random = 5, before;
	uint8_t *bytes = exactly(1200, &random, -1);

	for (uint32_t length = 1; length <= 1200; length += length < 70 ? 1 : 113) {
		before = checksum_scan(bytes, length).fingerprint;
		CHECK_EQUAL(checksum_scan(bytes, length).fingerprint, before);
		CHECK((uint32_t)checksum_scan(bytes, length - 1).fingerprint != (uint32_t)before);
		for (uint32_t bit = 0; bit < length * 8; bit++) {
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
			CHECK((uint32_t)checksum_scan(bytes, length).fingerprint != (uint32_t)before);
			bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
	free(bytes);
}

static void a_fingerprint_tells_zeros_by_their_number(void)
{
	static const uint8_t zeros[LONGEST];

	for (uint32_t length = 0; length < 300; length++)
		CHECK((uint32_t)checksum_scan(zeros, length).fingerprint !=
		      (uint32_t)checksum_scan(zeros, length + 1).fingerprint);
}

static void swap(uint8_t *one, uint8_t *other, uint32_t length)
{
	for (uint32_t i = 0; i < length; i++) {
		uint8_t kept = one[i];

		one[i] = other[i];
		other[i] = kept;
	}
}

/* What RFC 1071's sum cannot see. */
static void a_fingerprint_tells_the_order_of_words_of_every_size(void)
{
	uint64_t random = 7;
	uint8_t *bytes = exactly(256, &random, -1);
	uint64_t before = checksum_scan(bytes, 256).fingerprint;

	for (uint32_t size = 1; size <= 32; size *= 2)
		for (uint32_t one = 0; one < 256; one += size)
			for (uint32_t other = one + size; other < 256; other += size) {
				if (!memcmp(bytes + one, bytes + other, size))
					continue;
				swap(bytes + one, bytes + other, size);
				CHECK((uint32_t)checksum_scan(bytes, 256).fingerprint != (uint32_t)before);
				swap(bytes + one, bytes + other, size);
			}
	free(bytes);
}

int main(void)
{
	RUN(the_sum_is_that_of_rfc_1071_for_every_length_and_contents);
	RUN(wide_registers_change_neither_sum_nor_fingerprint);
	RUN(nothing_is_lost_where_every_bit_is_set);
	RUN(a_fingerprint_tells_every_change_of_one_bit_and_of_the_length);
	RUN(a_fingerprint_tells_zeros_by_their_number);
	RUN(a_fingerprint_tells_the_order_of_words_of_every_size);
	return check_report("test_checksum");
}
