/* SPDX-License-Identifier: Apache-2.0 */
/* The sockops program and its maps, from the object file to the cgroup. */
#ifndef ACCORD_SOCKOPS_H
#define ACCORD_SOCKOPS_H

#include "core.h"

struct accord_sockops;

/* Attach by bpf_link, beside other programs of the cgroup: it goes when this process does, however it ends. heard_fd:
 * as accord_sockops_hear, or -1. */
int accord_sockops_open(const char *object_path, const char *cgroup, int heard_fd, struct accord_sockops **opened,
                        struct accord_failure *failure);
/*
 * From now on the map "heard" is this one, of the XDP program that was attached last. A map is bound to a program when
 * that is loaded: so it is loaded again, beside the one that is attached, and takes its place in one step.
 */
int accord_sockops_hear(struct accord_sockops *sockops, int heard_fd, struct accord_failure *failure);
void accord_sockops_close(struct accord_sockops *sockops);
/* Map "syns", for whoever maps it; stays the program's. */
int accord_sockops_syns_fd(const struct accord_sockops *sockops);
/* Put a socket into map "listeners". */
int accord_sockops_answer(struct accord_sockops *sockops, int listener, struct accord_failure *failure);

#endif
