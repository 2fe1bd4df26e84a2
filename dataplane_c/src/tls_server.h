/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server's side of TLS 1.3 (RFC 8446) on memory buffers, whose first flight is a function of a seed and the
 * ClientHello: it can be made, sent, forgotten, and made again when the client's Finished is here. Part of core.h.
 *
 * From the flight on everything is OpenSSL's as always, with the kernel's randomness. Without tickets, resumption and
 * early data: none of them can be had without memory.
 */
#ifndef ACCORD_TLS_SERVER_H
#define ACCORD_TLS_SERVER_H

#ifndef ACCORD_CDEF
#include <stdint.h>
#endif

enum accord_tls_constant {
	ACCORD_TLS_SEED = 32,
	ACCORD_TLS_TEXT = 160,
	ACCORD_TLS_SECRETS = 2048,
	/* X25519MLKEM768: shares of client and server, and the secret (draft-ietf-tls-ecdhe-mlkem, section 3). */
	ACCORD_TLS_HYBRID_ASKED = 1216,
	ACCORD_TLS_HYBRID_SHARE = 1120,
	ACCORD_TLS_HYBRID_SECRET = 64,
};

/* What a call came to, where it is no number of bytes. */
enum accord_tls_result {
	ACCORD_TLS_CLOSED = 0,  /* of read: the peer has sent close_notify */
	ACCORD_TLS_MORE = -1,   /* feed more of what the peer sends */
	ACCORD_TLS_FAILED = -2, /* accord_tls_text has OpenSSL's words */
};

struct accord_tls_identity; /* a certificate chain and its key */
struct accord_tls;          /* one connection */

/* The server's side of a key exchange X25519MLKEM768 that is done elsewhere: OpenSSL has it from 3.5 on only. */
struct accord_tls_exchange {
	uint8_t share[1120];
	uint8_t secret[64];
};

/* What was agreed upon; empty strings until then. */
struct accord_tls_agreed {
	char cipher[64];
	char group[32];
	char version[16];
	uint32_t alpn_length;
	uint8_t alpn[255];
};

/* chain: certificates in DER one after the other, our own first. key: DER (PKCS #8). keep_secrets: lines of a key log
 * (draft-ietf-tls-keylogfile) are kept for accord_tls_secrets. NULL: text has the reason, ACCORD_TLS_TEXT bytes. */
struct accord_tls_identity *accord_tls_identity_new(const uint8_t *chain, uint32_t chain_length, const uint8_t *key,
                                                    uint32_t key_length, uint32_t keep_secrets, char *text);
/* Connections that are still there keep what they need of it. */
void accord_tls_identity_free(struct accord_tls_identity *identity);

/* alpn: a ProtocolNameList's names (RFC 7301, each behind its u8 length), best first; empty: none is agreed upon.
 * group: the one that the key exchange may use, by OpenSSL's name. NULL: text has the reason. */
struct accord_tls *accord_tls_new(struct accord_tls_identity *identity, const uint8_t *alpn, uint32_t alpn_length,
                                  const char *group, char *text);
void accord_tls_free(struct accord_tls *tls);

/* The ClientHello in, the flight out (accord_tls_take), all of its randomness from the seed. Once, and first.
 * exchange: where the group is X25519MLKEM768; else NULL.
 * 0, ACCORD_TLS_MORE when the hello is not whole, or ACCORD_TLS_FAILED; there may be an alert to take. */
int accord_tls_answer(struct accord_tls *tls, const uint8_t *seed, const struct accord_tls_exchange *exchange,
                      const uint8_t *hello, uint32_t length);

/* Bytes that came from the peer. 0 or ACCORD_TLS_FAILED. */
int accord_tls_feed(struct accord_tls *tls, const uint8_t *bytes, uint32_t length);
/* Bytes that are to go to the peer. Returns how many were written, 0: there are none. */
uint32_t accord_tls_take(struct accord_tls *tls, uint8_t *bytes, uint32_t room);
/* Go on with the handshake: 0 when it is complete. */
int accord_tls_handshake(struct accord_tls *tls);
/* Keying material (RFC 8446 section 7.5) without context; to be had since the flight was made. 0 or a failure. */
int accord_tls_export(struct accord_tls *tls, const char *label, uint8_t *key, uint32_t length);
/* Plaintext: bytes read (> 0), or enum accord_tls_result. */
int accord_tls_read(struct accord_tls *tls, uint8_t *bytes, uint32_t room);
/* Encrypt all of it. 0 or ACCORD_TLS_FAILED. */
int accord_tls_write(struct accord_tls *tls, const uint8_t *bytes, uint32_t length);
/* Send close_notify, once; reading goes on. 0 or ACCORD_TLS_FAILED. */
int accord_tls_finish(struct accord_tls *tls);
void accord_tls_agreed(const struct accord_tls *tls, struct accord_tls_agreed *agreed);
/* OpenSSL's words for the latest failure; valid as long as the connection is. */
const char *accord_tls_text(const struct accord_tls *tls);
/* Lines of the key log since the last call, each ended by a newline; how many bytes were written. */
uint32_t accord_tls_secrets(struct accord_tls *tls, uint8_t *lines, uint32_t room);

#endif /* ACCORD_TLS_SERVER_H */
