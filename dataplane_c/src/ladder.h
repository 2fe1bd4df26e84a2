/* SPDX-License-Identifier: Apache-2.0 */
/* The ladder of back ends: the best that this host, interface and privilege allow. */
#ifndef ACCORD_LADDER_H
#define ACCORD_LADDER_H

#include "io.h"
#include "netdev.h"

struct accord_foothold {
	uint32_t rung; /* enum accord_rung */
	struct accord_netdev netdev;
	struct accord_program *program; /* NULL below the XDP rungs */
	struct accord_io *frames;       /* NULL on ACCORD_RUNG_UDP */
};

/* As accord_port_open. */
int accord_ladder_climb(const struct accord_port_config *config, struct accord_port_report *report,
                        struct accord_foothold *foothold);
void accord_ladder_leave(struct accord_foothold *foothold);

#endif
