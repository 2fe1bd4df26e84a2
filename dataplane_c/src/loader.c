/* SPDX-License-Identifier: Apache-2.0 */
#include "loader.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_link.h>

#include "ask.h"
#include "complaint.h"
#include "failure.h"
#include "object.h"

enum {
	/* A link whose process was killed a moment ago is still being torn down. */
	ATTACH_RETRY_MS = 200,
	ATTACH_PAUSE_MS = 10,
	HEARD_BYTES = ACCORD_HEARD_SLOTS * sizeof(struct accord_heard), /* whole pages */
};

static const char program_name[] = "accord_xdp";

struct accord_program {
	struct bpf_object *object;
	int program_fd, settings_fd, ports_fd, xsks_fd, counters_fd, heard_fd;
	int link_fd;
	uint32_t id;
	int remote; /* loaded and held by the broker: all but the settings is asked for */
	int cpus;
	uint64_t *per_cpu; /* scratch of accord_program_counters */
	struct accord_settings *settings;
	const struct accord_heard *heard;
};

/* One of another layout would be told so by the settings, and pass everything: it is not even attached. */
static int load(struct accord_program *program, const char *object_path, struct accord_failure *failure)
{
	struct bpf_map *settings, *ports, *xsks, *counters, *heard;
	const struct object_map maps[] = {
		{"settings", &settings, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(struct accord_settings), 1},
		{"ports", &ports, BPF_MAP_TYPE_HASH, sizeof(uint16_t), sizeof(uint8_t), ACCORD_MAX_PORTS},
		{"xsks", &xsks, BPF_MAP_TYPE_XSKMAP, sizeof(uint32_t), sizeof(uint32_t), ACCORD_MAX_QUEUES},
		{"counters", &counters, BPF_MAP_TYPE_PERCPU_ARRAY, sizeof(uint32_t), sizeof(uint64_t), ACCORD_REASON_LIMIT},
		{"heard", &heard, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(struct accord_heard), ACCORD_HEARD_SLOTS},
	};
	const struct object_file file = {
		.path = object_path,
		.kind = "XDP",
		.program = program_name,
		.section = ".rodata.layout",
		.layout = ACCORD_MAP_LAYOUT,
		.maps = maps,
		.maps_count = sizeof(maps) / sizeof(*maps),
	};
	struct bpf_prog_info info = {};
	uint32_t info_bytes = sizeof(info);
	struct bpf_program *entry;
	int result = object_open(&file, &program->object, &entry, failure);

	if (!result)
		result = object_load(&file, program->object, failure);
	if (result)
		return result;
	program->program_fd = bpf_program__fd(entry);
	program->settings_fd = bpf_map__fd(settings);
	program->ports_fd = bpf_map__fd(ports);
	program->xsks_fd = bpf_map__fd(xsks);
	program->counters_fd = bpf_map__fd(counters);
	program->heard_fd = bpf_map__fd(heard);
	if (!bpf_obj_get_info_by_fd(program->program_fd, &info, &info_bytes))
		program->id = info.id;
	return 0;
}

static int map_settings(struct accord_program *program, struct accord_failure *failure)
{
	void *memory =
		mmap(NULL, sizeof(struct accord_settings), PROT_READ | PROT_WRITE, MAP_SHARED, program->settings_fd, 0);

	if (memory == MAP_FAILED)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "mapping the BPF map settings");
	program->settings = memory;
	program->settings->layout = ACCORD_MAP_LAYOUT;
	return 0;
}

/* For reading: the table is the program's. */
static int map_heard(struct accord_program *program, struct accord_failure *failure)
{
	void *memory = mmap(NULL, HEARD_BYTES, PROT_READ, MAP_SHARED, program->heard_fd, 0);

	if (memory == MAP_FAILED)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "mapping the BPF map heard");
	program->heard = memory;
	return 0;
}

/* The settings are mapped here: a heartbeat costs no question. */
static int load_remotely(struct accord_program *program, struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_LOAD};
	int result, fd;

	program->remote = 1;
	result = accord_ask(request, NULL, 0, -1, &program->id, sizeof(program->id), &fd, failure);
	if (result < 0) {
		program->remote = 0; /* nothing to be unloaded */
		return result;
	}
	program->settings_fd = fd;
	result = map_settings(program, failure);
	close(fd);
	program->settings_fd = -1;
	if (result)
		return result;
	result = accord_ask((struct accord_request){.kind = ACCORD_ASK_HEARD}, NULL, 0, -1, NULL, 0, &fd, failure);
	if (result < 0)
		return result;
	program->heard_fd = fd;
	result = map_heard(program, failure);
	close(fd);
	program->heard_fd = -1;
	return result;
}

int accord_program_open(const char *object_path, struct accord_program **opened, struct accord_failure *failure)
{
	struct accord_program *program = calloc(1, sizeof(*program));
	libbpf_print_fn_t before;
	int result;

	*opened = NULL;
	if (!program)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening %s", object_path);
	program->link_fd = -1;
	program->cpus = libbpf_num_possible_cpus();
	program->per_cpu = program->cpus > 0 ? calloc((size_t)program->cpus, sizeof(uint64_t)) : NULL;
	if (!program->per_cpu) {
		accord_program_close(program);
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "counting the CPUs");
	}
	if (accord_privilege_asks()) {
		result = load_remotely(program, failure);
	} else {
		before = accord_complaint_keep();
		result = load(program, object_path, failure);
		libbpf_set_print(before);
		if (!result)
			result = map_settings(program, failure);
		if (!result)
			result = map_heard(program, failure);
	}
	if (result) {
		accord_program_close(program);
		return result;
	}
	*opened = program;
	return 0;
}

void accord_program_close(struct accord_program *program)
{
	if (!program)
		return;
	if (program->remote)
		accord_ask((struct accord_request){.kind = ACCORD_ASK_UNLOAD}, NULL, 0, -1, NULL, 0, NULL, NULL);
	if (program->link_fd >= 0)
		close(program->link_fd);
	if (program->settings)
		munmap(program->settings, sizeof(struct accord_settings));
	if (program->heard)
		munmap((void *)program->heard, HEARD_BYTES);
	bpf_object__close(program->object);
	free(program->per_cpu);
	free(program);
}

/* The words for an attachment that the kernel refused because somebody else's is there. */
static int refuse_foreign(const struct accord_attached *other, const char *interface, int error,
                          struct accord_failure *failure)
{
	char tag[2 * sizeof(other->tag) + 1] = "";

	/* A program of a bond or team rules out one on its members, and the other way round. */
	if (!other->program_id)
		return accord_fail(failure, ACCORD_REASON_FOREIGN_PROGRAM, error,
		                   "a device above or below %s has an XDP program, which stays there", interface);
	for (size_t i = 0; i < sizeof(other->tag); i++)
		snprintf(tag + 2 * i, 3, "%02x", other->tag[i]);
	return accord_fail(failure, ACCORD_REASON_FOREIGN_PROGRAM, error,
	                   "XDP program %s, ID %u, tag %s, is attached %s to %s and stays there",
	                   other->name[0] ? other->name : "(unnamed)", other->program_id, tag,
	                   accord_attached_mode(other->mode), interface);
}

/*
 * The kernel itself takes no second program, of either mode and by either interface (link or netlink), so nothing
 * can come between a look and the attachment: there is no look. It is asked who is there only after a refusal.
 */
int accord_program_attach(struct accord_program *program, int ifindex, uint32_t flags, struct accord_failure *failure)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);
	const struct timespec pause = {.tv_nsec = ATTACH_PAUSE_MS * 1000000L};
	struct accord_attached other = {0};
	const struct accord_request request = {.kind = ACCORD_ASK_ATTACH, .number = (uint32_t)ifindex, .mode = flags};
	char interface[IF_NAMESIZE] = "";
	int error;

	if (program->remote)
		return accord_ask(request, NULL, 0, -1, NULL, 0, NULL, failure);
	for (int waited = 0;; waited += ATTACH_PAUSE_MS) {
		program->link_fd = bpf_link_create(program->program_fd, ifindex, BPF_XDP, &options);
		if (program->link_fd >= 0)
			return 0;
		error = -program->link_fd;
		program->link_fd = -1;
		if (error != EBUSY && error != EEXIST)
			break;
		accord_attached_find(ifindex, &other);
		/* Only a program of our own name can be one that is just going away, or one that is gone by now. */
		if ((other.program_id && strcmp(other.name, program_name)) || waited >= ATTACH_RETRY_MS)
			break;
		nanosleep(&pause, NULL);
	}
	if_indextoname((unsigned int)ifindex, interface);
	if (error == EBUSY || error == EEXIST)
		return refuse_foreign(&other, interface, error, failure);
	return accord_fail(failure, accord_reason_of_errno(error, ACCORD_REASON_NO_KERNEL_SUPPORT), error,
	                   "attaching in %s mode to %s", flags & XDP_FLAGS_DRV_MODE ? "native" : "generic", interface);
}

int accord_program_attached(const struct accord_program *program)
{
	struct bpf_link_info info = {};
	uint32_t bytes = sizeof(info);

	if (program->remote)
		return accord_ask((struct accord_request){.kind = ACCORD_ASK_ATTACHED}, NULL, 0, -1, NULL, 0, NULL, NULL) != 0;
	if (program->link_fd < 0)
		return 0;
	/* What cannot be asked is taken for granted: the heartbeat and the sockets cover for it. */
	return bpf_obj_get_info_by_fd(program->link_fd, &info, &bytes) || info.xdp.ifindex != 0;
}

uint32_t accord_program_id(const struct accord_program *program)
{
	return program->id;
}

struct accord_settings *accord_program_settings(struct accord_program *program)
{
	return program->settings;
}

int accord_program_settings_fd(const struct accord_program *program)
{
	return program->settings_fd;
}

int accord_program_heard_fd(const struct accord_program *program)
{
	return program->heard_fd;
}

const struct accord_heard *accord_program_heard(const struct accord_program *program)
{
	return program->heard;
}

void accord_program_quiet(struct accord_program *program)
{
	__atomic_store_n(&program->settings->heartbeat_ns, 0, __ATOMIC_RELAXED);
}

int accord_program_hear(struct accord_program *program, uint32_t slot, const struct accord_heard *entry)
{
	return bpf_map_update_elem(program->heard_fd, &slot, entry, BPF_ANY) ? -ACCORD_REASON_MAP_MISMATCH : 0;
}

void accord_program_heartbeat(struct accord_program *program)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	__atomic_store_n(&program->settings->heartbeat_ns, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
	                 __ATOMIC_RELAXED);
}

int accord_program_steer(struct accord_program *program, uint16_t port, uint32_t flags)
{
	const struct accord_request request = {.kind = ACCORD_ASK_STEER, .number = port, .mode = flags};
	uint16_t key = htons(port);
	uint8_t value = (uint8_t)flags;
	int result;

	if (program->remote)
		return accord_ask(request, NULL, 0, -1, NULL, 0, NULL, NULL);
	result = flags ? bpf_map_update_elem(program->ports_fd, &key, &value, BPF_ANY)
	               : bpf_map_delete_elem(program->ports_fd, &key);

	if (result == -ENOENT) /* taking out what is not there */
		return 0;
	return result ? -ACCORD_REASON_NO_MEMORY : 0;
}

int accord_program_join(struct accord_program *program, uint32_t queue, int32_t fd)
{
	int result;

	if (program->remote)
		return accord_ask((struct accord_request){.kind = ACCORD_ASK_JOIN, .number = queue}, NULL, 0, fd, NULL, 0, NULL,
		                  NULL);
	result = fd >= 0 ? bpf_map_update_elem(program->xsks_fd, &queue, &fd, BPF_ANY)
	                 : bpf_map_delete_elem(program->xsks_fd, &queue);

	return result ? -ACCORD_REASON_NO_SOCKET : 0;
}

int accord_program_counters(struct accord_program *program, uint64_t *counters)
{
	if (program->remote)
		return accord_ask((struct accord_request){.kind = ACCORD_ASK_COUNTERS}, NULL, 0, -1, counters,
		                  ACCORD_REASON_LIMIT * sizeof(*counters), NULL, NULL);
	for (uint32_t reason = 0; reason < ACCORD_REASON_LIMIT; reason++) {
		if (bpf_map_lookup_elem(program->counters_fd, &reason, program->per_cpu))
			return -ACCORD_REASON_MAP_MISMATCH;
		counters[reason] = 0;
		for (int cpu = 0; cpu < program->cpus; cpu++)
			counters[reason] += program->per_cpu[cpu];
	}
	return 0;
}

int accord_program_test_run(struct accord_program *program, const uint8_t *frame, uint32_t length, uint32_t repeat,
                            uint8_t *output, uint32_t *output_length, uint32_t *verdict, uint32_t *duration_ns)
{
	LIBBPF_OPTS(bpf_test_run_opts, options, .data_in = frame, .data_size_in = length, .data_out = output,
	            .data_size_out = *output_length, .repeat = (int)repeat);
	int result = bpf_prog_test_run_opts(program->program_fd, &options);

	if (result)
		return -(int)accord_reason_of_errno(-result, ACCORD_REASON_NO_KERNEL_SUPPORT);
	*output_length = options.data_size_out;
	*verdict = options.retval;
	*duration_ns = options.duration;
	return 0;
}
