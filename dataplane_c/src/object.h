/* SPDX-License-Identifier: Apache-2.0 */
/* A BPF object file of ours: opened, held against what the library was built with, loaded. */
#ifndef ACCORD_OBJECT_H
#define ACCORD_OBJECT_H

#include <stddef.h>
#include <stdint.h>

#include <bpf/libbpf.h>

#include "core.h"

struct object_map {
	const char *name;
	struct bpf_map **found;
	enum bpf_map_type type;
	uint32_t key_bytes, value_bytes, entries;
};

struct object_file {
	const char *path;
	const char *kind;    /* what it is, for people: "XDP" */
	const char *program; /* the one in it */
	const char *section; /* of read-only data, that begins with the layout */
	uint32_t layout;
	const struct object_map *maps;
	size_t maps_count;
};

/*
 * *object is the caller's to close, also after a failure; NULL: there is none. LOAD_FAILED: it cannot be opened, or is
 * another program's. MAP_MISMATCH: it was built with another layout, or its maps were.
 */
int object_open(const struct object_file *file, struct bpf_object **object, struct bpf_program **program,
                struct accord_failure *failure);

/* LOAD_FAILED with the verifier's first complaint (accord_complaint_keep), NO_PRIVILEGE, NO_KERNEL_SUPPORT. */
int object_load(const struct object_file *file, struct bpf_object *object, struct accord_failure *failure);

#endif
