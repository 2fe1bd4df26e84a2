// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: whatever comes in place of a ClientHello, the flight that answers it is the same each time that it is made
 * from the same seed; a handshake completes only for who said nothing but what its own TLS did, and both ends then have
 * one exporter; whatever comes after it is plaintext of the peer's, or the end.
 *
 * The input is a byte of what is changed, edits (place, two bytes, and value) of the ClientHello or of the client's
 * second flight, and bytes that come in place of the one or behind the other.
 */

#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "core.h"
#include "script.h"
#include "tls_random.h"

enum change {
	OWN_HELLO = 1,   /* all that is left of the input */
	HELLO_EDITS = 2, /* of the client's */
	CUT_HELLO = 4,
	FINISH_EDITS = 8,
	MORE_BEHIND = 16, /* what is left of the input */
	SENDS_DATA = 32,
};

enum {
	ROOM = 16384,
};

static const uint8_t SEED[ACCORD_TLS_SEED] = "the seed of what is repeatable";
static const uint8_t ALPN[] = "\x08http/1.1";

static struct accord_tls_identity *identity;
static SSL_CTX *clients;

/* A certificate of its own, and clients that believe any. */
static void prepare(void)
{
	EVP_PKEY *key;
	X509 *certificate = X509_new();
	PKCS8_PRIV_KEY_INFO *bare;
	uint8_t *chain = NULL, *raw = NULL;
	char text[ACCORD_TLS_TEXT];
	int chain_length, raw_length;

	HOLD(tls_random_seed(SEED));
	key = EVP_PKEY_Q_keygen(tls_library(), NULL, "EC", "P-256");
	HOLD(key && certificate);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
	X509_time_adj_ex(X509_getm_notBefore(certificate), -1, 0, NULL);
	X509_time_adj_ex(X509_getm_notAfter(certificate), 3650, 0, NULL);
	X509_set_pubkey(certificate, key);
	HOLD(X509_sign(certificate, key, EVP_sha256()) > 0);
	chain_length = i2d_X509(certificate, &chain);
	bare = EVP_PKEY2PKCS8(key);
	raw_length = i2d_PKCS8_PRIV_KEY_INFO(bare, &raw);
	HOLD(chain_length > 0 && raw_length > 0);
	identity = accord_tls_identity_new(chain, (uint32_t)chain_length, raw, (uint32_t)raw_length, 0, text);
	HOLD(identity);
	clients = SSL_CTX_new_ex(tls_library(), NULL, TLS_client_method());
	HOLD(clients && SSL_CTX_set_min_proto_version(clients, TLS1_3_VERSION));
	HOLD(SSL_CTX_set1_groups_list(clients, "X25519") == 1);
	tls_random_kernel();
	OPENSSL_free(chain);
	OPENSSL_free(raw);
	PKCS8_PRIV_KEY_INFO_free(bare);
	X509_free(certificate);
	EVP_PKEY_free(key);
}

/* A client whose numbers are the same each time, and its ClientHello. */
static SSL *begin(uint8_t *hello, uint32_t *length)
{
	SSL *client = SSL_new(clients);

	HOLD(client && tls_random_seed(SEED));
	SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
	SSL_set_connect_state(client);
	HOLD(SSL_set_alpn_protos(client, ALPN, sizeof(ALPN) - 1) == 0);
	SSL_do_handshake(client);
	tls_random_kernel();
	*length = (uint32_t)BIO_read(SSL_get_wbio(client), hello, ROOM);
	return client;
}

/* Returns whether anything is another byte than it was. */
static bool edit(struct script *script, uint8_t *bytes, uint32_t length)
{
	bool changed = false;

	for (uint32_t edits = pull(script) % 8; edits && length; edits--) {
		uint32_t at = ((uint32_t)pull(script) << 8 | pull(script)) % length;
		uint8_t by = pull(script);

		bytes[at] ^= by;
		changed |= by != 0;
	}
	return changed;
}

static struct accord_tls *answered(const uint8_t *hello, uint32_t length, int *result, uint8_t *flight, uint32_t *taken)
{
	char text[ACCORD_TLS_TEXT];
	struct accord_tls *tls = accord_tls_new(identity, ALPN, sizeof(ALPN) - 1, "X25519", text);
	/* Of exactly its size, so that the sanitizer sees a read beyond it. */
	uint8_t *exact = malloc(length ? length : 1);

	HOLD(tls && exact);
	memcpy(exact, hello, length);
	*result = accord_tls_answer(tls, SEED, NULL, exact, length);
	*taken = accord_tls_take(tls, flight, ROOM);
	free(exact);
	return tls;
}

static void read_all(struct accord_tls *tls, bool may_say)
{
	uint8_t plain[256];
	int got;

	while ((got = accord_tls_read(tls, plain, sizeof(plain))) > 0)
		HOLD(may_say && got <= (int)sizeof(plain));
	HOLD(got == ACCORD_TLS_CLOSED || got == ACCORD_TLS_MORE || got == ACCORD_TLS_FAILED);
}

/* The client's second flight, changed or not, and what comes behind it. */
static void finish(struct script *script, uint8_t what, SSL *client, struct accord_tls *tls, const uint8_t *flight,
                   uint32_t taken)
{
	static const char label[] = "EXPORTER-fuzz";
	uint8_t bytes[ROOM], ours[32], theirs[32];
	bool changed = false;
	uint32_t length;
	int result;

	BIO_write(SSL_get_rbio(client), flight, (int)taken);
	HOLD(SSL_do_handshake(client) == 1);
	if (what & SENDS_DATA)
		HOLD(SSL_write(client, "data", 4) == 4);
	length = (uint32_t)BIO_read(SSL_get_wbio(client), bytes, ROOM / 2);
	if (what & FINISH_EDITS)
		changed = edit(script, bytes, length);
	if (what & MORE_BEHIND) {
		uint32_t more = script->left < ROOM / 4 ? (uint32_t)script->left : ROOM / 4;

		if (more)
			memcpy(bytes + length, script->bytes, more);
		length += more;
	}
	result = accord_tls_feed(tls, bytes, length);
	if (!result)
		result = accord_tls_handshake(tls);
	if (!changed)
		HOLD(result == 0);
	if (!result) {
		HOLD(!accord_tls_export(tls, label, ours, sizeof(ours)));
		HOLD(SSL_export_keying_material(client, theirs, sizeof(theirs), label, sizeof(label) - 1, NULL, 0, 0) == 1);
		HOLD(!memcmp(ours, theirs, sizeof(ours)));
		read_all(tls, what & SENDS_DATA);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct script script = {.bytes = bytes, .left = size};
	static uint8_t hello[ROOM], flights[2][ROOM];
	uint32_t length, taken[2];
	int results[2];
	struct accord_tls *one, *other;
	bool changed = false;
	uint8_t what;
	SSL *client;

	if (!identity)
		prepare();
	what = pull(&script);
	client = begin(hello, &length);
	if (what & HELLO_EDITS)
		changed = edit(&script, hello, length);
	if (what & CUT_HELLO && length) {
		length = ((uint32_t)pull(&script) << 8 | pull(&script)) % length;
		changed = true;
	}
	if (what & OWN_HELLO) {
		length = script.left < ROOM ? (uint32_t)script.left : ROOM;
		if (length)
			memcpy(hello, script.bytes, length);
		changed = true;
	}
	one = answered(hello, length, &results[0], flights[0], &taken[0]);
	other = answered(hello, length, &results[1], flights[1], &taken[1]);
	HOLD(results[0] == results[1] && taken[0] == taken[1]);
	HOLD(!memcmp(flights[0], flights[1], taken[0]));
	if (!changed) {
		HOLD(results[0] == 0);
		/* The one that was made again goes on. */
		finish(&script, what, client, other, flights[0], taken[0]);
	}
	accord_tls_free(one);
	accord_tls_free(other);
	SSL_free(client);
	return 0;
}
