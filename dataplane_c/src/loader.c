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

#include "failure.h"

enum {
	/* A link whose process was killed a moment ago is still being torn down. */
	ATTACH_RETRY_MS = 200,
	ATTACH_PAUSE_MS = 10,
};

static const char program_name[] = "accord_xdp";

struct accord_program {
	struct bpf_object *object;
	int program_fd, settings_fd, ports_fd, xsks_fd, counters_fd;
	int link_fd;
	uint32_t id;
	int cpus;
	uint64_t *per_cpu; /* scratch of accord_program_counters */
	struct accord_settings *settings;
};

/* libbpf speaks to stderr unless told otherwise. The first complaint is the one that says why. */
static __thread char complaint[96];

__attribute__((format(printf, 2, 0))) static int keep_complaint(enum libbpf_print_level level, const char *format,
                                                                va_list arguments)
{
	if (level == LIBBPF_WARN && !complaint[0]) {
		vsnprintf(complaint, sizeof(complaint), format, arguments);
		complaint[strcspn(complaint, "\n")] = '\0';
	}
	return 0;
}

static int find_maps(struct accord_program *program, struct accord_failure *failure)
{
	const struct {
		const char *name;
		int *fd;
		uint32_t value_bytes;
	} wanted[] = {
		{"settings", &program->settings_fd, sizeof(struct accord_settings)},
		{"ports", &program->ports_fd, sizeof(uint8_t)},
		{"xsks", &program->xsks_fd, sizeof(uint32_t)},
		{"counters", &program->counters_fd, sizeof(uint64_t)},
	};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		const struct bpf_map *map = bpf_object__find_map_by_name(program->object, wanted[i].name);

		if (!map || bpf_map__value_size(map) != wanted[i].value_bytes)
			return accord_fail(failure, ACCORD_REASON_MAP_MISMATCH, 0,
			                   "map %s is %s: build the BPF object and the library from one source", wanted[i].name,
			                   map ? "of another layout" : "missing");
		*wanted[i].fd = bpf_map__fd(map);
	}
	return 0;
}

static int load(struct accord_program *program, const char *object_path, struct accord_failure *failure)
{
	struct bpf_prog_info info = {};
	uint32_t info_bytes = sizeof(info);
	struct bpf_program *entry;
	long error;
	int result;

	program->object = bpf_object__open_file(object_path, NULL);
	error = libbpf_get_error(program->object);
	if (error) {
		program->object = NULL;
		return accord_fail(failure, ACCORD_REASON_LOAD_FAILED, (int)-error, "opening %s", object_path);
	}
	entry = bpf_object__find_program_by_name(program->object, program_name);
	if (!entry)
		return accord_fail(failure, ACCORD_REASON_LOAD_FAILED, 0, "%s has no program %s", object_path, program_name);
	result = bpf_object__load(program->object);
	if (result)
		return accord_fail(failure, accord_reason_of_errno(-result, ACCORD_REASON_LOAD_FAILED), -result,
		                   "loading the XDP program: %s", complaint);
	program->program_fd = bpf_program__fd(entry);
	if (!bpf_obj_get_info_by_fd(program->program_fd, &info, &info_bytes))
		program->id = info.id;
	return find_maps(program, failure);
}

static int map_settings(struct accord_program *program, struct accord_failure *failure)
{
	size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, program->settings_fd, 0);

	if (memory == MAP_FAILED)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "mapping the BPF map settings");
	program->settings = memory;
	program->settings->layout = ACCORD_MAP_LAYOUT;
	return 0;
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
	complaint[0] = '\0';
	before = libbpf_set_print(keep_complaint);
	result = load(program, object_path, failure);
	libbpf_set_print(before);
	if (!result)
		result = map_settings(program, failure);
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
	if (program->link_fd >= 0)
		close(program->link_fd);
	if (program->settings)
		munmap(program->settings, (size_t)sysconf(_SC_PAGESIZE));
	bpf_object__close(program->object);
	free(program->per_cpu);
	free(program);
}

/* The ID of the program that is attached in any mode, 0 when there is none; its name into name. */
static uint32_t attached_program(int ifindex, char name[BPF_OBJ_NAME_LEN])
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);
	struct bpf_prog_info info = {};
	uint32_t info_bytes = sizeof(info), id = 0;
	int fd;

	name[0] = '\0';
	if (!bpf_xdp_query(ifindex, 0, &query))
		id = query.prog_id       ? query.prog_id
		     : query.drv_prog_id ? query.drv_prog_id
		     : query.skb_prog_id ? query.skb_prog_id
		                         : query.hw_prog_id;
	if (!id)
		return 0;
	fd = bpf_prog_get_fd_by_id(id);
	if (fd >= 0) {
		if (!bpf_obj_get_info_by_fd(fd, &info, &info_bytes))
			memcpy(name, info.name, BPF_OBJ_NAME_LEN);
		close(fd);
	}
	return id;
}

int accord_program_attach(struct accord_program *program, int ifindex, uint32_t flags, struct accord_failure *failure)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);
	const struct timespec pause = {.tv_nsec = ATTACH_PAUSE_MS * 1000000L};
	char name[BPF_OBJ_NAME_LEN] = "", interface[IF_NAMESIZE] = "";
	uint32_t other = 0;
	int error;

	for (int waited = 0;; waited += ATTACH_PAUSE_MS) {
		program->link_fd = bpf_link_create(program->program_fd, ifindex, BPF_XDP, &options);
		if (program->link_fd >= 0)
			return 0;
		error = -program->link_fd;
		program->link_fd = -1;
		if (error != EBUSY && error != EEXIST)
			break;
		other = attached_program(ifindex, name);
		/* Only a program of our own name can be one that is just going away. */
		if ((other && strcmp(name, program_name)) || waited >= ATTACH_RETRY_MS)
			break;
		nanosleep(&pause, NULL);
	}
	if_indextoname((unsigned int)ifindex, interface);
	if (other)
		return accord_fail(failure, ACCORD_REASON_FOREIGN_PROGRAM, error,
		                   "XDP program %s, ID %u, is attached to %s and stays there", name[0] ? name : "(unnamed)",
		                   other, interface);
	return accord_fail(failure, accord_reason_of_errno(error, ACCORD_REASON_NO_KERNEL_SUPPORT), error,
	                   "attaching in %s mode to %s", flags & XDP_FLAGS_DRV_MODE ? "native" : "generic", interface);
}

uint32_t accord_program_id(const struct accord_program *program)
{
	return program->id;
}

struct accord_settings *accord_program_settings(struct accord_program *program)
{
	return program->settings;
}

void accord_program_heartbeat(struct accord_program *program)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	__atomic_store_n(&program->settings->heartbeat_ns, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
	                 __ATOMIC_RELAXED);
}

int accord_program_steer(struct accord_program *program, uint16_t port, uint32_t steered)
{
	uint16_t key = htons(port);
	uint8_t value = 1;
	int result = steered ? bpf_map_update_elem(program->ports_fd, &key, &value, BPF_ANY)
	                     : bpf_map_delete_elem(program->ports_fd, &key);

	if (result == -ENOENT) /* taking out what is not there */
		return 0;
	return result ? -ACCORD_REASON_NO_MEMORY : 0;
}

int accord_program_join(struct accord_program *program, uint32_t queue, int32_t fd)
{
	int result = fd >= 0 ? bpf_map_update_elem(program->xsks_fd, &queue, &fd, BPF_ANY)
	                     : bpf_map_delete_elem(program->xsks_fd, &queue);

	return result ? -ACCORD_REASON_NO_SOCKET : 0;
}

int accord_program_counters(struct accord_program *program, uint64_t *counters)
{
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
