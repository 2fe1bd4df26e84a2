/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AF_PACKET: copies of the frames that bear the magic cookie; the kernel gets the frames, too. So a UDP port that
 * no socket is bound to, which "any port" allows, is answered by us and, with an ICMP error, by the kernel.
 */
#ifndef ACCORD_IO_PACKET_H
#define ACCORD_IO_PACKET_H

#include "io.h"
#include "netdev.h"

/* The part of it that needs privilege: a socket that sees the frames with the magic cookie, for good. */
int accord_io_packet_socket(int interface, struct accord_failure *failure);
int accord_io_packet_open(const struct accord_netdev *netdev, struct accord_io **io, struct accord_failure *failure);

#endif
