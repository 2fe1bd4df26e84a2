// SPDX-License-Identifier: Apache-2.0
/* Where the running kernel keeps a field: its own type information says so, whatever headers a host has. */
#include <errno.h>
#include <string.h>

#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "core.h"

enum {
	BTF_MAX_NESTING = 8, /* anonymous structs within structs; the kernel has three */
};

/* Bit offset of a member, also within anonymous structs and unions; -1: none. Its type into *type. */
static int64_t find_member(const struct btf *btf, const struct btf_type *within, const char *name, size_t length,
                           uint32_t *type, int nesting)
{
	const struct btf_member *member = btf_members(within);

	for (uint32_t i = 0; i < btf_vlen(within); i++, member++) {
		const char *called = btf__name_by_offset(btf, member->name_off);
		int64_t at = btf_member_bit_offset(within, i), deeper;
		const struct btf_type *inside;

		if (called && strlen(called) == length && !memcmp(called, name, length)) {
			*type = member->type;
			return at;
		}
		inside = btf__type_by_id(btf, member->type);
		if ((called && *called) || !inside || !btf_is_composite(inside) || nesting == BTF_MAX_NESTING)
			continue;
		deeper = find_member(btf, inside, name, length, type, nesting + 1);
		if (deeper >= 0)
			return at + deeper;
	}
	return -1;
}

static int64_t find_path(const struct btf *btf, const char *structure, const char *path)
{
	int32_t found = btf__find_by_name_kind(btf, structure, BTF_KIND_STRUCT);
	uint32_t type = (uint32_t)found;
	int64_t bits = 0;

	if (found < 0)
		return -ACCORD_REASON_NO_KERNEL_SUPPORT;
	for (;;) {
		const struct btf_type *within = btf__type_by_id(btf, (uint32_t)btf__resolve_type(btf, type));
		size_t length = strcspn(path, ".");
		int64_t at;

		if (!within || !btf_is_composite(within))
			return -ACCORD_REASON_NO_KERNEL_SUPPORT;
		at = find_member(btf, within, path, length, &type, 0);
		if (at < 0)
			return -ACCORD_REASON_NO_KERNEL_SUPPORT;
		bits += at;
		if (!path[length])
			return bits;
		path += length + 1;
	}
}

int64_t accord_btf_offset(const char *structure, const char *path)
{
	struct btf *btf = btf__load_vmlinux_btf();
	int64_t bits;

	if (libbpf_get_error(btf))
		return -ACCORD_REASON_NO_KERNEL_SUPPORT;
	bits = find_path(btf, structure, path);
	btf__free(btf);
	return bits;
}
