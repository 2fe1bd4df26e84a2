/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much the path to an address carried lately, and how far it is: the window that a transaction there ended with,
 * for the next one to begin with (RFC 9040, temporal sharing), and its round trip. Only of peers that have proven their
 * address, so that nobody else can make an address's window large; a fixed table, where a new address takes an old
 * one's place.
 */
#ifndef ACCORD_REMEMBERED_H
#define ACCORD_REMEMBERED_H

#include <stdint.h>

#include "core.h"
#include "recovery.h"

enum remembered_constant {
	REMEMBERED_PATHS = 256, /* a power of two */
	REMEMBERED_US = 600000000,
	/* Packets: a message of the greatest length. More is learnt anew. */
	REMEMBERED_MAX_WINDOW = ACCORD_MAX_MESSAGE_BYTES / 1024,
};

struct remembered {
	struct {
		uint64_t key; /* 0: free */
		uint64_t at;
		uint32_t window, srtt_us;
	} paths[REMEMBERED_PATHS];
};

/* A transaction with this remote end is over. */
void remembered_learn(struct remembered *remembered, uint64_t seed, uint64_t now, const struct accord_path *path,
                      const struct recovery *recovery);
/* One begins: its window, never less than the initial one, its pace, and its first probe time-out. */
void remembered_apply(const struct remembered *remembered, uint64_t seed, uint64_t now, const struct accord_path *path,
                      struct recovery *recovery);

#endif /* ACCORD_REMEMBERED_H */
