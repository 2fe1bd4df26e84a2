/* SPDX-License-Identifier: Apache-2.0 */
/* How far two processors are from each other: what it takes a cache line to go from one to the other and back. */
#ifndef ACCORD_BENCH_LINE_H
#define ACCORD_BENCH_LINE_H

/*
 * Nanoseconds of a round trip between this thread's processor and another one, the shortest of a few hundred rows
 * of them: tens where the two share a cache, hundreds where they do not. A hypervisor may move them at any time.
 */
double line_ns(int other_cpu);

#endif /* ACCORD_BENCH_LINE_H */
