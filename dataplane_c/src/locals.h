/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses of this host: a copy of a frame does not tell whether the kernel will deliver or forward it.
 */
#ifndef ACCORD_LOCALS_H
#define ACCORD_LOCALS_H

#include "core.h"

/* Sorted; grown on refresh only. */
struct accord_locals {
	uint32_t count, room;
	uint8_t (*addresses)[17]; /* family (4 or 6), then the address, padded by zeros */
};

/* asking: a socket, of any kind. */
void accord_locals_refresh(struct accord_locals *locals, int asking);
int accord_locals_contain(const struct accord_locals *locals, const struct accord_path *path);
void accord_locals_free(struct accord_locals *locals);

#endif
