/* SPDX-License-Identifier: Apache-2.0 */
/* The registered UDP sockets as a back end: the way that always works, and that others share with us. */
#ifndef ACCORD_IO_UDP_H
#define ACCORD_IO_UDP_H

#include "io.h"
#include "sockets.h"

struct accord_udp;

struct accord_udp *accord_udp_new(void);
/* The sockets as a back end; its close frees all of it, but closes no registered socket. */
struct accord_io *accord_udp_io(struct accord_udp *udp);

struct accord_sockets *accord_udp_sockets(struct accord_udp *udp);

/* Have IP protocol 253 too, by raw sockets beside the UDP ones; see io_direct.h. */
void accord_udp_open_direct(struct accord_udp *udp, int deaf);
uint32_t accord_udp_direct_fds(const struct accord_udp *udp, int32_t *fds, uint32_t limit);

/* What an errno of sending means. */
enum accord_reason accord_udp_send_reason(int error);

/* Datagrams that were handed out may be overwritten from now on. */
void accord_udp_recycle(struct accord_udp *udp);
/* As accord_port_datagrams and accord_port_error. */
uint32_t accord_udp_datagrams(struct accord_udp *udp, struct accord_datagram *datagrams, uint32_t limit);
int accord_udp_error(struct accord_udp *udp, struct accord_path *path);

#endif
