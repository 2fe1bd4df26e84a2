/* SPDX-License-Identifier: Apache-2.0 */
#include "birth_program.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>

#include "complaint.h"
#include "failure.h"
#include "object.h"

static const char kernel_function[] = "bpf_sk_assign_tcp_reqsk";

enum {
	/* <linux/bpf.h> of Linux 6.6: newer than Debian 12's headers, and its libbpf passes numbers on that it does not
	 * know. */
	TCX_INGRESS = 46,
	BEFORE_OTHERS = 1 << 3, /* BPF_F_BEFORE, and nobody named: first of all */

	NS_IN_S = 1000000000,
	NS_IN_MS = 1000000,
};

struct accord_birth_program {
	struct bpf_object *object;
	int program_fd, births_fd, latest_fd;
	int link_fd; /* -1: not attached */
	int interface;
	char name[IF_NAMESIZE];
};

/* Asked for before the object is loaded: what libbpf says where it is missing names neither kernel nor mend. */
static int check_kernel(struct accord_failure *failure)
{
	struct btf *btf = btf__load_vmlinux_btf();
	struct utsname host = {0};
	int found;

	if (libbpf_get_error(btf))
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, 0,
		                   "this kernel says nothing of its types (BTF), by which %s is found", kernel_function);
	found = btf__find_by_name_kind(btf, kernel_function, BTF_KIND_FUNC);
	btf__free(btf);
	if (found > 0)
		return 0;
	uname(&host);
	return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, 0, "kernel %s does not have %s", host.release,
	                   kernel_function);
}

static int load(struct accord_birth_program *program, const char *object_path, struct accord_failure *failure)
{
	struct bpf_map *births, *latest;
	const struct object_map maps[] = {
		{"births", &births, BPF_MAP_TYPE_HASH, sizeof(struct accord_birth_key), sizeof(struct accord_birth),
	     ACCORD_BIRTHS_ENTRIES},
		{"latest", &latest, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(uint64_t), 1},
	};
	const struct object_file file = {
		.path = object_path,
		.kind = "TC ingress",
		.program = "accord_born",
		.section = ".rodata.births",
		.layout = ACCORD_BIRTHS_LAYOUT,
		.maps = maps,
		.maps_count = sizeof(maps) / sizeof(*maps),
	};
	struct bpf_program *found;
	int result = object_open(&file, &program->object, &found, failure);

	if (!result)
		result = object_load(&file, program->object, failure);
	if (result)
		return result;
	program->program_fd = bpf_program__fd(found);
	program->births_fd = bpf_map__fd(births);
	program->latest_fd = bpf_map__fd(latest);
	return 0;
}

static void detach(struct accord_birth_program *program)
{
	if (program->link_fd >= 0)
		close(program->link_fd);
	program->link_fd = -1;
}

/* A link outlives its interface, and is then attached to none. */
static int is_attached(const struct accord_birth_program *program, int interface)
{
	struct bpf_link_info info = {0};
	uint32_t bytes = sizeof(info);

	if (program->link_fd < 0 || bpf_obj_get_info_by_fd(program->link_fd, &info, &bytes))
		return 0;
	/* Of a TCX link the index stands first too; <linux/bpf.h> of before 6.6 names no such link. */
	return (int)info.xdp.ifindex == interface;
}

/* To the interface of that name, which may have gone and come again since. */
static int attach(struct accord_birth_program *program, struct accord_failure *failure)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = BEFORE_OTHERS);
	int interface = (int)if_nametoindex(program->name);

	if (!interface)
		return accord_fail(failure, ACCORD_REASON_NO_INTERFACE, ENODEV, "%s", program->name);
	if (is_attached(program, interface))
		return 0;
	detach(program);
	program->interface = interface;
	program->link_fd = bpf_link_create(program->program_fd, interface, (enum bpf_attach_type)TCX_INGRESS, &options);
	if (program->link_fd >= 0)
		return 0;
	program->link_fd = -1;
	return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_NO_KERNEL_SUPPORT), errno,
	                   "attaching the TC program to %s", program->name);
}

int accord_birth_program_open(const char *object_path, const char *interface, struct accord_birth_program **opened,
                              struct accord_failure *failure)
{
	struct accord_birth_program *program;
	libbpf_print_fn_t before;
	int result;

	*opened = NULL;
	if (!interface || !*interface || strlen(interface) >= sizeof(program->name))
		return accord_fail(failure, ACCORD_REASON_NO_INTERFACE, 0, "the daemon has no interface of its own");
	result = check_kernel(failure);
	if (result)
		return result;
	program = calloc(1, sizeof(*program));
	if (!program)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening %s", object_path);
	program->link_fd = -1;
	memcpy(program->name, interface, strlen(interface) + 1);
	before = accord_complaint_keep();
	result = load(program, object_path, failure);
	libbpf_set_print(before);
	if (!result)
		result = attach(program, failure);
	if (result) {
		accord_birth_program_close(program);
		return result;
	}
	*opened = program;
	return 0;
}

void accord_birth_program_close(struct accord_birth_program *program)
{
	if (!program)
		return;
	detach(program);
	bpf_object__close(program->object);
	free(program);
}

/* ---- entries ---- */

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * NS_IN_S + (uint64_t)now.tv_nsec;
}

static struct accord_birth_key key_of(const struct accord_tcp_state *state)
{
	struct accord_birth_key key = {
		.family = state->family,
		.local_port = htons(state->local_port),
		.remote_port = htons(state->remote_port),
	};
	size_t bytes = state->family == 4 ? 4 : 16;

	memcpy(key.local, state->local, bytes);
	memcpy(key.remote, state->remote, bytes);
	return key;
}

static struct accord_birth birth_of(const struct accord_tcp_state *state, uint64_t now)
{
	return (struct accord_birth){
		.expected_ns = now,
		.until_ns = now + (uint64_t)ACCORD_BIRTH_SECONDS * NS_IN_S,
		.fate = ACCORD_BIRTH_WAITING,
		.local_isn = state->local_isn,
		.remote_isn = state->remote_isn,
		.timestamp = state->timestamp,
		.mss = state->remote_mss,
		.local_scale = state->local_scale,
		.remote_scale = state->remote_scale,
		/* Both scales 0 and none agreed are the same. */
		.scaled = state->local_scale || state->remote_scale,
		.sack = state->sack,
		.timestamps = state->timestamps,
	};
}

/* Of a worker that forgot to, and before others are refused for them. */
static void forget_the_late(const struct accord_birth_program *program, uint64_t now)
{
	struct accord_birth_key key, next;
	struct accord_birth birth;
	int more = !bpf_map_get_next_key(program->births_fd, NULL, &next);

	for (uint32_t i = 0; more && i < ACCORD_BIRTHS_ENTRIES; i++) {
		key = next;
		more = !bpf_map_get_next_key(program->births_fd, &key, &next);
		if (!bpf_map_lookup_elem(program->births_fd, &key, &birth) && birth.until_ns <= now)
			bpf_map_delete_elem(program->births_fd, &key);
	}
}

static int put(const struct accord_birth_program *program, const struct accord_tcp_state *state)
{
	const struct accord_birth_key key = key_of(state);
	const uint64_t now = now_ns();
	const struct accord_birth birth = birth_of(state, now);
	const uint32_t zero = 0;

	/* Before the entry, so that whoever finds one in the map has not passed by. */
	if (bpf_map_update_elem(program->latest_fd, &zero, &birth.until_ns, BPF_ANY))
		return -1;
	if (!bpf_map_update_elem(program->births_fd, &key, &birth, BPF_ANY))
		return 0;
	if (errno != E2BIG)
		return -1;
	forget_the_late(program, now);
	return bpf_map_update_elem(program->births_fd, &key, &birth, BPF_ANY);
}

int accord_birth_program_expect(struct accord_birth_program *program, const struct accord_tcp_state *state,
                                struct accord_failure *failure)
{
	int result = attach(program, failure);

	if (!result)
		result = accord_birth_possible(state, program->interface, failure);
	if (result)
		return result;
	if (!put(program, state))
		return 0;
	if (errno == E2BIG)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, 0, "%d connections are expected at once already",
		                   ACCORD_BIRTHS_ENTRIES);
	return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_CANNOT_INSTALL), errno,
	                   "putting a connection into a BPF map");
}

int accord_birth_program_end(struct accord_birth_program *program, const struct accord_tcp_state *state, uint32_t look,
                             struct accord_birth *end, struct accord_failure *failure)
{
	const struct accord_birth_key key = key_of(state);

	memset(end, 0, sizeof(*end));
	if (bpf_map_lookup_elem(program->births_fd, &key, end)) {
		if (errno == ENOENT)
			return 0;
		return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_CANNOT_INSTALL), errno,
		                   "looking into a BPF map");
	}
	/* Another connection's by now: a peer may propose again from the same port. */
	if (end->local_isn != state->local_isn) {
		memset(end, 0, sizeof(*end));
		return 0;
	}
	if (end->fate != ACCORD_BIRTH_WAITING || !(look & ACCORD_BIRTH_PATIENT))
		bpf_map_delete_elem(program->births_fd, &key);
	else if (look & ACCORD_BIRTH_ROUSE)
		accord_birth_rouse(state, end->timestamp + (uint32_t)((now_ns() - end->expected_ns) / NS_IN_MS));
	return 0;
}
