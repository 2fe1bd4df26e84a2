/* SPDX-License-Identifier: Apache-2.0 */
/* Connections whose sockets are born in the port's own listener (part of core.h; docs/PROTOCOL.md, section 9.2). */
#ifndef ACCORD_BIRTH_H
#define ACCORD_BIRTH_H

struct accord_births;
struct accord_tcp_state; /* privilege.h */

/*
 * Load the TC program and attach it to an interface, or have it done where there is a broker, on that one's. It goes
 * with the process that did, however that ends, or by accord_births_close, which does nothing to a broker's.
 *
 * These return 0 or a negative reason: NO_KERNEL_SUPPORT (before Linux 6.9), NO_INTERFACE, NO_PRIVILEGE, ...
 */
int accord_births_open(const char *object_path, const char *interface, struct accord_births **opened,
                       struct accord_failure *failure);
void accord_births_close(struct accord_births *births);
/* Whether a program listens on a TCP port, at an address that peers reach, so that it could be given connections:
 * BACKEND_FAILED, CANNOT_INSTALL (MPTCP), NO_KERNEL_SUPPORT (SYN cookies are switched off). */
int accord_births_listens(const struct accord_births *births, uint16_t port, struct accord_failure *failure);
/*
 * From now on the first segment of this connection makes its socket, once, within ACCORD_BIRTH_SECONDS. Of the state,
 * service is not looked at. Also BACKEND_FAILED, NO_MEMORY, and CANNOT_INSTALL: there is such a connection already, or
 * its segments come by another interface.
 */
int accord_births_expect(struct accord_births *births, const struct accord_tcp_state *state,
                         struct accord_failure *failure);
/* How to look, flags. */
enum accord_birth_look {
	ACCORD_BIRTH_PATIENT = 1, /* what is waited for stays expected */
	ACCORD_BIRTH_ROUSE = 2,   /* and its initiator is asked for a segment, if that gets there; it has to be committed */
};

/* What became of it, and it is expected no more, unless look says so; fate 0: it was not expected. A connection that
 * was born goes on. */
int accord_births_end(struct accord_births *births, const struct accord_tcp_state *state, uint32_t look,
                      struct accord_birth *end, struct accord_failure *failure);

#endif
