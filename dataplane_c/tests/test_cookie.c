// SPDX-License-Identifier: Apache-2.0
/* The cookie itself: SipHash, what it is bound to, how long it lives. */
#include "strangers.h"

/* Aumasson and Bernstein, SipHash, appendix A, and vectors.h of the reference code: key and input are 0, 1, 2, ... */
static void siphash_is_that_of_the_reference_vectors(void)
{
	__u64 words[7];
	uint8_t bytes[sizeof(words)];

	for (uint8_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = i;
	memcpy(words, bytes, sizeof(words));
	CHECK_EQUAL(accord_siphash(words, 0, RING.keys[0].words), UINT64_C(0x726fdb47dd0e0e31));
	CHECK_EQUAL(accord_siphash(words, 1, RING.keys[0].words), UINT64_C(0x93f5f5799a932462));
	CHECK_EQUAL(accord_siphash(words, 2, RING.keys[0].words), UINT64_C(0x3f2acc7f57c29bdb));
	CHECK_EQUAL(accord_siphash(words, 4, RING.keys[0].words), UINT64_C(0x7127512f72f27cce));
	CHECK_EQUAL(accord_siphash(words, 7, RING.keys[0].words), UINT64_C(0xb78dbfaf3a8d83bd));
}

static void a_cookie_is_good_for_its_packet_and_path_alone(void)
{
	struct accord_path path = test_path(4, false), other;
	struct packet packet, with;
	uint8_t cookie[ACCORD_COOKIE_BYTES], bent[ACCORD_COOKIE_BYTES];
	struct craft craft;
	uint8_t id[ACCORD_TRANSACTION_BYTES];

	for (uint8_t family = 4; family <= 6; family += 2) {
		path = test_path(family, false);
		craft_proposal(&craft, ID);
		parse(&packet, &craft);
		cookie_make(&RING, &path, &packet, cookie);
		with = packet;
		with.cookie = cookie;
		CHECK_EQUAL(cookie_check(&RING, &path, &with), COOKIE_GOOD);
		for (uint32_t bit = 0; bit < 8 * ACCORD_COOKIE_BYTES; bit++) {
			memcpy(bent, cookie, sizeof(bent));
			bent[bit / 8] ^= (uint8_t)(1u << bit % 8);
			with.cookie = bent;
			CHECK(cookie_check(&RING, &path, &with) != COOKIE_GOOD);
		}
		with.cookie = cookie;
		for (uint32_t byte = 0; byte < (family == 4 ? 4u : 16u); byte++) {
			other = path;
			other.remote[byte] ^= 1;
			CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
			other = path;
			other.local[byte] ^= 1;
			CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
		}
		other = path;
		other.remote_port ^= 1;
		CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
		other = path;
		other.local_port ^= 1;
		CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
		other = path;
		other.context = ACCORD_PROTOCOL_DIRECT;
		CHECK_EQUAL(cookie_check(&RING, &other, &with), COOKIE_FORGED);
		for (uint32_t byte = 0; byte < ACCORD_TRANSACTION_BYTES; byte++) {
			memcpy(id, ID, sizeof(id));
			id[byte] ^= 1;
			with.transaction = id;
			CHECK_EQUAL(cookie_check(&RING, &path, &with), COOKIE_FORGED);
		}
	}
}

static void a_cookie_lives_for_some_slots_and_as_long_as_its_key(void)
{
	struct accord_path path = test_path(4, false);
	struct accord_cookie_ring ring = RING;
	uint8_t cookie[ACCORD_COOKIE_BYTES];
	struct packet packet;
	struct craft craft;

	craft_proposal(&craft, ID);
	parse(&packet, &craft);
	cookie_make(&ring, &path, &packet, cookie);
	packet.cookie = cookie;
	for (int32_t ahead = -70000; ahead < 70000; ahead++) {
		int32_t age = (int16_t)ahead;

		ring.slot = (uint32_t)(1000 + ahead) & 0xffff;
		CHECK_EQUAL(cookie_check(&ring, &path, &packet),
		            age >= -1 && age <= ACCORD_COOKIE_SLOTS ? COOKIE_GOOD : COOKIE_STALE);
	}
	ring = RING;
	ring.current = 1;
	CHECK_EQUAL(cookie_check(&ring, &path, &packet), COOKIE_GOOD); /* rotated once */
	ring.keys[0] = (struct accord_cookie_key){{1, 2}, 11, 1};
	CHECK_EQUAL(cookie_check(&ring, &path, &packet), COOKIE_STALE); /* and twice */
	ring.keys[0] = (struct accord_cookie_key){{1, 2}, 7, 1};
	CHECK_EQUAL(cookie_check(&ring, &path, &packet), COOKIE_FORGED); /* another key of that number */
}

int main(void)
{
	RUN(siphash_is_that_of_the_reference_vectors);
	RUN(a_cookie_is_good_for_its_packet_and_path_alone);
	RUN(a_cookie_lives_for_some_slots_and_as_long_as_its_key);
	return check_report("test_cookie");
}
