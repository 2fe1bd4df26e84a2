/* SPDX-License-Identifier: Apache-2.0 */
/* Where packets come in, on an interface of its own: into our engine, or into a loop that drops them. */
#ifndef ACCORD_BENCH_SOURCE_H
#define ACCORD_BENCH_SOURCE_H

#include <stdint.h>

#include "bare.h"
#include "core.h"

struct source;

/* Packets that were taken in, and whole messages that came out of them (of ours), since it was opened. */
struct source_total {
	uint64_t packets, messages;
};

/* Both end the program with a sentence when it cannot be had. object_path: of the XDP program. */
struct source *source_ours(enum accord_rung rung, const char *interface, const char *object_path);
struct source *source_bare(enum bare_kind kind, const char *interface, const char *object_path, uint32_t flags);
/* One batch. Returns 0 when nothing came. */
uint32_t source_receive(struct source *source);
struct source_total source_total(const struct source *source);
/* As accord_port_heartbeat. */
void source_heartbeat(struct source *source);
void source_close(struct source *source);

#endif /* ACCORD_BENCH_SOURCE_H */
