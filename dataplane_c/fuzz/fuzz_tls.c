// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: whatever comes in place of a ClientHello, the flight that answers it is the same each time that it is made
 * from the same seed; a handshake completes only for who said nothing but what its own TLS did, and both ends then have
 * one exporter; whatever comes after it is plaintext of the peer's, or the end. A certificate or key that is no more
 * one is refused, or serves no handshake.
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
	HYBRID = 64,    /* the ClientHello offers X25519MLKEM768, which the client's OpenSSL may not have, and that alone */
	IDENTITY = 128, /* edits of certificate and key, instead of all else */
};

enum {
	ROOM = 16384,
};

static const uint8_t SEED[ACCORD_TLS_SEED] = "the seed of what is repeatable";
static const uint8_t ALPN[] = "\x08http/1.1";

static const struct accord_tls_exchange EXCHANGE = {.share = "a share of both", .secret = "a secret of both"};

static struct accord_tls_identity *identity;
static uint8_t *chain, *raw; /* of it, in DER */
static uint32_t chain_length, raw_length;
static SSL_CTX *clients;

/* A certificate of its own, and clients that believe any. */
static void prepare(void)
{
	EVP_PKEY *key;
	X509 *certificate = X509_new();
	PKCS8_PRIV_KEY_INFO *bare;
	char text[ACCORD_TLS_TEXT];

	HOLD(tls_random_seed(SEED));
	key = EVP_PKEY_Q_keygen(tls_library(), NULL, "EC", "P-256");
	HOLD(key && certificate);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
	X509_time_adj_ex(X509_getm_notBefore(certificate), -1, 0, NULL);
	X509_time_adj_ex(X509_getm_notAfter(certificate), 3650, 0, NULL);
	X509_set_pubkey(certificate, key);
	HOLD(X509_sign(certificate, key, EVP_sha256()) > 0);
	chain_length = (uint32_t)i2d_X509(certificate, &chain);
	bare = EVP_PKEY2PKCS8(key);
	raw_length = (uint32_t)i2d_PKCS8_PRIV_KEY_INFO(bare, &raw);
	HOLD(chain && raw && chain_length < ROOM / 2 && raw_length < ROOM / 2);
	identity = accord_tls_identity_new(chain, chain_length, raw, raw_length, 1, text);
	HOLD(identity);
	clients = SSL_CTX_new_ex(tls_library(), NULL, TLS_client_method());
	HOLD(clients && SSL_CTX_set_min_proto_version(clients, TLS1_3_VERSION));
	HOLD(SSL_CTX_set1_groups_list(clients, "X25519") == 1);
	tls_random_kernel();
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

/* In place of the client's groups and share (RFC 8446 sections 4.2.7 and 4.2.8), all of them X25519's: as many bytes of
 * a hybrid one. Returns the hello's length. */
static uint32_t make_hybrid(uint8_t *hello, uint32_t length, uint32_t share)
{
	static uint8_t made[ROOM];
	uint32_t at = 5 + 4 + 2 + 32, to, sizes, end;

	at += 1u + hello[at];                          /* session ID */
	at += 2u + (hello[at] * 256u + hello[at + 1]); /* ciphers */
	at += 1u + hello[at];                          /* compression */
	sizes = at;
	at += 2;
	memcpy(made, hello, at);
	to = at;
	while (at + 4 <= length) {
		uint32_t bytes = 4 + hello[at + 2] * 256u + hello[at + 3];

		HOLD(at + bytes <= length);
		memcpy(made + to, hello + at, bytes);
		if (hello[at + 1] == 10) { /* supported_groups: the first is the only one */
			made[to + 6] = 0x11;
			made[to + 7] = 0xec;
		}
		if (hello[at + 1] == 51) { /* key_share */
			const uint8_t head[] = {0,
			                        51,
			                        (uint8_t)((share + 6) >> 8),
			                        (uint8_t)(share + 6),
			                        (uint8_t)((share + 4) >> 8),
			                        (uint8_t)(share + 4),
			                        0x11,
			                        0xec,
			                        (uint8_t)(share >> 8),
			                        (uint8_t)share};

			memcpy(made + to, head, sizeof(head));
			memset(made + to + sizeof(head), 0x33, share);
			to += (uint32_t)sizeof(head) + share;
		} else {
			to += bytes;
		}
		at += bytes;
	}
	end = to - sizes - 2;
	made[sizes] = (uint8_t)(end >> 8);
	made[sizes + 1] = (uint8_t)end;
	made[3] = (uint8_t)((to - 5) >> 8);
	made[4] = (uint8_t)(to - 5);
	made[6] = 0;
	made[7] = (uint8_t)((to - 9) >> 8);
	made[8] = (uint8_t)(to - 9);
	memcpy(hello, made, to);
	return to;
}

static struct accord_tls *answered(const uint8_t *hello, uint32_t length, bool hybrid, int *result, uint8_t *flight,
                                   uint32_t *taken)
{
	char text[ACCORD_TLS_TEXT];
	struct accord_tls *tls =
		accord_tls_new(identity, ALPN, sizeof(ALPN) - 1, hybrid ? "X25519MLKEM768" : "X25519", text);
	/* Of exactly its size, so that the sanitizer sees a read beyond it. */
	uint8_t *exact = malloc(length ? length : 1);

	HOLD(tls && exact);
	memcpy(exact, hello, length);
	*result = accord_tls_answer(tls, SEED, hybrid ? &EXCHANGE : NULL, exact, length);
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

/* Both ways, and both ends. */
static void talk(SSL *client, struct accord_tls *tls)
{
	struct accord_tls_agreed agreed;
	uint8_t bytes[ROOM];
	uint32_t length;

	accord_tls_agreed(tls, &agreed);
	HOLD(agreed.alpn_length == ALPN[0] && !memcmp(agreed.alpn, ALPN + 1, ALPN[0]));
	HOLD(!strcmp(agreed.version, "TLSv1.3") && !strcasecmp(agreed.group, "X25519"));
	HOLD(!strcmp(agreed.cipher, SSL_CIPHER_get_name(SSL_get_current_cipher(client))));
	HOLD(!accord_tls_write(tls, ALPN, sizeof(ALPN)) && !accord_tls_write(tls, ALPN, 0));
	HOLD(!accord_tls_finish(tls) && !accord_tls_finish(tls));
	length = accord_tls_take(tls, bytes, sizeof(bytes));
	HOLD(length && BIO_write(SSL_get_rbio(client), bytes, (int)length) == (int)length);
	HOLD(SSL_read(client, bytes, sizeof(bytes)) == sizeof(ALPN) && !memcmp(bytes, ALPN, sizeof(ALPN)));
	HOLD(SSL_read(client, bytes, sizeof(bytes)) == 0);
	length = accord_tls_secrets(tls, bytes, sizeof(bytes));
	HOLD(length && bytes[length - 1] == '\n' && !accord_tls_secrets(tls, bytes, sizeof(bytes)));
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
		if (!changed && !(what & MORE_BEHIND))
			talk(client, tls);
		read_all(tls, what & SENDS_DATA);
	}
}

/* Certificate and key, changed; what is made of them is asked for a flight. */
static void try_identity(struct script *script)
{
	uint8_t certificates[ROOM], key[ROOM], hello[ROOM], flight[ROOM];
	char text[ACCORD_TLS_TEXT] = "";
	struct accord_tls_identity *ours = identity;
	uint32_t length, taken, cut = pull(script), cut_key = pull(script);
	int result;

	memcpy(certificates, chain, chain_length);
	memcpy(certificates + chain_length, chain, chain_length); /* one more, behind the own one */
	memcpy(key, raw, raw_length);
	edit(script, certificates, 2 * chain_length);
	edit(script, key, raw_length);
	identity = accord_tls_identity_new(certificates, 2 * chain_length - cut % chain_length, key,
	                                   raw_length - cut_key % raw_length, 0, text);
	HOLD(identity || text[0]);
	if (identity) {
		SSL_free(begin(hello, &length));
		accord_tls_free(answered(hello, length, false, &result, flight, &taken));
		accord_tls_identity_free(identity);
	}
	identity = ours;
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
	if (what & IDENTITY) {
		try_identity(&script);
		return 0;
	}
	client = begin(hello, &length);
	if (what & HYBRID) {
		uint32_t bent = pull(&script);

		length = make_hybrid(hello, length, ACCORD_TLS_HYBRID_ASKED - bent % 8);
		changed = true; /* there is nobody who could go on */
	}
	if (what & HELLO_EDITS)
		changed |= edit(&script, hello, length);
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
	one = answered(hello, length, what & HYBRID, &results[0], flights[0], &taken[0]);
	other = answered(hello, length, what & HYBRID, &results[1], flights[1], &taken[1]);
	HOLD(results[0] == results[1] && taken[0] == taken[1]);
	HOLD(!memcmp(flights[0], flights[1], taken[0]));
	HOLD(accord_tls_text(one)[0] || results[0] != ACCORD_TLS_FAILED);
#if OPENSSL_VERSION_NUMBER < 0x30500000L
	/* The exchange that was made elsewhere is the one that is used. */
	if (what & HYBRID && !results[0] && !(what & OWN_HELLO))
		HOLD(memmem(flights[0], taken[0], EXCHANGE.share, sizeof(EXCHANGE.share)) != NULL);
#endif
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
