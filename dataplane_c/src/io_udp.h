/* SPDX-License-Identifier: Apache-2.0 */
/* The registered UDP sockets: the way that always works, and that others share with us. */
#ifndef ACCORD_IO_UDP_H
#define ACCORD_IO_UDP_H

#include "io.h"

struct accord_udp;

struct accord_udp *accord_udp_new(void);
/* The sockets as a back end; its close frees all of it, but closes no registered socket. */
struct accord_io *accord_udp_io(struct accord_udp *udp);

/* As accord_port_add_socket. */
int accord_udp_add(struct accord_udp *udp, int fd);
/* Returns the port that the socket had, or a negative reason. */
int accord_udp_remove(struct accord_udp *udp, int index);
/* The UDP port of a registered socket, or a negative reason. */
int accord_udp_port(const struct accord_udp *udp, int index);
/* The socket that the kernel would have given this path's packets to; ACCORD_PATH_NO_SOCKET when none. */
int16_t accord_udp_find(const struct accord_udp *udp, const struct accord_path *path);
/* Is any socket registered with this port? */
int accord_udp_uses(const struct accord_udp *udp, uint16_t port);

/* Datagrams that were handed out may be overwritten from now on. */
void accord_udp_recycle(struct accord_udp *udp);
/* As accord_port_datagrams and accord_port_error. */
uint32_t accord_udp_datagrams(struct accord_udp *udp, struct accord_datagram *datagrams, uint32_t limit);
int accord_udp_error(struct accord_udp *udp, struct accord_path *path);

#endif
