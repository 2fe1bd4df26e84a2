/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the benchmarks are fed with: messages whose every packet holds a chunk of each of three nodes, made by
 * hand as the tests make theirs. A packet is as long as one may be before the path is known to carry more.
 */
#ifndef ACCORD_BENCH_LOAD_H
#define ACCORD_BENCH_LOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "core.h"

enum load_constant {
	LOAD_CHUNKS = 3,
	/* All even, so that the generator can count 16-bit words of a checksum. */
	LOAD_FIRST_CHUNK = 382,
	LOAD_OTHER_CHUNK = 382,
	LOAD_LAST_CHUNK = 380,
	LOAD_SMALL_CHUNK = 16,
	LOAD_PACKET = ACCORD_HEADER_BYTES + LOAD_CHUNKS * ACCORD_CHUNK_HEADER_BYTES + LOAD_FIRST_CHUNK + LOAD_OTHER_CHUNK +
	              LOAD_LAST_CHUNK,
	LOAD_PROPOSAL = 2, /* packets: what a TLS ClientHello with a hybrid key share makes of a proposal */
	LOAD_LONG = 32,    /* packets of a message in which opening the transaction no longer matters */
};
_Static_assert((int)LOAD_PACKET == (int)ACCORD_MIN_MTU_PACKET, "packets are as long as they may be");

/* The protocols of the nodes above the context. */
extern const uint32_t load_protocols[LOAD_CHUNKS - 1];

/* The path that a packet of the load comes in by. */
struct accord_path load_path(void);

/* Write packet index of a proposal of so many packets; id tells transactions apart. Returns its length. */
uint32_t load_packet(uint8_t *bytes, uint32_t id, uint32_t index, uint32_t packets, bool small);

#endif /* ACCORD_BENCH_LOAD_H */
