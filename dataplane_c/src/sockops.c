/* SPDX-License-Identifier: Apache-2.0 */
#include "sockops.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "complaint.h"
#include "failure.h"

static const char program_name[] = "accord_sockops";

struct accord_sockops {
	struct bpf_object *object;
	int syns_fd, listeners_fd;
	int link_fd;
};

static int mismatch(struct accord_failure *failure, const char *what)
{
	return accord_fail(failure, ACCORD_REASON_MAP_MISMATCH, 0,
	                   "%s of the sockops object is not as the library has it: build both from one source", what);
}

static int check_layout(const struct accord_sockops *sockops, struct accord_failure *failure)
{
	const struct bpf_map *map = bpf_object__find_map_by_name(sockops->object, ".rodata.syns");
	size_t bytes = 0;
	const uint32_t *layout = map ? bpf_map__initial_value((struct bpf_map *)map, &bytes) : NULL;

	return layout && bytes >= sizeof(*layout) && *layout == ACCORD_SYNS_LAYOUT ? 0 : mismatch(failure, "the layout");
}

static int find_maps(struct accord_sockops *sockops, struct accord_failure *failure)
{
	const struct bpf_map *syns = bpf_object__find_map_by_name(sockops->object, "syns");
	const struct bpf_map *listeners = bpf_object__find_map_by_name(sockops->object, "listeners");

	if (!syns || bpf_map__type(syns) != BPF_MAP_TYPE_ARRAY || bpf_map__value_size(syns) != sizeof(struct accord_syn) ||
	    bpf_map__max_entries(syns) != ACCORD_SYNS_SLOTS)
		return mismatch(failure, "map syns");
	if (!listeners || bpf_map__type(listeners) != BPF_MAP_TYPE_SK_STORAGE ||
	    bpf_map__value_size(listeners) != sizeof(struct accord_listener))
		return mismatch(failure, "map listeners");
	sockops->syns_fd = bpf_map__fd(syns);
	sockops->listeners_fd = bpf_map__fd(listeners);
	return 0;
}

static int load(struct accord_sockops *sockops, const char *object_path, int *program_fd,
                struct accord_failure *failure)
{
	const struct bpf_program *program;
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
	program = bpf_object__find_program_by_name(sockops->object, program_name);
	if (!program)
		return accord_fail(failure, ACCORD_REASON_LOAD_FAILED, 0, "%s has no program %s", object_path, program_name);
	result = bpf_object__load(sockops->object);
	if (result)
		return accord_fail(failure, accord_reason_of_errno(-result, ACCORD_REASON_LOAD_FAILED), -result,
		                   "loading the sockops program: %s", accord_complaint());
	*program_fd = bpf_program__fd(program);
	return find_maps(sockops, failure);
}

static int attach(struct accord_sockops *sockops, const char *cgroup, int program_fd, struct accord_failure *failure)
{
	int directory = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC), error;

	if (directory < 0)
		return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_NO_KERNEL_SUPPORT), errno,
		                   "opening cgroup %s", cgroup);
	sockops->link_fd = bpf_link_create(program_fd, directory, BPF_CGROUP_SOCK_OPS, NULL);
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

int accord_sockops_open(const char *object_path, const char *cgroup, struct accord_sockops **opened,
                        struct accord_failure *failure)
{
	struct accord_sockops *sockops = calloc(1, sizeof(*sockops));
	libbpf_print_fn_t before;
	int program_fd, result;

	*opened = NULL;
	if (!sockops)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening %s", object_path);
	sockops->link_fd = -1;
	before = accord_complaint_keep();
	result = load(sockops, object_path, &program_fd, failure);
	libbpf_set_print(before);
	if (!result)
		result = attach(sockops, cgroup, program_fd, failure);
	if (result) {
		accord_sockops_close(sockops);
		return result;
	}
	*opened = sockops;
	return 0;
}

void accord_sockops_close(struct accord_sockops *sockops)
{
	if (!sockops)
		return;
	if (sockops->link_fd >= 0)
		close(sockops->link_fd);
	bpf_object__close(sockops->object);
	free(sockops);
}

int accord_sockops_syns_fd(const struct accord_sockops *sockops)
{
	return sockops->syns_fd;
}

int accord_sockops_answer(struct accord_sockops *sockops, int listener, struct accord_failure *failure)
{
	const struct accord_listener fresh = {0};

	if (!bpf_map_update_elem(sockops->listeners_fd, &listener, &fresh, BPF_ANY))
		return 0;
	return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_NO_KERNEL_SUPPORT), errno,
	                   "putting a listener into a BPF map");
}
