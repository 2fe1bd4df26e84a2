/* SPDX-License-Identifier: Apache-2.0 */
/* What a port has to know of the network interface that it sits on. */
#ifndef ACCORD_NETDEV_H
#define ACCORD_NETDEV_H

#include "core.h"

/* Name and address may change while we run (an operator, bonding). Keeps the old ones when they cannot be read.
 * asking: a socket, of any kind; a new one ten times a second would cost more than the questions. */
void accord_netdev_refresh(struct accord_netdev *netdev, int asking);

#endif
