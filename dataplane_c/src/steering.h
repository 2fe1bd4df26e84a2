/* SPDX-License-Identifier: Apache-2.0 */
/* Which UDP ports negotiation packets are taken on, and what else is said of a port. */
#ifndef ACCORD_STEERING_H
#define ACCORD_STEERING_H

#include <stdint.h>

#include "core.h"
#include "loader.h"
#include "sockets.h"

enum {
	ACCORD_STEERING_BYTES = ACCORD_UDP_PORTS / 8,
};

/* Bits, lowest first. */
struct accord_steering {
	uint8_t exposed[ACCORD_STEERING_BYTES]; /* with a service: SYNs may be suppressed */
	uint8_t shared[ACCORD_STEERING_BYTES];  /* another program's, from whose datagrams ours are picked */
};

/* Those of a registered socket, and the shared ones. */
int accord_steering_wants(const struct accord_steering *steering, const struct accord_sockets *sockets,
                          uint16_t number);
void accord_steering_expose(struct accord_steering *steering, uint16_t number, uint32_t exposed);
void accord_steering_share(struct accord_steering *steering, uint16_t number, uint32_t shared);
/* Have the program do with this port what holds now. Returns 0, or -ACCORD_REASON_NO_MEMORY with a full map: the port
 * is not steered then, and its packets come by the socket. */
int accord_steering_apply(const struct accord_steering *steering, const struct accord_sockets *sockets,
                          struct accord_program *program, uint16_t number);
/* The same of every port that is wanted, for a program that knows of none. Returns how many did not fit. */
uint32_t accord_steering_apply_all(const struct accord_steering *steering, const struct accord_sockets *sockets,
                                   struct accord_program *program);

#endif /* ACCORD_STEERING_H */
