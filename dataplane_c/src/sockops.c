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
#include "object.h"

struct accord_sockops {
	char *object_path;
	struct bpf_object *object;
	struct bpf_program *program;
	struct bpf_map *syns, *listeners, *heard;
	int link_fd;
};

static struct object_file file_of(const struct accord_sockops *sockops)
{
	return (struct object_file){
		.path = sockops->object_path,
		.kind = "sockops",
		.program = "accord_sockops",
		.section = ".rodata.syns",
		.layout = ACCORD_SYNS_LAYOUT,
	};
}

static int open_object(struct accord_sockops *sockops, struct accord_failure *failure)
{
	const struct object_map maps[] = {
		{"syns", &sockops->syns, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(struct accord_syn), ACCORD_SYNS_SLOTS},
		{"listeners", &sockops->listeners, BPF_MAP_TYPE_SK_STORAGE, sizeof(uint32_t), sizeof(struct accord_listener),
	     0},
		{"heard", &sockops->heard, BPF_MAP_TYPE_ARRAY, sizeof(uint32_t), sizeof(struct accord_heard),
	     ACCORD_HEARD_SLOTS},
	};
	struct object_file file = file_of(sockops);

	file.maps = maps;
	file.maps_count = sizeof(maps) / sizeof(*maps);
	return object_open(&file, &sockops->object, &sockops->program, failure);
}

/* heard_fd: the XDP program's map; -1: one of its own, in which nothing ever is. */
static int load(struct accord_sockops *sockops, int heard_fd, struct accord_failure *failure)
{
	const struct object_file file = file_of(sockops);
	int result = heard_fd >= 0 ? bpf_map__reuse_fd(sockops->heard, heard_fd) : 0;

	if (result)
		return accord_fail(failure, accord_reason_of_errno(-result, ACCORD_REASON_LOAD_FAILED), -result,
		                   "sharing the XDP program's map: %s", accord_complaint());
	return object_load(&file, sockops->object, failure);
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
	result = open_object(sockops, failure);
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
	int result = open_object(next, failure), error;

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
