// SPDX-License-Identifier: Apache-2.0
#include "tls_exchange.h"

#include <stddef.h>
#include <string.h>

#include <openssl/core_dispatch.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/params.h>
#include <openssl/ssl.h>

#define NAME "X25519MLKEM768"

enum {
	GROUP_ID = 0x11ec,
	STRENGTH_BITS = 192,
};

/* The client's share: all that there is to a key here. */
struct key {
	size_t length;
	uint8_t share[ACCORD_TLS_HYBRID_ASKED];
};

static _Thread_local const struct accord_tls_exchange *prepared;

void tls_exchange_put(const struct accord_tls_exchange *exchange)
{
	prepared = exchange;
}

/* ---- Keys: provider-keymgmt(7) ---- */

static void *key_new(void *provider)
{
	(void)provider;
	return OPENSSL_zalloc(sizeof(struct key));
}

static void key_free(void *key)
{
	OPENSSL_free(key);
}

static int key_has(const void *key, int selection)
{
	if (selection & OSSL_KEYMGMT_SELECT_PRIVATE_KEY)
		return 0;
	return !(selection & OSSL_KEYMGMT_SELECT_PUBLIC_KEY) || ((const struct key *)key)->length != 0;
}

static int key_set(void *key, const OSSL_PARAM parameters[])
{
	const OSSL_PARAM *found = OSSL_PARAM_locate_const(parameters, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY);
	struct key *into = key;
	void *to = into->share;

	if (!found)
		return 1;
	into->length = 0;
	if (found->data_size != sizeof(into->share) ||
	    !OSSL_PARAM_get_octet_string(found, &to, sizeof(into->share), &into->length))
		return 0;
	return 1;
}

static const OSSL_PARAM *key_settable(void *provider)
{
	static const OSSL_PARAM names[] = {
		OSSL_PARAM_octet_string(OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)provider;
	return names;
}

static int key_get(void *key, OSSL_PARAM parameters[])
{
	static const struct {
		const char *name;
		int value;
	} values[] = {
		{OSSL_PKEY_PARAM_BITS, ACCORD_TLS_HYBRID_ASKED * 8},
		{OSSL_PKEY_PARAM_SECURITY_BITS, STRENGTH_BITS},
		{OSSL_PKEY_PARAM_MAX_SIZE, ACCORD_TLS_HYBRID_SHARE},
	};

	(void)key;
	for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
		OSSL_PARAM *found = OSSL_PARAM_locate(parameters, values[i].name);

		if (found && !OSSL_PARAM_set_int(found, values[i].value))
			return 0;
	}
	return 1;
}

static const OSSL_PARAM *key_gettable(void *provider)
{
	static const OSSL_PARAM names[] = {
		OSSL_PARAM_int(OSSL_PKEY_PARAM_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_SECURITY_BITS, NULL),
		OSSL_PARAM_int(OSSL_PKEY_PARAM_MAX_SIZE, NULL),
		OSSL_PARAM_END,
	};

	(void)provider;
	return names;
}

/* A key without a share, "parameters alone", is what a handshake begins with. */
static void *parameters_begin(void *provider, int selection, const OSSL_PARAM parameters[])
{
	(void)parameters;
	return selection & OSSL_KEYMGMT_SELECT_KEYPAIR ? NULL : provider;
}

static int parameters_set(void *making, const OSSL_PARAM parameters[])
{
	(void)making;
	(void)parameters; /* the group's name, and there is one */
	return 1;
}

static const OSSL_PARAM *parameters_settable(void *making, void *provider)
{
	static const OSSL_PARAM names[] = {
		OSSL_PARAM_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, NULL, 0),
		OSSL_PARAM_END,
	};

	(void)making;
	(void)provider;
	return names;
}

static void *parameters_make(void *making, OSSL_CALLBACK *progress, void *argument)
{
	(void)progress;
	(void)argument;
	return key_new(making);
}

static void parameters_end(void *making)
{
	(void)making;
}

static const OSSL_DISPATCH key_calls[] = {
	{OSSL_FUNC_KEYMGMT_NEW, (void (*)(void))key_new},
	{OSSL_FUNC_KEYMGMT_FREE, (void (*)(void))key_free},
	{OSSL_FUNC_KEYMGMT_HAS, (void (*)(void))key_has},
	{OSSL_FUNC_KEYMGMT_SET_PARAMS, (void (*)(void))key_set},
	{OSSL_FUNC_KEYMGMT_SETTABLE_PARAMS, (void (*)(void))key_settable},
	{OSSL_FUNC_KEYMGMT_GET_PARAMS, (void (*)(void))key_get},
	{OSSL_FUNC_KEYMGMT_GETTABLE_PARAMS, (void (*)(void))key_gettable},
	{OSSL_FUNC_KEYMGMT_GEN_INIT, (void (*)(void))parameters_begin},
	{OSSL_FUNC_KEYMGMT_GEN_SET_PARAMS, (void (*)(void))parameters_set},
	{OSSL_FUNC_KEYMGMT_GEN_SETTABLE_PARAMS, (void (*)(void))parameters_settable},
	{OSSL_FUNC_KEYMGMT_GEN, (void (*)(void))parameters_make},
	{OSSL_FUNC_KEYMGMT_GEN_CLEANUP, (void (*)(void))parameters_end},
	{0, NULL},
};

/* ---- Encapsulation: provider-kem(7) ---- */

struct encapsulation {
	const struct key *key;
};

static void *kem_new(void *provider)
{
	(void)provider;
	return OPENSSL_zalloc(sizeof(struct encapsulation));
}

static void kem_free(void *kem)
{
	OPENSSL_free(kem);
}

static int kem_begin(void *kem, void *key, const OSSL_PARAM parameters[])
{
	(void)parameters;
	((struct encapsulation *)kem)->key = key;
	return 1;
}

static int kem_encapsulate(void *kem, unsigned char *out, size_t *out_length, unsigned char *secret,
                           size_t *secret_length)
{
	const struct encapsulation *what = kem;

	if (!prepared || !what->key || !what->key->length)
		return 0;
	*out_length = sizeof(prepared->share);
	*secret_length = sizeof(prepared->secret);
	if (!out)
		return 1;
	memcpy(out, prepared->share, sizeof(prepared->share));
	memcpy(secret, prepared->secret, sizeof(prepared->secret));
	return 1;
}

static const OSSL_DISPATCH kem_calls[] = {
	{OSSL_FUNC_KEM_NEWCTX, (void (*)(void))kem_new},
	{OSSL_FUNC_KEM_FREECTX, (void (*)(void))kem_free},
	{OSSL_FUNC_KEM_ENCAPSULATE_INIT, (void (*)(void))kem_begin},
	{OSSL_FUNC_KEM_ENCAPSULATE, (void (*)(void))kem_encapsulate},
	{0, NULL},
};

/* ---- What the provider says of it ---- */

const OSSL_ALGORITHM tls_exchange_keys[] = {
	{NAME, "provider=accord", key_calls, "a share of a key exchange that is done elsewhere"},
	{NULL, NULL, NULL, NULL},
};

const OSSL_ALGORITHM tls_exchange_kems[] = {
	{NAME, "provider=accord", kem_calls, "a key exchange that was done elsewhere"},
	{NULL, NULL, NULL, NULL},
};

int tls_exchange_capability(OSSL_CALLBACK *tell, void *argument)
{
	static unsigned int id = GROUP_ID, bits = STRENGTH_BITS, is_kem = 1;
	static int first = TLS1_3_VERSION, last = 0, never = -1;
	static const OSSL_PARAM group[] = {
		OSSL_PARAM_utf8_string(OSSL_CAPABILITY_TLS_GROUP_NAME, NAME, sizeof(NAME)),
		OSSL_PARAM_utf8_string(OSSL_CAPABILITY_TLS_GROUP_NAME_INTERNAL, NAME, sizeof(NAME)),
		OSSL_PARAM_utf8_string(OSSL_CAPABILITY_TLS_GROUP_ALG, NAME, sizeof(NAME)),
		OSSL_PARAM_uint(OSSL_CAPABILITY_TLS_GROUP_ID, &id),
		OSSL_PARAM_uint(OSSL_CAPABILITY_TLS_GROUP_SECURITY_BITS, &bits),
		OSSL_PARAM_uint(OSSL_CAPABILITY_TLS_GROUP_IS_KEM, &is_kem),
		OSSL_PARAM_int(OSSL_CAPABILITY_TLS_GROUP_MIN_TLS, &first),
		OSSL_PARAM_int(OSSL_CAPABILITY_TLS_GROUP_MAX_TLS, &last),
		OSSL_PARAM_int(OSSL_CAPABILITY_TLS_GROUP_MIN_DTLS, &never),
		OSSL_PARAM_int(OSSL_CAPABILITY_TLS_GROUP_MAX_DTLS, &never),
		OSSL_PARAM_END,
	};

	return tell(group, argument);
}
