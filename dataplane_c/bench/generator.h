/* SPDX-License-Identifier: Apache-2.0 */
/* Sends messages as fast as one processor can, from another network namespace. */
#ifndef ACCORD_BENCH_GENERATOR_H
#define ACCORD_BENCH_GENERATOR_H

#include <stdint.h>

struct generator;

/* to: the Ethernet address that frames go to. A message has 2^shift packets, at most LOAD_LONG. Ends the program with a
 * sentence when it cannot be had. */
struct generator *generator_open(const char *object_path, const char *namespace_path, const uint8_t to[6],
                                 uint32_t shift);
/* From a thread of its own, which has processor cpu for itself until it is stopped. */
void generator_start(struct generator *generator, int cpu);
/* From now on they leave by that interface of its namespace, an index; 0: none is made. At any time. */
void generator_send(struct generator *generator, uint32_t interface);
/* How many packets it has made, from some number on that is not 0. */
uint64_t generator_made(struct generator *generator);
void generator_stop(struct generator *generator);
void generator_close(struct generator *generator);

#endif /* ACCORD_BENCH_GENERATOR_H */
