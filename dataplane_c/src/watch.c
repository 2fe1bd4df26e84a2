// SPDX-License-Identifier: Apache-2.0
/* The verdicts of an XDP program that another process has loaded, for as long as somebody watches them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "failure.h"

enum {
	WATCH_MAX_MAPS = 32, /* of one program; ours has a handful */
};

struct accord_watcher {
	int samples_fd;
	struct accord_watch *lease;
};

uint32_t accord_watch_find(int32_t interface)
{
	LIBBPF_OPTS(bpf_xdp_query_opts, query);

	if (bpf_xdp_query(interface, 0, &query))
		return 0;
	return query.prog_id ? query.prog_id : query.drv_prog_id ? query.drv_prog_id : query.skb_prog_id;
}

static int map_lease(struct accord_watcher *watcher, int fd, struct accord_failure *failure)
{
	void *memory = mmap(NULL, (size_t)sysconf(_SC_PAGESIZE), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "mapping the BPF map watch");
	watcher->lease = memory;
	return 0;
}

/* Takes fd over. */
static int take_map(struct accord_watcher *watcher, int fd, struct accord_failure *failure)
{
	struct bpf_map_info info = {};
	uint32_t bytes = sizeof(info);
	int result = 0;

	if (bpf_obj_get_info_by_fd(fd, &info, &bytes)) {
		result = accord_fail(failure, ACCORD_REASON_NO_PRIVILEGE, errno, "asking for a BPF map");
	} else if (!strcmp(info.name, "samples") && watcher->samples_fd < 0) {
		watcher->samples_fd = fd;
		return 0;
	} else if (!strcmp(info.name, "watch") && !watcher->lease) {
		if (info.value_size != sizeof(struct accord_watch))
			result = accord_fail(failure, ACCORD_REASON_MAP_MISMATCH, 0, "map watch has %u bytes, not %zu",
			                     info.value_size, sizeof(struct accord_watch));
		else
			result = map_lease(watcher, fd, failure);
	}
	close(fd);
	return result;
}

static int take_maps(struct accord_watcher *watcher, uint32_t program_id, struct accord_failure *failure)
{
	uint32_t ids[WATCH_MAX_MAPS];
	struct bpf_prog_info info = {.nr_map_ids = WATCH_MAX_MAPS, .map_ids = (uintptr_t)ids};
	uint32_t bytes = sizeof(info);
	int fd = bpf_prog_get_fd_by_id(program_id), error;

	if (fd < 0)
		return accord_fail(failure, accord_reason_of_errno(errno, ACCORD_REASON_NO_PRIVILEGE), errno,
		                   "opening BPF program %u", program_id);
	error = bpf_obj_get_info_by_fd(fd, &info, &bytes) ? errno : 0;
	close(fd);
	if (error)
		return accord_fail(failure, ACCORD_REASON_NO_PRIVILEGE, error, "asking for BPF program %u", program_id);
	if (strcmp(info.name, "accord_xdp"))
		return accord_fail(failure, ACCORD_REASON_FOREIGN_PROGRAM, 0, "BPF program %u is %s, not accord_xdp",
		                   program_id, info.name[0] ? info.name : "(unnamed)");
	for (uint32_t i = 0; i < info.nr_map_ids && i < WATCH_MAX_MAPS; i++) {
		int result;

		fd = bpf_map_get_fd_by_id(ids[i]);
		if (fd < 0)
			return accord_fail(failure, ACCORD_REASON_NO_PRIVILEGE, errno, "opening BPF map %u", ids[i]);
		result = take_map(watcher, fd, failure);
		if (result)
			return result;
	}
	if (watcher->samples_fd < 0 || !watcher->lease)
		return accord_fail(failure, ACCORD_REASON_MAP_MISMATCH, 0, "BPF program %u has no maps to watch it by",
		                   program_id);
	return 0;
}

int accord_watch_open(uint32_t program_id, struct accord_watcher **opened, struct accord_failure *failure)
{
	struct accord_watcher *watcher = calloc(1, sizeof(*watcher));
	int result;

	*opened = NULL;
	if (!watcher)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening BPF program %u", program_id);
	watcher->samples_fd = -1;
	result = take_maps(watcher, program_id, failure);
	if (result) {
		accord_watch_close(watcher);
		return result;
	}
	*opened = watcher;
	return 0;
}

void accord_watch_close(struct accord_watcher *watcher)
{
	if (!watcher)
		return;
	if (watcher->lease) {
		if (watcher->lease->owner == (uint32_t)getpid())
			watcher->lease->until_ns = 0;
		munmap(watcher->lease, (size_t)sysconf(_SC_PAGESIZE));
	}
	/* The kernel takes out what came in through this descriptor. */
	if (watcher->samples_fd >= 0)
		close(watcher->samples_fd);
	free(watcher);
}

struct accord_watch *accord_watch_lease(struct accord_watcher *watcher)
{
	return watcher->lease;
}

int accord_watch_join(struct accord_watcher *watcher, uint32_t cpu, int32_t fd)
{
	return bpf_map_update_elem(watcher->samples_fd, &cpu, &fd, BPF_ANY) ? -ACCORD_REASON_NO_KERNEL_SUPPORT : 0;
}
