/* SPDX-License-Identifier: Apache-2.0 */
/* The TC program of births and its maps, from the object file to the interface; and what the host is asked before. */
#ifndef ACCORD_BIRTH_PROGRAM_H
#define ACCORD_BIRTH_PROGRAM_H

#include "core.h"

struct accord_birth_program;

/* Attach by a TCX link: it goes when this process does. As accord_births_open. */
int accord_birth_program_open(const char *object_path, const char *interface, struct accord_birth_program **opened,
                              struct accord_failure *failure);
void accord_birth_program_close(struct accord_birth_program *program);
/* As accord_births_expect and accord_births_end. */
int accord_birth_program_expect(struct accord_birth_program *program, const struct accord_tcp_state *state,
                                struct accord_failure *failure);
int accord_birth_program_end(struct accord_birth_program *program, const struct accord_tcp_state *state, uint32_t look,
                             struct accord_birth *end, struct accord_failure *failure);

/* birth_rouse.c. Send the initiator a segment that it answers with its first; timestamp: our TSval of now. Whether it
 * left nobody knows: it may get lost as well. */
void accord_birth_rouse(const struct accord_tcp_state *state, uint32_t timestamp);
/* birth_host.c. As accord_births_listens. */
int accord_birth_listens(uint16_t port, struct accord_failure *failure);
/* Whether the first segment of this connection would meet a listener, by this interface. */
int accord_birth_possible(const struct accord_tcp_state *state, int interface, struct accord_failure *failure);

#endif
