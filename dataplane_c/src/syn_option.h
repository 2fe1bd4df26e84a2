/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option on the SYN (docs/PROTOCOL.md, section 10), as the process that connects sees it: it asks for it and
 * looks what came of it in memory that it shares with the sockops program (part of core.h; accord/syns.h).
 */
#ifndef ACCORD_SYN_OPTION_H
#define ACCORD_SYN_OPTION_H

struct accord_syns;

/* Load the program and attach it to this cgroup (version 2), or ask the broker, which has a cgroup of its own choice.
 * The program is attached for as long as this process, or the broker, keeps it. Marked is what the XDP program of the
 * port hears, that of the broker where there is one; without one, nothing. port: may be NULL. */
int accord_syns_open(const char *object_path, const char *cgroup, const struct accord_port *port,
                     struct accord_syns **syns, struct accord_failure *failure);
void accord_syns_close(struct accord_syns *syns);

/* The first SYN of the socket with this cookie (SO_COOKIE) shall bear the option; before its connect(). An older
 * socket's request in the same slot is lost. Returns 0, or a negative reason for a cookie that no slot can hold. */
int accord_syns_request(struct accord_syns *syns, uint64_t cookie, const uint8_t *transaction, uint32_t adopt);
/* The state (struct accord_syn) of the socket with this cookie; 0: nothing was asked for it, or it has lost its slot.
 */
uint64_t accord_syns_state(const struct accord_syns *syns, uint64_t cookie);
/* Free the slot, if it is still this socket's. */
void accord_syns_forget(struct accord_syns *syns, uint64_t cookie);
/* Slots that are not free. */
uint32_t accord_syns_in_use(const struct accord_syns *syns);

/* SYN-ACKs of this TCP socket may be marked once it listens; or, when it listens already, sockets that it accepts are
 * freed of what they inherit. */
int accord_syns_answer(struct accord_syns *syns, int32_t listener, struct accord_failure *failure);
/* What is marked is what the port's XDP program hears from now on: to be called after accord_port_reopen. */
int accord_syns_hear(struct accord_syns *syns, const struct accord_port *port, struct accord_failure *failure);

#endif
