/* SPDX-License-Identifier: Apache-2.0 */
/* What a port has to know of the network interface that it sits on. */
#ifndef ACCORD_NETDEV_H
#define ACCORD_NETDEV_H

#include "core.h"

struct accord_netdev {
	char name[16];
	int index;
	uint32_t mtu;
	uint32_t queues; /* receive queues, at most ACCORD_MAX_QUEUES */
	uint8_t address[6];
};

/* Fails for what is not there and for what has no Ethernet header. */
int accord_netdev_open(const char *name, struct accord_netdev *netdev, struct accord_failure *failure);
/* The address may change while we run (bonding, an operator). Keeps the old one when it cannot be read. */
void accord_netdev_refresh(struct accord_netdev *netdev);

#endif
