/* SPDX-License-Identifier: Apache-2.0 */
/* The table of registered UDP sockets. They belong to whoever registered them: none is closed here. */
#ifndef ACCORD_SOCKETS_H
#define ACCORD_SOCKETS_H

#include <sys/socket.h>

#include "core.h"

enum accord_sockets_constant {
	ACCORD_SOCKETS = ACCORD_MAX_PORTS,
	ACCORD_UDP_PORTS = 65536,
};

struct accord_socket {
	int fd; /* -1: the slot is free */
	sa_family_t family;
	uint16_t port;
	int16_t next;      /* socket with the same port */
	uint8_t local[16]; /* what it is bound to, as in a path; zeros: any */
};

struct accord_sockets {
	int epoll;      /* data.u32 of its events is the index */
	uint32_t count; /* slots that were ever used */
	struct accord_socket socket[ACCORD_SOCKETS];
	int16_t first[ACCORD_UDP_PORTS]; /* first socket of a port */
};

int accord_sockets_open(struct accord_sockets *sockets);
void accord_sockets_close(struct accord_sockets *sockets);

/* As accord_port_add_socket. */
int accord_sockets_add(struct accord_sockets *sockets, int fd);
/* As accord_port_replace_socket. */
int accord_sockets_replace(struct accord_sockets *sockets, int index, int fd);
/* Returns the port that the socket had, or a negative reason. */
int accord_sockets_remove(struct accord_sockets *sockets, int index);
/* The UDP port of a registered socket, or a negative reason. */
int accord_sockets_port(const struct accord_sockets *sockets, int index);
/* The socket that the kernel would have given this path's packets to; ACCORD_PATH_NO_SOCKET when none. */
int16_t accord_sockets_find(const struct accord_sockets *sockets, const struct accord_path *path);
/* Is any socket registered with this port? */
int accord_sockets_use(const struct accord_sockets *sockets, uint16_t port);

#endif
