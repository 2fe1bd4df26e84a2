// SPDX-License-Identifier: Apache-2.0
#include "core.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include "tls_exchange.h"
#include "tls_random.h"

_Static_assert(sizeof(struct accord_tls_exchange) == (int)ACCORD_TLS_HYBRID_SHARE + (int)ACCORD_TLS_HYBRID_SECRET,
               "one exchange");
_Static_assert((int)ACCORD_TLS_SEED == (int)TLS_SEED_BYTES, "one seed");

struct accord_tls_identity {
	SSL_CTX *context;
	uint8_t *key; /* DER, of an RSA key: see own_key; else NULL */
	uint32_t key_length;
};

struct accord_tls {
	SSL *ssl;
	BIO *in, *out; /* the SSL's */
	uint32_t alpn_length;
	uint8_t alpn[256];
	uint32_t secrets_length;
	char text[ACCORD_TLS_TEXT];
	char secrets[ACCORD_TLS_SECRETS];
};

/* As browsers order them: processors have instructions for SHA-256, and none for SHA-384. The same as in
 * ctrl/accord/protocols/tls_context.py: load does not choose the cryptography. */
static const char CIPHERS[] = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";

/* OpenSSL's words for what went wrong first, and its queue of errors empty: it is the whole thread's. */
static void tell(char *text, const char *otherwise)
{
	unsigned long code = ERR_get_error();
	const char *words = code ? ERR_reason_error_string(code) : NULL;

	snprintf(text, ACCORD_TLS_TEXT, "%s", words ? words : otherwise);
	ERR_clear_error();
}

/* ---- Callbacks ---- */

static int select_alpn(SSL *ssl, const unsigned char **chosen, unsigned char *length, const unsigned char *offered,
                       unsigned int offered_length, void *unused)
{
	const struct accord_tls *tls = SSL_get_app_data(ssl);

	(void)unused;
	if (!tls->alpn_length)
		return SSL_TLSEXT_ERR_NOACK;
	/* Ours is the order that counts. */
	if (SSL_select_next_proto((unsigned char **)chosen, length, tls->alpn, tls->alpn_length, offered, offered_length) ==
	    OPENSSL_NPN_NEGOTIATED)
		return SSL_TLSEXT_ERR_OK;
	return SSL_TLSEXT_ERR_ALERT_FATAL; /* no_application_protocol (RFC 7301 section 3.2) */
}

static void keep_secret(const SSL *ssl, const char *line)
{
	struct accord_tls *tls = SSL_get_app_data(ssl);
	size_t length = strlen(line);

	if (length + 1 > sizeof(tls->secrets) - tls->secrets_length)
		return;
	memcpy(tls->secrets + tls->secrets_length, line, length);
	tls->secrets[tls->secrets_length + length] = '\n';
	tls->secrets_length += (uint32_t)length + 1;
}

/* ---- Identities ---- */

static int use_chain(SSL_CTX *context, const uint8_t *chain, uint32_t length)
{
	const unsigned char *at = chain, *end = chain + length;
	int done = 0;

	while (at < end) {
		X509 *certificate = X509_new_ex(tls_library(), NULL);

		if (!certificate)
			return 0;
		if (!d2i_X509(&certificate, &at, end - at))
			return 0; /* which frees it */
		if (!done)
			done = SSL_CTX_use_certificate(context, certificate);
		else
			done = (int)SSL_CTX_add1_chain_cert(context, certificate);
		X509_free(certificate);
		if (!done)
			return 0;
	}
	return done;
}

static EVP_PKEY *decode_key(const uint8_t *key, uint32_t length)
{
	const unsigned char *at = key;

	return d2i_AutoPrivateKey_ex(NULL, &at, length, tls_library(), NULL);
}

static int use_key(struct accord_tls_identity *identity, const uint8_t *key, uint32_t length)
{
	EVP_PKEY *decoded = decode_key(key, length);
	int done = decoded && SSL_CTX_use_PrivateKey(identity->context, decoded);

	if (done && EVP_PKEY_is_a(decoded, "RSA")) {
		identity->key = OPENSSL_memdup(key, length);
		identity->key_length = length;
		done = identity->key != NULL;
	}
	EVP_PKEY_free(decoded);
	return done;
}

static int configure(SSL_CTX *context, uint32_t keep_secrets)
{
	SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_alpn_select_cb(context, select_alpn, NULL);
	if (keep_secrets)
		SSL_CTX_set_keylog_callback(context, keep_secret);
	return SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) &&
	       SSL_CTX_set_max_proto_version(context, TLS1_3_VERSION) && SSL_CTX_set_ciphersuites(context, CIPHERS) &&
	       SSL_CTX_set_num_tickets(context, 0);
}

struct accord_tls_identity *accord_tls_identity_new(const uint8_t *chain, uint32_t chain_length, const uint8_t *key,
                                                    uint32_t key_length, uint32_t keep_secrets, char *text)
{
	struct accord_tls_identity *identity = NULL;

	ERR_clear_error();
	if (tls_library())
		identity = OPENSSL_zalloc(sizeof(*identity));
	if (identity) {
		identity->context = SSL_CTX_new_ex(tls_library(), NULL, TLS_server_method());
		if (identity->context && configure(identity->context, keep_secrets) &&
		    use_chain(identity->context, chain, chain_length) && use_key(identity, key, key_length))
			return identity;
	}
	tell(text, "out of memory");
	accord_tls_identity_free(identity);
	return NULL;
}

void accord_tls_identity_free(struct accord_tls_identity *identity)
{
	if (!identity)
		return;
	SSL_CTX_free(identity->context);
	OPENSSL_clear_free(identity->key, identity->key_length);
	OPENSSL_free(identity);
}

/* ---- Connections ---- */

/* An RSA key blinds its signatures with numbers that it draws once and changes with each use: it remembers. A key that
 * was decoded for this connection alone has nothing to remember. */
static int own_key(const struct accord_tls_identity *identity, SSL *ssl)
{
	EVP_PKEY *decoded;
	int done;

	if (!identity->key)
		return 1;
	decoded = decode_key(identity->key, identity->key_length);
	done = decoded && SSL_use_PrivateKey(ssl, decoded);
	EVP_PKEY_free(decoded);
	return done;
}

struct accord_tls *accord_tls_new(struct accord_tls_identity *identity, const uint8_t *alpn, uint32_t alpn_length,
                                  const char *group, char *text)
{
	struct accord_tls *tls = OPENSSL_zalloc(sizeof(*tls));
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());

	ERR_clear_error();
	if (tls)
		tls->ssl = SSL_new(identity->context);
	if (!tls || !tls->ssl || !in || !out || alpn_length > sizeof(tls->alpn)) {
		BIO_free(in);
		BIO_free(out);
	} else {
		tls->in = in;
		tls->out = out;
		tls->alpn_length = alpn_length;
		if (alpn_length)
			memcpy(tls->alpn, alpn, alpn_length);
		BIO_set_mem_eof_return(in, -1); /* empty: more will come */
		SSL_set_bio(tls->ssl, in, out);
		SSL_set_app_data(tls->ssl, tls);
		SSL_set_accept_state(tls->ssl);
		if (SSL_set1_groups_list(tls->ssl, group) && own_key(identity, tls->ssl))
			return tls;
	}
	tell(text, "out of memory");
	accord_tls_free(tls);
	return NULL;
}

void accord_tls_free(struct accord_tls *tls)
{
	if (!tls)
		return;
	SSL_free(tls->ssl);
	OPENSSL_clear_free(tls, sizeof(*tls));
}

/* What a call of OpenSSL's that did not succeed came to. */
static int result_of(struct accord_tls *tls, int returned)
{
	int error = SSL_get_error(tls->ssl, returned);

	if (error == SSL_ERROR_WANT_READ)
		return ACCORD_TLS_MORE;
	if (error == SSL_ERROR_ZERO_RETURN)
		return ACCORD_TLS_CLOSED;
	tell(tls->text, "the connection failed");
	return ACCORD_TLS_FAILED;
}

int accord_tls_feed(struct accord_tls *tls, const uint8_t *bytes, uint32_t length)
{
	if (length && (length > INT_MAX || BIO_write(tls->in, bytes, (int)length) != (int)length)) {
		tell(tls->text, "out of memory");
		return ACCORD_TLS_FAILED;
	}
	return 0;
}

int accord_tls_answer(struct accord_tls *tls, const uint8_t *seed, const struct accord_tls_exchange *exchange,
                      const uint8_t *hello, uint32_t length)
{
	int result = accord_tls_feed(tls, hello, length);
	uint8_t key[16];

	if (result)
		return result;
	if (!tls_random_seed(seed)) {
		tell(tls->text, "out of memory");
		return ACCORD_TLS_FAILED;
	}
	tls_exchange_put(exchange);
	/* Complete it cannot be: the client's Finished was not fed. */
	result = accord_tls_handshake(tls);
	tls_exchange_put(NULL);
	tls_random_kernel();
	/* The keys that are exported are there when our own Finished is: not after half a hello, nor a HelloRetryRequest.
	 */
	if (result == ACCORD_TLS_MORE && !accord_tls_export(tls, "EXPORTER-accord-whole", key, sizeof(key)))
		result = 0;
	OPENSSL_cleanse(key, sizeof(key));
	return result;
}

uint32_t accord_tls_take(struct accord_tls *tls, uint8_t *bytes, uint32_t room)
{
	int taken = room ? BIO_read(tls->out, bytes, room > INT_MAX ? INT_MAX : (int)room) : 0;

	return taken > 0 ? (uint32_t)taken : 0;
}

int accord_tls_handshake(struct accord_tls *tls)
{
	int returned;

	ERR_clear_error();
	returned = SSL_do_handshake(tls->ssl);
	return returned == 1 ? 0 : result_of(tls, returned);
}

int accord_tls_export(struct accord_tls *tls, const char *label, uint8_t *key, uint32_t length)
{
	ERR_clear_error();
	if (SSL_export_keying_material(tls->ssl, key, length, label, strlen(label), NULL, 0, 0) == 1)
		return 0;
	tell(tls->text, "the keys are not there yet");
	return ACCORD_TLS_FAILED;
}

int accord_tls_read(struct accord_tls *tls, uint8_t *bytes, uint32_t room)
{
	int returned;

	ERR_clear_error();
	returned = SSL_read(tls->ssl, bytes, room > INT_MAX ? INT_MAX : (int)room);
	return returned > 0 ? returned : result_of(tls, returned);
}

int accord_tls_write(struct accord_tls *tls, const uint8_t *bytes, uint32_t length)
{
	ERR_clear_error();
	/* A memory buffer takes all of it, or fails. */
	if (!length || (length <= INT_MAX && SSL_write(tls->ssl, bytes, (int)length) == (int)length))
		return 0;
	tell(tls->text, "the connection failed");
	return ACCORD_TLS_FAILED;
}

int accord_tls_finish(struct accord_tls *tls)
{
	ERR_clear_error();
	if (SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN || SSL_shutdown(tls->ssl) >= 0)
		return 0;
	tell(tls->text, "the connection failed");
	return ACCORD_TLS_FAILED;
}

void accord_tls_agreed(const struct accord_tls *tls, struct accord_tls_agreed *agreed)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(tls->ssl);
	const unsigned char *alpn = NULL;
	unsigned int length = 0;
	const char *group;
	int nid;

	memset(agreed, 0, sizeof(*agreed));
	SSL_get0_alpn_selected(tls->ssl, &alpn, &length);
	agreed->alpn_length = length;
	if (length)
		memcpy(agreed->alpn, alpn, length);
	if (!cipher)
		return;
	nid = (int)SSL_get_negotiated_group(tls->ssl);
	group = OBJ_nid2sn(nid) ? OBJ_nid2sn(nid) : SSL_group_to_name(tls->ssl, nid);
	snprintf(agreed->cipher, sizeof(agreed->cipher), "%s", SSL_CIPHER_get_name(cipher));
	snprintf(agreed->version, sizeof(agreed->version), "%s", SSL_get_version(tls->ssl));
	snprintf(agreed->group, sizeof(agreed->group), "%s", group ? group : "");
}

const char *accord_tls_text(const struct accord_tls *tls)
{
	return tls->text;
}

uint32_t accord_tls_secrets(struct accord_tls *tls, uint8_t *lines, uint32_t room)
{
	uint32_t length = tls->secrets_length < room ? tls->secrets_length : room;

	memcpy(lines, tls->secrets, length);
	OPENSSL_cleanse(tls->secrets, sizeof(tls->secrets));
	tls->secrets_length = 0;
	return length;
}
