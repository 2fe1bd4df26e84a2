/* SPDX-License-Identifier: Apache-2.0 */
/* Which frames are ours, and which SYNs superfluous, told from the rules alone; nothing here knows the XDP program or
 * the core. */
#ifndef ACCORD_CAMPAIGN_ORACLE_H
#define ACCORD_CAMPAIGN_ORACLE_H

#include <stdint.h>

/* What the daemon of this host told the program. */
struct host {
	uint8_t address[6];
	uint32_t frame_limit; /* bytes */
	uint16_t ports[2];    /* registered UDP ports, each with a service on the TCP port of its number */
	int any_port;
	/* Of this transaction a proposal has just come, between these: source, destination; IPv4, IPv6. */
	uint8_t transaction[12];
	uint8_t ends4[8], ends6[32];
};

/* 1: a negotiation packet for this host, to be handed to the daemon. 0: anybody else's, to be left alone. */
int oracle_is_ours(const struct host *host, const uint8_t *frame, uint32_t length);

/* 1: a SYN that the transaction's proposal has made superfluous, to be dropped. Neither this nor ours: to be passed. */
int oracle_is_superfluous(const struct host *host, const uint8_t *frame, uint32_t length);

#endif
