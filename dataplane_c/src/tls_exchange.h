/* SPDX-License-Identifier: Apache-2.0 */
/*
 * X25519MLKEM768 (draft-ietf-tls-ecdhe-mlkem) for an OpenSSL that has no ML-KEM: a group of the provider in
 * tls_random.c whose arithmetic was done elsewhere. What came of it is put here before the handshake asks for it. An
 * OpenSSL from 3.5 on has the group itself, and draws its randomness from tls_random.c.
 */
#ifndef ACCORD_TLS_EXCHANGE_H
#define ACCORD_TLS_EXCHANGE_H

#include <openssl/core.h>

#include "tls_server.h"

extern const OSSL_ALGORITHM tls_exchange_keys[], tls_exchange_kems[];

/* For the next encapsulation of this thread; NULL: there is none to be had any more. */
void tls_exchange_put(const struct accord_tls_exchange *exchange);
/* The provider's capability TLS-GROUP: provider-base(7). */
int tls_exchange_capability(OSSL_CALLBACK *tell, void *argument);

#endif /* ACCORD_TLS_EXCHANGE_H */
