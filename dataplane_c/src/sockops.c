/* SPDX-License-Identifier: Apache-2.0 */
#include "sockops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "complaint.h"
#include "failure.h"

static const char program_name[] = "accord_sockops";

struct accord_sockops {
	char *object_path;
	struct bpf_object *object;
	struct bpf_program *program;
	struct bpf_map *syns, *listeners, *heard;
	int link_fd;
};

static int mismatch(struct accord_failure *failure, const char *what)
{
	return accord_fail(failure, ACCORD_REASON_MAP_MISMATCH, 0,
	                   "the sockops object's %s is not as the library has it: build both from one source", what);
}

static int check_layout(const struct accord_sockops *sockops, struct accord_failure *failure)
{
	const struct bpf_map *map = bpf_object__find_map_by_name(sockops->object, ".rodata.syns");
	size_t bytes = 0;
	const uint32_t *layout = map ? bpf_map__initial_value((struct bpf_map *)map, &bytes) : NULL;

	return layout && bytes >= sizeof(*layout) && *layout == ACCORD_SYNS_LAYOUT ? 0 : mismatch(failure, "layout");
}

static int find_maps(struct accord_sockops *sockops, struct accord_failure *failure)
{
	const struct {
		const char *name;
		struct bpf_map **map;
		enum bpf_map_type type;
		uint32_t value_bytes, entries;
	} wanted[] = {
		{"syns", &sockops->syns, BPF_MAP_TYPE_ARRAY, sizeof(struct accord_syn), ACCORD_SYNS_SLOTS},
		{"listeners", &sockops->listeners, BPF_MAP_TYPE_SK_STORAGE, sizeof(struct accord_listener), 0},
		{"heard", &sockops->heard, BPF_MAP_TYPE_ARRAY, sizeof(struct accord_heard), ACCORD_HEARD_SLOTS},
	};

	for (size_t i = 0; i < sizeof(wanted) / sizeof(*wanted); i++) {
		struct bpf_map *map = bpf_object__find_map_by_name(sockops->object, wanted[i].name);

		if (!map || bpf_map__type(map) != wanted[i].type || bpf_map__value_size(map) != wanted[i].value_bytes ||
		    bpf_map__max_entries(map) != wanted[i].entries)
			return mismatch(failure, wanted[i].name);
		*wanted[i].map = map;
	}
	return 0;
}

static int find(struct accord_sockops *sockops, const char *object_path, struct accord_failure *failure)
{
	long error;
	int result;

	sockops->object = bpf_object__open_file(object_path, NULL);
	error = libbpf_get_error(sockops->object);
	if (error) {
		sockops->object = NULL;
		return accord_fail(failure, ACCORD_REASON_LOAD_FAILED, (int)-error, "opening %s: %s", object_path,
		                   accord_complaint());
	}
	result = check_layout(sockops, failure);
	if (result)
		return result;
	sockops->program = bpf_object__find_program_by_name(sockops->object, program_name);
	if (!sockops->program)
		return accord_fail(failure, ACCORD_REASON_LOAD_FAILED, 0, "%s has no program %s", object_path, program_name);
	return find_maps(sockops, failure);
}

/* heard_fd: the XDP program's map; -1: one of its own, in which nothing ever is. */
static int load(struct accord_sockops *sockops, int heard_fd, struct accord_failure *failure)
{
	int result = heard_fd >= 0 ? bpf_map__reuse_fd(sockops->heard, heard_fd) : 0;

	if (!result)
		result = bpf_object__load(sockops->object);
	if (!result)
		return 0;
	return accord_fail(failure, accord_reason_of_errno(-result, ACCORD_REASON_LOAD_FAILED), -result,
	                   "loading the sockops program: %s", accord_complaint());
}

static int attach(struct accord_sockops *sockops, const char *cgroup, struct accord_failure *failure)
{
	int directory = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error;

	if (directory < 0)
		return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_NO_KERNEL_SUPPORT), errno,
		                   "opening cgroup %s", cgroup);
	sockops->link_fd = bpf_link_create(bpf_program__fd(sockops->program), directory, BPF_CGROUP_SOCK_OPS, NULL);
	error = sockops->link_fd < 0 ? -sockops->link_fd : 0;
	close(directory);
	if (!error)
		return 0;
	sockops->link_fd = -1;
	/* It was allowed to be loaded, so what is missing is no privilege: a program that is to be alone. */
	if (error == EPERM)
		return accord_fail(failure, ACCORD_REASON_FOREIGN_PROGRAM, error,
		                   "cgroup %s or one above has a sockops program that admits no other", cgroup);
	if (error == E2BIG)
		return accord_fail(failure, ACCORD_REASON_FOREIGN_PROGRAM, error,
		                   "cgroup %s has as many sockops programs as go", cgroup);
	return accord_fail(failure, accord_reason_of_errno(error, ACCORD_REASON_NO_KERNEL_SUPPORT), error,
	                   "attaching to cgroup %s", cgroup);
}

static struct accord_sockops *make(const char *object_path)
{
	struct accord_sockops *sockops = calloc(1, sizeof(*sockops));

	if (!sockops)
		return NULL;
	sockops->link_fd = -1;
	sockops->object_path = strdup(object_path);
	if (sockops->object_path)
		return sockops;
	free(sockops);
	return NULL;
}

int accord_sockops_open(const char *object_path, const char *cgroup, int heard_fd, struct accord_sockops **opened,
                        struct accord_failure *failure)
{
	struct accord_sockops *sockops = make(object_path);
	libbpf_print_fn_t before;
	int result;

	*opened = NULL;
	if (!sockops)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening %s", object_path);
	before = accord_complaint_keep();
	result = find(sockops, object_path, failure);
	if (!result)
		result = load(sockops, heard_fd, failure);
	libbpf_set_print(before);
	if (!result)
		result = attach(sockops, cgroup, failure);
	if (result) {
		accord_sockops_close(sockops);
		return result;
	}
	*opened = sockops;
	return 0;
}

/* The program again, with this one's maps. */
static int load_beside(const struct accord_sockops *sockops, int heard_fd, struct accord_sockops *next,
                       struct accord_failure *failure)
{
	int result = find(next, sockops->object_path, failure), error;

	if (result)
		return result;
	error = bpf_map__reuse_fd(next->syns, bpf_map__fd(sockops->syns));
	if (!error)
		error = bpf_map__reuse_fd(next->listeners, bpf_map__fd(sockops->listeners));
	if (error)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, -error, "keeping the sockops program's maps");
	return load(next, heard_fd, failure);
}

int accord_sockops_hear(struct accord_sockops *sockops, int heard_fd, struct accord_failure *failure)
{
	struct accord_sockops *next = make(sockops->object_path), swapped;
	libbpf_print_fn_t before;
	int result;

	if (!next)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening %s", sockops->object_path);
	before = accord_complaint_keep();
	result = load_beside(sockops, heard_fd, next, failure);
	libbpf_set_print(before);
	if (!result && bpf_link_update(sockops->link_fd, bpf_program__fd(next->program), NULL))
		result = accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "exchanging the sockops program");
	if (!result) {
		next->link_fd = sockops->link_fd;
		sockops->link_fd = -1;
		swapped = *sockops;
		*sockops = *next;
		*next = swapped;
	}
	accord_sockops_close(next);
	return result;
}

void accord_sockops_close(struct accord_sockops *sockops)
{
	if (!sockops)
		return;
	if (sockops->link_fd >= 0)
		close(sockops->link_fd);
	bpf_object__close(sockops->object);
	free(sockops->object_path);
	free(sockops);
}

int accord_sockops_syns_fd(const struct accord_sockops *sockops)
{
	return bpf_map__fd(sockops->syns);
}

int accord_sockops_answer(struct accord_sockops *sockops, int listener, struct accord_failure *failure)
{
	const struct accord_listener fresh = {0};

	if (!bpf_map_update_elem(bpf_map__fd(sockops->listeners), &listener, &fresh, BPF_ANY))
		return 0;
	return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_NO_KERNEL_SUPPORT), errno,
	                   "putting a listener into a BPF map");
}
