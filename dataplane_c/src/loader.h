/* SPDX-License-Identifier: Apache-2.0 */
/* The XDP program and its maps, from the object file to the interface. */
#ifndef ACCORD_LOADER_H
#define ACCORD_LOADER_H

#include "core.h"

/*
 * Attach by bpf_link, so that the program goes when this process does, however it ends. flags:
 * XDP_FLAGS_DRV_MODE or XDP_FLAGS_SKB_MODE. A program of somebody else stays: FOREIGN_PROGRAM, with its name
 * and ID in the failure's detail.
 */
int accord_program_attach(struct accord_program *program, int ifindex, uint32_t flags, struct accord_failure *failure);
/* Whether the link still holds it to the interface: false after a detachment by force, or the interface's end. */
int accord_program_attached(const struct accord_program *program);

/* The map "settings", for whoever maps it elsewhere; stays the program's. */
int accord_program_settings_fd(const struct accord_program *program);
/* The map "heard", for other BPF objects of this process; stays the program's. -1 where a broker has it. */
int accord_program_heard_fd(const struct accord_program *program);

/* CLOCK_BOOTTIME into the settings: a store into mapped memory, and the vDSO. */
void accord_program_heartbeat(struct accord_program *program);
/* As if the last heartbeat were long ago. */
void accord_program_quiet(struct accord_program *program);

#endif
