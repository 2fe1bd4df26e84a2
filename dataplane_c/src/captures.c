/* SPDX-License-Identifier: Apache-2.0 */
/* What needs no privilege is done in memory that is shared with the TC program; the rest is asked for. */
#include "core.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <linux/bpf.h>

#include "ask.h"
#include "capture_program.h"
#include "failure.h"

/*
 * The ring (kernel/bpf/ringbuf.c): a page with the consumer's position, one with the producer's, and the data, twice
 * in a row. A record begins with its length and flags, 4 bytes, and 4 more; positions never wrap.
 */
enum {
	MAP_BYTES = sizeof(struct accord_capture),
	RECORD_HEAD = 8,
	RECORD_ALIGNED = 7,
};
static const uint32_t record_busy = 1u << 31, record_discarded = 1u << 30;

struct accord_captures {
	struct accord_capture *map;
	uint64_t *consumer;
	const uint8_t *produced; /* the producer's page */
	size_t page;
	int ring_fd;
	struct accord_capture_program *program; /* NULL: the broker's */
};

static int map_all(struct accord_captures *captures, int map_fd, int ring_fd, struct accord_failure *failure)
{
	void *memory = mmap(NULL, MAP_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, map_fd, 0);

	if (memory == MAP_FAILED)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "mapping the BPF map capture");
	captures->map = memory;
	memory = mmap(NULL, captures->page, PROT_READ | PROT_WRITE, MAP_SHARED, ring_fd, 0);
	if (memory == MAP_FAILED)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "mapping the BPF ring captured");
	captures->consumer = memory;
	memory = mmap(NULL, captures->page + 2 * (size_t)ACCORD_CAPTURE_RING_BYTES, PROT_READ, MAP_SHARED, ring_fd,
	              (off_t)captures->page);
	if (memory == MAP_FAILED)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "mapping the BPF ring captured");
	captures->produced = memory;
	captures->map->layout = ACCORD_CAPTURES_LAYOUT;
	return 0;
}

static int ask_for(uint32_t kind, int *fd, struct accord_failure *failure)
{
	return accord_ask((struct accord_request){.kind = kind}, NULL, 0, -1, NULL, 0, fd, failure);
}

static int open_remotely(struct accord_captures *captures, struct accord_failure *failure)
{
	int map_fd, result = ask_for(ACCORD_ASK_CAPTURE, &map_fd, failure);

	if (result < 0)
		return result;
	result = ask_for(ACCORD_ASK_CAPTURE_RING, &captures->ring_fd, failure);
	if (result < 0)
		captures->ring_fd = -1;
	else
		result = map_all(captures, map_fd, captures->ring_fd, failure);
	close(map_fd);
	return result;
}

static int open_here(struct accord_captures *captures, const char *object_path, int interface,
                     struct accord_failure *failure)
{
	int result = accord_capture_program_open(object_path, interface, &captures->program, failure);

	if (result)
		return result;
	captures->ring_fd = dup(accord_capture_program_ring_fd(captures->program));
	return map_all(captures, accord_capture_program_map_fd(captures->program), captures->ring_fd, failure);
}

int accord_captures_open(const char *object_path, int32_t interface, struct accord_captures **opened,
                         struct accord_failure *failure)
{
	struct accord_captures *captures = calloc(1, sizeof(*captures));
	int result;

	*opened = NULL;
	if (!captures)
		return accord_fail(failure, ACCORD_REASON_NO_MEMORY, ENOMEM, "opening %s", object_path);
	captures->page = (size_t)sysconf(_SC_PAGESIZE);
	captures->ring_fd = -1;
	result = accord_privilege_asks() ? open_remotely(captures, failure)
	                                 : open_here(captures, object_path, interface, failure);
	if (result) {
		accord_captures_close(captures);
		return result;
	}
	accord_captures_heartbeat(captures);
	*opened = captures;
	return 0;
}

void accord_captures_close(struct accord_captures *captures)
{
	if (!captures)
		return;
	if (captures->map) {
		accord_captures_quiet(captures);
		munmap(captures->map, MAP_BYTES);
	}
	if (captures->consumer)
		munmap(captures->consumer, captures->page);
	if (captures->produced)
		munmap((void *)captures->produced, captures->page + 2 * (size_t)ACCORD_CAPTURE_RING_BYTES);
	if (captures->ring_fd >= 0)
		close(captures->ring_fd);
	accord_capture_program_close(captures->program);
	free(captures);
}

int accord_captures_mark(struct accord_captures *captures, int32_t cgroup, uint64_t *id, struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_CAPTURE_MARK};

	if (captures->program)
		return accord_capture_program_mark(captures->program, cgroup, id, failure);
	return accord_ask(request, NULL, 0, cgroup, id, sizeof(*id), NULL, failure);
}

int accord_captures_unmark(struct accord_captures *captures, uint64_t id, struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_CAPTURE_UNMARK};

	if (captures->program)
		return accord_capture_program_unmark(captures->program, id, failure);
	return accord_ask(request, &id, sizeof(id), -1, NULL, 0, NULL, failure);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_BOOTTIME, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void accord_captures_heartbeat(struct accord_captures *captures)
{
	__atomic_store_n(&captures->map->heartbeat_ns, now_ns(), __ATOMIC_RELAXED);
}

void accord_captures_quiet(struct accord_captures *captures)
{
	__atomic_store_n(&captures->map->heartbeat_ns, 0, __ATOMIC_RELAXED);
}

void accord_captures_say(struct accord_captures *captures, uint32_t family, const uint8_t *address, uint16_t port,
                         uint32_t word, uint32_t milliseconds)
{
	const uint64_t until = now_ns() + (uint64_t)milliseconds * 1000000u;
	const uint16_t wire_port = (uint16_t)(port << 8 | port >> 8);
	struct accord_capture_slot *slot;
	uint32_t words[4] = {0};

	memcpy(words, address, family == 4 ? 4 : 16);
	slot = &captures->map->slots[accord_capture_index(words, wire_port)];
	__atomic_store_n(&slot->state, 0, __ATOMIC_RELEASE);
	__atomic_thread_fence(__ATOMIC_SEQ_CST); /* what follows is not seen before */
	memcpy(slot->address, words, sizeof(slot->address));
	slot->port = wire_port;
	slot->family = (uint16_t)family;
	if (word)
		__atomic_store_n(&slot->state, (until & ~(uint64_t)ACCORD_CAPTURE_WORDS) | (word & ACCORD_CAPTURE_WORDS),
		                 __ATOMIC_RELEASE);
}

void accord_captures_fates(const struct accord_captures *captures, uint64_t *fates)
{
	for (uint32_t i = 0; i < ACCORD_CAPTURE_FATES; i++)
		fates[i] = __atomic_load_n(&captures->map->fates[i], __ATOMIC_RELAXED);
}

int accord_captures_fd(const struct accord_captures *captures)
{
	return captures->ring_fd;
}

int accord_captures_take(struct accord_captures *captures, struct accord_captured *taken)
{
	uint64_t at = *captures->consumer;

	while (at < __atomic_load_n((const uint64_t *)(const void *)captures->produced, __ATOMIC_ACQUIRE)) {
		const uint8_t *record = captures->produced + captures->page + (at & (ACCORD_CAPTURE_RING_BYTES - 1));
		uint32_t head = __atomic_load_n((const uint32_t *)(const void *)record, __ATOMIC_ACQUIRE);
		uint32_t length = head & ~(record_busy | record_discarded);

		if (head & record_busy)
			return 0;
		if (!(head & record_discarded) && length == sizeof(*taken))
			memcpy(taken, record + RECORD_HEAD, sizeof(*taken));
		at += (length + RECORD_HEAD + RECORD_ALIGNED) & ~(uint64_t)RECORD_ALIGNED;
		__atomic_store_n(captures->consumer, at, __ATOMIC_RELEASE);
		if (!(head & record_discarded) && length == sizeof(*taken))
			return 1;
	}
	return 0;
}

int accord_captures_send(struct accord_captures *captures, const struct accord_capture_frame *frame, uint32_t inward,
                         struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_CAPTURE_SEND, .mode = inward};

	if (captures->program)
		return accord_capture_program_send(captures->program, frame, inward, failure);
	return accord_ask(request, frame, sizeof(*frame), -1, NULL, 0, NULL, failure);
}

int accord_captures_test_run(struct accord_captures *captures, const uint8_t *frame, uint32_t bytes, uint32_t mark,
                             uint32_t repeat, int32_t *verdict, uint32_t *nanoseconds)
{
	struct __sk_buff context = {.mark = mark};
	LIBBPF_OPTS(bpf_test_run_opts, run, .data_in = frame, .data_size_in = bytes, .ctx_in = &context,
	            .ctx_size_in = sizeof(context), .repeat = (int)repeat);

	if (!captures->program || bpf_prog_test_run_opts(accord_capture_program_fd(captures->program), &run))
		return -ACCORD_REASON_NO_KERNEL_SUPPORT;
	*verdict = (int32_t)run.retval;
	*nanoseconds = run.duration;
	return 0;
}
