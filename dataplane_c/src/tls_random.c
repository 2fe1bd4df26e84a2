// SPDX-License-Identifier: Apache-2.0
/*
 * A seed becomes the key stream of ChaCha20 (RFC 8439) with this key and a nonce of zeros: one stream for one
 * handshake, since a seed serves one ClientHello. OpenSSL keeps three generators to a context (primary, public,
 * private); here they are one, so only the order of its own requests matters, and that is the same each time.
 */
#include "tls_random.h"

#include <stddef.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/provider.h>
#include <openssl/rand.h>

#include "tls_exchange.h"

enum {
	STRENGTH_BITS = 256,
	MAX_REQUEST = 1 << 16,
	CHACHA_IV_BYTES = 16,     /* counter and nonce, as OpenSSL wants them */
	WITH_HYBRID = 0x30500000, /* from this version on OpenSSL has the group of tls_exchange.h itself */
};

static _Thread_local EVP_CIPHER_CTX *stream; /* NULL: the kernel's */

/* ---- Where the numbers come from ---- */

static int from_kernel(uint8_t *out, size_t length)
{
	while (length) {
		ssize_t got = getrandom(out, length, 0);

		if (got < 0)
			return 0;
		out += got;
		length -= (size_t)got;
	}
	return 1;
}

static int from_stream(uint8_t *out, size_t length)
{
	int written;

	memset(out, 0, length);
	return EVP_EncryptUpdate(stream, out, &written, out, (int)length);
}

bool tls_random_seed(const uint8_t seed[TLS_SEED_BYTES])
{
	static const uint8_t start[CHACHA_IV_BYTES];
	EVP_CIPHER_CTX *made = EVP_CIPHER_CTX_new();

	tls_random_kernel();
	/* Of the process's default context: it must not draw from what it feeds. */
	if (!made || !EVP_EncryptInit_ex(made, EVP_chacha20(), NULL, seed, start)) {
		EVP_CIPHER_CTX_free(made);
		return false;
	}
	stream = made;
	return true;
}

void tls_random_kernel(void)
{
	EVP_CIPHER_CTX_free(stream);
	stream = NULL;
}

/* ---- The RAND that OpenSSL fetches: provider-rand(7) ---- */

struct generator {
	int state;
};

static void *generator_new(void *provider, void *parent, const OSSL_DISPATCH *parent_calls)
{
	struct generator *made = OPENSSL_zalloc(sizeof(*made));

	(void)provider;
	(void)parent;
	(void)parent_calls;
	if (made)
		made->state = EVP_RAND_STATE_UNINITIALISED;
	return made;
}

static void generator_free(void *generator)
{
	OPENSSL_free(generator);
}

static int generator_instantiate(void *generator, unsigned int strength, int resist, const unsigned char *text,
                                 size_t length, const OSSL_PARAM parameters[])
{
	(void)strength;
	(void)resist;
	(void)text;
	(void)length;
	(void)parameters;
	((struct generator *)generator)->state = EVP_RAND_STATE_READY;
	return 1;
}

static int generator_uninstantiate(void *generator)
{
	((struct generator *)generator)->state = EVP_RAND_STATE_UNINITIALISED;
	return 1;
}

static int generator_generate(void *generator, unsigned char *out, size_t length, unsigned int strength, int resist,
                              const unsigned char *text, size_t text_length)
{
	(void)generator;
	(void)strength;
	(void)resist;
	(void)text;
	(void)text_length;
	return stream ? from_stream(out, length) : from_kernel(out, length);
}

static int generator_enable_locking(void *generator)
{
	(void)generator;
	return 1; /* what there is of state is the thread's own */
}

static int generator_parameters(void *generator, OSSL_PARAM parameters[])
{
	OSSL_PARAM *found;

	found = OSSL_PARAM_locate(parameters, OSSL_RAND_PARAM_STATE);
	if (found && !OSSL_PARAM_set_int(found, ((struct generator *)generator)->state))
		return 0;
	found = OSSL_PARAM_locate(parameters, OSSL_RAND_PARAM_STRENGTH);
	if (found && !OSSL_PARAM_set_uint(found, STRENGTH_BITS))
		return 0;
	found = OSSL_PARAM_locate(parameters, OSSL_RAND_PARAM_MAX_REQUEST);
	return !found || OSSL_PARAM_set_size_t(found, MAX_REQUEST);
}

static const OSSL_PARAM *generator_parameter_names(void *generator, void *provider)
{
	static const OSSL_PARAM names[] = {
		OSSL_PARAM_int(OSSL_RAND_PARAM_STATE, NULL),
		OSSL_PARAM_uint(OSSL_RAND_PARAM_STRENGTH, NULL),
		OSSL_PARAM_size_t(OSSL_RAND_PARAM_MAX_REQUEST, NULL),
		OSSL_PARAM_END,
	};

	(void)generator;
	(void)provider;
	return names;
}

static const OSSL_DISPATCH generator_calls[] = {
	{OSSL_FUNC_RAND_NEWCTX, (void (*)(void))generator_new},
	{OSSL_FUNC_RAND_FREECTX, (void (*)(void))generator_free},
	{OSSL_FUNC_RAND_INSTANTIATE, (void (*)(void))generator_instantiate},
	{OSSL_FUNC_RAND_UNINSTANTIATE, (void (*)(void))generator_uninstantiate},
	{OSSL_FUNC_RAND_GENERATE, (void (*)(void))generator_generate},
	{OSSL_FUNC_RAND_ENABLE_LOCKING, (void (*)(void))generator_enable_locking},
	{OSSL_FUNC_RAND_GETTABLE_CTX_PARAMS, (void (*)(void))generator_parameter_names},
	{OSSL_FUNC_RAND_GET_CTX_PARAMS, (void (*)(void))generator_parameters},
	{0, NULL},
};

/* ---- The provider: provider(7) ---- */

static const OSSL_ALGORITHM *offered(void *provider, int operation, int *no_cache)
{
	static const OSSL_ALGORITHM algorithms[] = {
		{"ACCORD-SEEDED", "provider=accord", generator_calls, "a seed's numbers, or the kernel's"},
		{NULL, NULL, NULL, NULL},
	};

	(void)provider;
	*no_cache = 0;
	switch (operation) {
	case OSSL_OP_RAND:
		return algorithms;
	case OSSL_OP_KEYMGMT:
		return OpenSSL_version_num() < WITH_HYBRID ? tls_exchange_keys : NULL;
	case OSSL_OP_KEM:
		return OpenSSL_version_num() < WITH_HYBRID ? tls_exchange_kems : NULL;
	default:
		return NULL;
	}
}

static int capable(void *provider, const char *capability, OSSL_CALLBACK *tell, void *argument)
{
	(void)provider;
	return strcmp(capability, "TLS-GROUP") != 0 || OpenSSL_version_num() >= WITH_HYBRID ||
	       tls_exchange_capability(tell, argument);
}

static int provider_start(const OSSL_CORE_HANDLE *handle, const OSSL_DISPATCH *core, const OSSL_DISPATCH **calls,
                          void **provider)
{
	static const OSSL_DISPATCH ours[] = {
		{OSSL_FUNC_PROVIDER_QUERY_OPERATION, (void (*)(void))offered},
		{OSSL_FUNC_PROVIDER_GET_CAPABILITIES, (void (*)(void))capable},
		{0, NULL},
	};
	static int nothing;

	(void)handle;
	(void)core;
	*calls = ours;
	*provider = &nothing;
	return 1;
}

OSSL_LIB_CTX *tls_library(void)
{
	static OSSL_LIB_CTX *library;
	OSSL_LIB_CTX *made;

	if (library)
		return library;
	made = OSSL_LIB_CTX_new();
	if (made && OSSL_PROVIDER_add_builtin(made, "accord", provider_start) && OSSL_PROVIDER_load(made, "accord") &&
	    OSSL_PROVIDER_load(made, "default") && RAND_set_DRBG_type(made, "ACCORD-SEEDED", "provider=accord", NULL, NULL))
		library = made; /* for as long as the process lives, as OpenSSL's own default one */
	else
		OSSL_LIB_CTX_free(made);
	return library;
}
