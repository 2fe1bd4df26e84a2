// SPDX-License-Identifier: Apache-2.0
/* OpenSSL made repeatable: what is random there comes from the seed while there is one, and from the kernel else. */
#include <string.h>

#include <openssl/evp.h>
#include <openssl/rand.h>

#include "check.h"
#include "core.h"
#include "tls_random.h"

enum {
	BYTES = 100,
};

static const uint8_t SEED[TLS_SEED_BYTES] = {1, 2, 3};

static void draw(uint8_t *out, bool private)
{
	int done =
		private ? RAND_priv_bytes_ex(tls_library(), out, BYTES, 256) : RAND_bytes_ex(tls_library(), out, BYTES, 256);

	CHECK(done == 1);
}

static void the_same_seed_gives_the_same_numbers_and_goes_on(void)
{
	uint8_t one[2][BYTES], other[2][BYTES];

	for (int round = 0; round < 2; round++) {
		CHECK(tls_random_seed(SEED));
		draw(round ? other[0] : one[0], false);
		draw(round ? other[1] : one[1], true);
		tls_random_kernel();
	}
	CHECK(memcmp(one, other, sizeof(one)) == 0);
	CHECK(memcmp(one[0], one[1], BYTES) != 0);
}

static void a_seed_is_the_key_of_chacha20_with_a_nonce_of_zeros(void)
{
	/* RFC 8439, A.1, test vector #1: a key of zeros, block 0. */
	static const uint8_t expected[] = {0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90,
	                                   0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd, 0x28};
	static const uint8_t zeros[TLS_SEED_BYTES];
	uint8_t drawn[BYTES];

	CHECK(tls_random_seed(zeros));
	draw(drawn, false);
	tls_random_kernel();
	CHECK(memcmp(drawn, expected, sizeof(expected)) == 0);
}

static void without_a_seed_the_kernel_is_asked(void)
{
	uint8_t one[BYTES], other[BYTES];

	CHECK(tls_random_seed(SEED));
	draw(one, false);
	tls_random_kernel();
	draw(other, false);
	CHECK(memcmp(one, other, BYTES) != 0);
	draw(one, false);
	CHECK(memcmp(one, other, BYTES) != 0);
}

static void a_key_is_a_function_of_the_seed(void)
{
	uint8_t keys[2][32];

	for (int round = 0; round < 2; round++) {
		size_t length = sizeof(keys[round]);
		EVP_PKEY *key;

		CHECK(tls_random_seed(SEED));
		key = EVP_PKEY_Q_keygen(tls_library(), NULL, "X25519");
		tls_random_kernel();
		CHECK(key && EVP_PKEY_get_raw_public_key(key, keys[round], &length) == 1);
		EVP_PKEY_free(key);
	}
	CHECK(memcmp(keys[0], keys[1], sizeof(keys[0])) == 0);
}

static void what_is_no_certificate_and_no_key_is_refused_with_a_text(void)
{
	static const uint8_t rubbish[] = {0x30, 0x03, 0x02, 0x01};
	char text[ACCORD_TLS_TEXT] = "";

	CHECK(!accord_tls_identity_new(rubbish, sizeof(rubbish), rubbish, sizeof(rubbish), 0, text));
	CHECK(text[0]);
	CHECK(!accord_tls_identity_new(rubbish, 0, rubbish, 0, 0, text));
}

int main(void)
{
	RUN(the_same_seed_gives_the_same_numbers_and_goes_on);
	RUN(a_seed_is_the_key_of_chacha20_with_a_nonce_of_zeros);
	RUN(without_a_seed_the_kernel_is_asked);
	RUN(a_key_is_a_function_of_the_seed);
	RUN(what_is_no_certificate_and_no_key_is_refused_with_a_text);
	return check_report("test_tls_server");
}
