/* SPDX-License-Identifier: Apache-2.0 */
/*
 * clsact filters are not held by a descriptor: they outlive who attached them. So there is one place for ours, by
 * priority and handle, where the next one finds and replaces it.
 */
#include "capture_program.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "complaint.h"
#include "failure.h"
#include "object.h"

enum {
	/* Others may shoot what they do not like, and shall see it first: a SYN that is stolen they would not. */
	PRIORITY = 0xacc0,
	HANDLE = 1,
	CGROUP_ID_BYTES = sizeof(uint64_t),
};

static const char program_name[] = "accord_capture";

struct accord_capture_program {
	struct bpf_object *object;
	int program_fd, map_fd, ring_fd, cgroups_fd;
	uint32_t id;
	int interface;       /* 0: not attached */
	int outward, inward; /* AF_PACKET sockets that hear nothing */
};

static int load(struct accord_capture_program *program, const char *object_path, struct accord_failure *failure)
{
	struct bpf_map *capture, *ring, *cgroups;
	const struct object_map maps[] = {
		{"capture", &capture, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(struct accord_capture), 1},
		{"captured", &ring, BPF_MAP_TYPE_RINGBUF, 0, 0, ACCORD_CAPTURE_RING_BYTES},
		{"cgroups", &cgroups, BPF_MAP_TYPE_HASH, CGROUP_ID_BYTES, sizeof(uint8_t), ACCORD_CAPTURE_CGROUPS},
	};
	const struct object_file file = {
		.path = object_path,
		.kind = "TC egress",
		.program = program_name,
		.section = ".rodata.captures",
		.layout = ACCORD_CAPTURES_LAYOUT,
		.maps = maps,
		.maps_count = sizeof(maps) / sizeof(*maps),
	};
	struct bpf_prog_info info = {0};
	uint32_t info_bytes = sizeof(info);
	struct bpf_program *entry;
	int result = object_open(&file, &program->object, &entry, failure);

	if (!result)
		result = object_load(&file, program->object, failure);
	if (result)
		return result;
	program->program_fd = bpf_program__fd(entry);
	program->map_fd = bpf_map__fd(capture);
	program->ring_fd = bpf_map__fd(ring);
	program->cgroups_fd = bpf_map__fd(cgroups);
	if (!bpf_obj_get_info_by_fd(program->program_fd, &info, &info_bytes))
		program->id = info.id;
	return 0;
}

/* The program in our place: its ID, 0 for none; *ours: it bears our name. */
static uint32_t present(int interface, int *ours)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = interface, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, at, .handle = HANDLE, .priority = PRIORITY);
	struct bpf_prog_info info = {0};
	uint32_t info_bytes = sizeof(info);
	int fd;

	*ours = 0;
	if (bpf_tc_query(&hook, &at))
		return 0;
	fd = bpf_prog_get_fd_by_id(at.prog_id);
	if (fd < 0) { /* without CAP_SYS_ADMIN nobody is told: but who else would be in this place? */
		*ours = errno == EPERM;
		return at.prog_id;
	}
	*ours = !bpf_obj_get_info_by_fd(fd, &info, &info_bytes) && !strcmp(info.name, program_name);
	close(fd);
	return at.prog_id;
}

static int attach(struct accord_capture_program *program, int interface, struct accord_failure *failure)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = interface, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, at, .handle = HANDLE, .priority = PRIORITY, .prog_fd = program->program_fd,
	            .flags = BPF_TC_F_REPLACE);
	int result = bpf_tc_hook_create(&hook), ours;
	uint32_t there;

	if (result && result != -EEXIST)
		return accord_fail(failure, accord_reason_of_errno(-result, ACCORD_REASON_NO_KERNEL_SUPPORT), -result,
		                   "adding clsact to interface %d (CONFIG_NET_SCH_INGRESS, CONFIG_NET_CLS_ACT)", interface);
	there = present(interface, &ours);
	if (there && !ours)
		return accord_fail(failure, ACCORD_REASON_FOREIGN_PROGRAM, 0,
		                   "program %u of somebody else is where this one goes (clsact egress, priority %d)", there,
		                   PRIORITY);
	result = bpf_tc_attach(&hook, &at);
	if (result)
		return accord_fail(failure, accord_reason_of_errno(-result, ACCORD_REASON_NO_KERNEL_SUPPORT), -result,
		                   "attaching the TC program (CONFIG_NET_CLS_BPF): %s", accord_complaint());
	program->interface = interface;
	return 0;
}

/* Protocol 0: nothing is received. */
static int open_sockets(struct accord_capture_program *program, struct accord_failure *failure)
{
	const uint32_t mark = ACCORD_CAPTURE_MARK;

	program->outward = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	program->inward = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (program->outward >= 0 && program->inward >= 0 &&
	    !setsockopt(program->inward, SOL_SOCKET, SO_MARK, &mark, sizeof(mark)))
		return 0;
	return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_NO_KERNEL_SUPPORT), errno,
	                   "an AF_PACKET socket with a mark");
}

int accord_capture_program_open(const char *object_path, int interface, struct accord_capture_program **opened,
                                struct accord_failure *failure)
{
	struct accord_capture_program *program = calloc(1, sizeof(*program));
	libbpf_print_fn_t before;
	int result;

	*opened = NULL;
	if (!program)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening %s", object_path);
	program->outward = program->inward = -1;
	before = accord_complaint_keep();
	result = load(program, object_path, failure);
	if (!result)
		result = open_sockets(program, failure);
	if (!result)
		result = attach(program, interface, failure);
	libbpf_set_print(before);
	if (result) {
		accord_capture_program_close(program);
		return result;
	}
	*opened = program;
	return 0;
}

static void detach(const struct accord_capture_program *program)
{
	LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = program->interface, .attach_point = BPF_TC_EGRESS);
	LIBBPF_OPTS(bpf_tc_opts, at, .handle = HANDLE, .priority = PRIORITY);
	libbpf_print_fn_t before = accord_complaint_keep();
	int ours;

	/* Another daemon may have taken the place over. */
	if (present(program->interface, &ours) == program->id)
		bpf_tc_detach(&hook, &at);
	libbpf_set_print(before);
}

void accord_capture_program_close(struct accord_capture_program *program)
{
	if (!program)
		return;
	if (program->interface)
		detach(program);
	if (program->outward >= 0)
		close(program->outward);
	if (program->inward >= 0)
		close(program->inward);
	bpf_object__close(program->object);
	free(program);
}

int accord_capture_program_fd(const struct accord_capture_program *program)
{
	return program->program_fd;
}

int accord_capture_program_map_fd(const struct accord_capture_program *program)
{
	return program->map_fd;
}

int accord_capture_program_ring_fd(const struct accord_capture_program *program)
{
	return program->ring_fd;
}

/* A file handle of kernfs on a 64-bit host is the cgroup's ID (name_to_handle_at(2), bpf_get_cgroup_id). */
static int id_of(int cgroup, uint64_t *id, struct accord_failure *failure)
{
	union {
		struct file_handle handle;
		uint8_t room[sizeof(struct file_handle) + CGROUP_ID_BYTES];
	} named = {.handle = {.handle_bytes = CGROUP_ID_BYTES}};
	struct statfs about;
	int mount;

	if (fstatfs(cgroup, &about) || about.f_type != CGROUP2_SUPER_MAGIC)
		return accord_fail(failure, ACCORD_REASON_BAD_CONFIG, 0, "no directory of cgroup2");
	if (name_to_handle_at(cgroup, "", &named.handle, &mount, AT_EMPTY_PATH))
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "the cgroup's ID");
	memcpy(id, named.handle.f_handle, sizeof(*id));
	return 0;
}

int accord_capture_program_mark(struct accord_capture_program *program, int cgroup, uint64_t *id,
                                struct accord_failure *failure)
{
	const uint8_t marked = 1;
	int result = id_of(cgroup, id, failure);

	if (result)
		return result;
	if (!bpf_map_update_elem(program->cgroups_fd, id, &marked, BPF_ANY))
		return 0;
	return accord_fail(failure, errno == E2BIG ? ACCORD_REASON_NO_MEMORY : ACCORD_REASON_NO_KERNEL_SUPPORT, errno,
	                   "%d cgroups can be marked at once", ACCORD_CAPTURE_CGROUPS);
}

int accord_capture_program_unmark(struct accord_capture_program *program, uint64_t id, struct accord_failure *failure)
{
	if (!bpf_map_delete_elem(program->cgroups_fd, &id) || errno == ENOENT)
		return 0;
	return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "a marked cgroup");
}

int accord_capture_program_send(struct accord_capture_program *program, const struct accord_capture_frame *frame,
                                uint32_t inward, struct accord_failure *failure)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_ifindex = program->interface,
		.sll_halen = ETH_ALEN,
	};

	memcpy(&to.sll_protocol, frame->frame + ETH_HLEN - sizeof(to.sll_protocol), sizeof(to.sll_protocol));
	memcpy(to.sll_addr, frame->frame, ETH_ALEN);
	if (sendto(inward ? program->inward : program->outward, frame->frame, frame->bytes, MSG_DONTWAIT,
	           (const struct sockaddr *)&to, sizeof(to)) == (ssize_t)frame->bytes)
		return 0;
	return accord_fail(failure, ACCORD_REASON_CANNOT_INSTALL, errno, "sending a captured SYN on, or its SYN-ACK");
}
