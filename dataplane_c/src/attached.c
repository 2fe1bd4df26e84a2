/* SPDX-License-Identifier: Apache-2.0 */
/* Which XDP program an interface has, asked of the kernel; ours or anybody's. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include "failure.h"

enum {
	MAX_LINKS_ASKED = 4096, /* of the whole host; beyond that, how it is attached stays unknown */
};

static void describe_program(uint32_t id, struct accord_attached *attached)
{
	struct bpf_prog_info info = {};
	uint32_t bytes = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(id);

	if (fd < 0)
		return;
	if (!bpf_obj_get_info_by_fd(fd, &info, &bytes)) {
		memcpy(attached->name, info.name, sizeof(attached->name));
		memcpy(attached->tag, info.tag, sizeof(attached->tag));
		attached->loaded_ns = info.load_time;
		attached->user = info.created_by_uid;
	}
	close(fd);
}

/* The link that holds it there; 0: attached by netlink, or this process may not ask (CAP_SYS_ADMIN). */
static uint32_t find_link(uint32_t interface, uint32_t program_id)
{
	uint32_t id = 0;

	for (int links = 0; links < MAX_LINKS_ASKED && !bpf_link_get_next_id(id, &id); links++) {
		struct bpf_link_info info = {};
		uint32_t bytes = sizeof(info);
		int fd = bpf_link_get_fd_by_id(id), result;

		if (fd < 0)
			continue;
		result = bpf_obj_get_info_by_fd(fd, &info, &bytes);
		close(fd);
		if (!result && info.type == BPF_LINK_TYPE_XDP && info.prog_id == program_id && info.xdp.ifindex == interface)
			return id;
	}
	return 0;
}

int accord_attached_find(int32_t interface, struct accord_attached *attached)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	int result = bpf_xdp_query(interface, 0, &query);

	memset(attached, 0, sizeof(*attached));
	if (result)
		return -(int)accord_reason_of_errno(-result, ACCORD_REASON_NO_KERNEL_SUPPORT);
	attached->mode = query.attach_mode;
	attached->program_id = query.prog_id       ? query.prog_id
	                       : query.drv_prog_id ? query.drv_prog_id
	                       : query.skb_prog_id ? query.skb_prog_id
	                                           : query.hw_prog_id;
	if (!attached->program_id)
		return 0;
	describe_program(attached->program_id, attached);
	attached->link_id = find_link((uint32_t)interface, attached->program_id);
	return 0;
}

const char *accord_attached_mode(uint32_t mode)
{
	switch (mode) {
	case XDP_ATTACHED_DRV:
		return "in the driver";
	case XDP_ATTACHED_SKB:
		return "in generic mode";
	case XDP_ATTACHED_HW:
		return "in the NIC";
	case XDP_ATTACHED_MULTI:
		return "in several modes";
	default:
		return "nowhere";
	}
}
