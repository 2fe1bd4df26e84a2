/* SPDX-License-Identifier: Apache-2.0 */
/* What the flood's programs need for measuring. */
#ifndef ACCORD_BENCH_MEASURE_H
#define ACCORD_BENCH_MEASURE_H

#include <stdint.h>

#include "flood.h"

/* Say what failed, and end. */
__attribute__((noreturn)) void give_up(const char *what, int error);
/* CLOCK_MONOTONIC. */
uint64_t now_ns(void);
void pause_ns(uint64_t nanoseconds);
/* What map "arrived" has by now, of all processors. */
struct flood_arrived arrived(int map_fd);
/* A bpf_link in native mode, as a file descriptor. */
int attach(int program_fd, uint32_t interface);

#endif /* ACCORD_BENCH_MEASURE_H */
