/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A library context of OpenSSL's whose random numbers come from a seed while one is set, else from the kernel: a small
 * provider (OSSL_PROVIDER_add_builtin) that brings no algorithm but a RAND and the group of tls_exchange.h, beside
 * OpenSSL's own default provider. With a seed a handshake is a function of it and of what was fed (docs/PROTOCOL.md,
 * section 22).
 */
#ifndef ACCORD_TLS_RANDOM_H
#define ACCORD_TLS_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

#include <openssl/types.h>

enum tls_random_constant {
	TLS_SEED_BYTES = 32,
};

/* The context, made at the first call; NULL: OpenSSL could not. */
OSSL_LIB_CTX *tls_library(void);
/* From now on this thread draws from the seed. False: out of memory, and nothing has changed. */
bool tls_random_seed(const uint8_t seed[TLS_SEED_BYTES]);
/* From now on from the kernel; the key stream is erased. */
void tls_random_kernel(void);

#endif /* ACCORD_TLS_RANDOM_H */
