/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One process writes requests, the program of the kernel writes what came of them. The order that counts is kept by
 * the state, one word: stored last, and read first.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ask.h"
#include "failure.h"
#include "sockops.h"

enum {
	COOKIE_BITS = 64 - ACCORD_SYN_COOKIE_SHIFT,
	MAP_BYTES = ACCORD_SYNS_SLOTS * sizeof(struct accord_syn),
};

struct accord_syns {
	struct accord_syn *slots;
	struct accord_sockops *sockops; /* NULL: the broker's */
};

static struct accord_syn *slot_of(const struct accord_syns *syns, uint64_t cookie)
{
	return &syns->slots[cookie % ACCORD_SYNS_SLOTS];
}

static int map_slots(struct accord_syns *syns, int fd, struct accord_failure *failure)
{
	void *memory = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (memory == MAP_FAILED)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "mapping the BPF map syns");
	syns->slots = memory;
	return 0;
}

static int open_remotely(struct accord_syns *syns, struct accord_failure *failure)
{
	int fd, result;

	result = accord_ask((struct accord_request){.kind = ACCORD_ASK_SYNS}, NULL, 0, -1, NULL, 0, &fd, failure);
	if (result < 0)
		return result;
	result = map_slots(syns, fd, failure);
	close(fd);
	return result;
}

int accord_syns_open(const char *object_path, const char *cgroup, const struct accord_port *port,
                     struct accord_syns **opened, struct accord_failure *failure)
{
	struct accord_syns *syns = calloc(1, sizeof(*syns));
	int result;

	*opened = NULL;
	if (!syns)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening %s", object_path);
	if (accord_privilege_asks()) {
		result = open_remotely(syns, failure);
	} else {
		result =
			accord_sockops_open(object_path, cgroup, port ? accord_port_heard_fd(port) : -1, &syns->sockops, failure);
		if (!result)
			result = map_slots(syns, accord_sockops_syns_fd(syns->sockops), failure);
	}
	if (result) {
		accord_syns_close(syns);
		return result;
	}
	*opened = syns;
	return 0;
}

void accord_syns_close(struct accord_syns *syns)
{
	if (!syns)
		return;
	if (syns->slots)
		munmap(syns->slots, MAP_BYTES);
	accord_sockops_close(syns->sockops);
	free(syns);
}

int accord_syns_request(struct accord_syns *syns, uint64_t cookie, const uint8_t *transaction, uint32_t adopt)
{
	struct accord_syn *slot = slot_of(syns, cookie);

	if (!cookie || cookie >> COOKIE_BITS)
		return -ACCORD_REASON_NO_KERNEL_SUPPORT;
	/* A program that is writing the older socket's result finds its word changed, and lets it be. */
	__atomic_store_n(&slot->state, 0, __ATOMIC_RELEASE);
	memcpy(slot->transaction, transaction, sizeof(slot->transaction));
	__atomic_store_n(&slot->state, cookie << ACCORD_SYN_COOKIE_SHIFT | (adopt ? ACCORD_SYN_ADOPT : 0),
	                 __ATOMIC_RELEASE);
	return 0;
}

uint64_t accord_syns_state(const struct accord_syns *syns, uint64_t cookie)
{
	uint64_t state = __atomic_load_n(&slot_of(syns, cookie)->state, __ATOMIC_ACQUIRE);

	return cookie && state >> ACCORD_SYN_COOKIE_SHIFT == cookie ? state : 0;
}

void accord_syns_forget(struct accord_syns *syns, uint64_t cookie)
{
	/* Whose slot it is only this process changes: nothing comes between the look and the store. */
	if (accord_syns_state(syns, cookie))
		__atomic_store_n(&slot_of(syns, cookie)->state, 0, __ATOMIC_RELEASE);
}

uint32_t accord_syns_in_use(const struct accord_syns *syns)
{
	uint32_t used = 0;

	for (uint32_t i = 0; i < ACCORD_SYNS_SLOTS; i++)
		used += __atomic_load_n(&syns->slots[i].state, __ATOMIC_RELAXED) != 0;
	return used;
}

int accord_syns_answer(struct accord_syns *syns, int32_t listener, struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_SYNS_ANSWER};

	if (!syns->sockops)
		return accord_ask(request, NULL, 0, listener, NULL, 0, NULL, failure);
	return accord_sockops_answer(syns->sockops, listener, failure);
}

int accord_syns_hear(struct accord_syns *syns, const struct accord_port *port, struct accord_failure *failure)
{
	int fd;

	if (!syns->sockops)
		return accord_ask((struct accord_request){.kind = ACCORD_ASK_SYNS_HEAR}, NULL, 0, -1, NULL, 0, NULL, failure);
	fd = accord_port_heard_fd(port);
	return fd < 0 ? 0 : accord_sockops_hear(syns->sockops, fd, failure);
}
