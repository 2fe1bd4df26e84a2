/* SPDX-License-Identifier: Apache-2.0 */
/* The sockops program and its maps, from the object file to the cgroup. */
#ifndef ACCORD_SOCKOPS_H
#define ACCORD_SOCKOPS_H

#include "core.h"

struct accord_sockops;

/* Attach by bpf_link, beside other programs of the cgroup: it goes when this process does, however it ends. */
int accord_sockops_open(const char *object_path, const char *cgroup, struct accord_sockops **opened,
                        struct accord_failure *failure);
void accord_sockops_close(struct accord_sockops *sockops);
/* Map "syns", for whoever maps it; stays the program's. */
int accord_sockops_syns_fd(const struct accord_sockops *sockops);
/* Put a socket into map "listeners". */
int accord_sockops_answer(struct accord_sockops *sockops, int listener, struct accord_failure *failure);

#endif
