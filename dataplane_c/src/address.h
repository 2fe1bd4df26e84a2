/* SPDX-License-Identifier: Apache-2.0 */
/* Between the kernel's socket addresses and a path's. IPv4 on an IPv6 socket (RFC 4291 section 2.5.5.2) is IPv4. */
#ifndef ACCORD_ADDRESS_H
#define ACCORD_ADDRESS_H

#include <netinet/in.h>
#include <sys/socket.h>

#include "core.h"

/* Fill the path's family and remote side. Returns 0, or a negative reason for other families. */
int accord_address_remote(struct accord_path *path, const struct sockaddr_storage *from);
/* The path's remote side for a socket of this family; returns its length, 0 when the socket cannot reach it. */
socklen_t accord_address_to(const struct accord_path *path, sa_family_t family, struct sockaddr_storage *to);
/* Local address and interface index, from the control messages of a received datagram. */
void accord_address_local(struct accord_path *path, struct msghdr *message, int *interface);
/* Set the source address of a datagram to send. control: room for CMSG_SPACE(sizeof(struct in6_pktinfo)). */
void accord_address_from(const struct accord_path *path, sa_family_t family, struct msghdr *message, void *control);

#endif
