/* SPDX-License-Identifier: Apache-2.0 */
/* The TC program and its maps, from the object file to the interface; needs privilege. */
#ifndef ACCORD_CAPTURE_PROGRAM_H
#define ACCORD_CAPTURE_PROGRAM_H

#include "core.h"

struct accord_capture_program;

/* Attach as a clsact filter, behind all others. One that another daemon of ours has left, or has, is replaced; one of
 * somebody else in its place stays: FOREIGN_PROGRAM. */
int accord_capture_program_open(const char *object_path, int interface, struct accord_capture_program **opened,
                                struct accord_failure *failure);
/* Detach it, if it is still this one. The clsact qdisc stays: others may have come to use it. */
void accord_capture_program_close(struct accord_capture_program *program);

int accord_capture_program_fd(const struct accord_capture_program *program);
/* Map "capture" and ring "captured", for whoever maps them; stay the program's. */
int accord_capture_program_map_fd(const struct accord_capture_program *program);
int accord_capture_program_ring_fd(const struct accord_capture_program *program);

int accord_capture_program_mark(struct accord_capture_program *program, int cgroup, uint64_t *id,
                                struct accord_failure *failure);
int accord_capture_program_unmark(struct accord_capture_program *program, uint64_t id, struct accord_failure *failure);
int accord_capture_program_send(struct accord_capture_program *program, const struct accord_capture_frame *frame,
                                uint32_t inward, struct accord_failure *failure);

#endif
