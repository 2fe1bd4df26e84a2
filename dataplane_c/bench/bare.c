// SPDX-License-Identifier: Apache-2.0
#include "bare.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <linux/if_packet.h>
#include <xdp/libxdp.h>
#include <xdp/xsk.h>

#include "io.h"
#include "io_xdp.h"
#include "load.h"
#include "loader.h"

enum {
	FRAMES = 4096, /* as accord_io_xdp_open has it by default, half of them for receipt */
	FRAME_BYTES = 2048,
	CACHE_LINE = 64,
	RETRIES = 50,
	PAUSE_MS = 10,
	RECEIVE_BUFFER = 4 << 20, /* as io_packet.c */
};

struct bare {
	enum bare_kind kind;
	/* AF_XDP */
	struct accord_program *program;
	struct bpf_object *object;
	int link;
	struct xsk_umem *umem;
	struct xsk_socket *socket;
	struct xsk_ring_prod fill, tx;
	struct xsk_ring_cons completion, rx;
	void *area;
	/* sockets */
	int fd;
	struct mmsghdr messages[ACCORD_IO_BATCH];
	struct iovec vectors[ACCORD_IO_BATCH];
	uint8_t buffers[ACCORD_IO_BATCH][FRAME_BYTES];
};

__attribute__((noreturn)) static void give_up(const char *what, int error)
{
	fprintf(stderr, "bare loop: %s: %s\n", what, strerror(error));
	exit(1);
}

static void pause_a_moment(void)
{
	const struct timespec pause = {.tv_nsec = PAUSE_MS * 1000000L};

	nanosleep(&pause, NULL);
}

/* ---- AF_XDP ---- */

static void attach_ours(struct bare *bare, const struct accord_netdev *netdev, const char *path, uint32_t flags)
{
	struct accord_failure failure = {0};
	struct accord_settings *settings;

	if (accord_program_open(path, &bare->program, &failure) ||
	    accord_program_attach(bare->program, netdev->index, flags, &failure)) {
		fprintf(stderr, "bare loop: %s\n", failure.detail);
		exit(1);
	}
	settings = accord_program_settings(bare->program);
	memcpy(settings->address, netdev->address, sizeof(settings->address));
	settings->frame_limit = accord_io_xdp_frame_limit(netdev);
	accord_program_steer(bare->program, load_path().local_port, 1);
	accord_program_heartbeat(bare->program);
}

static void attach_redirect(struct bare *bare, const struct accord_netdev *netdev, const char *path, uint32_t flags)
{
	LIBBPF_OPTS(bpf_link_create_opts, options, .flags = flags);
	int program;

	bare->object = bpf_object__open_file(path, NULL);
	if (libbpf_get_error(bare->object) || bpf_object__load(bare->object))
		give_up(path, errno);
	program = bpf_program__fd(bpf_object__next_program(bare->object, NULL));
	for (int tries = 0; tries < RETRIES && bare->link < 0; tries++) {
		bare->link = bpf_link_create(program, netdev->index, BPF_XDP, &options);
		if (bare->link < 0)
			pause_a_moment(); /* what was there before is still being torn down */
	}
	if (bare->link < 0)
		give_up("attaching", -bare->link);
}

static void join(struct bare *bare)
{
	uint32_t queue = 0;
	int fd = xsk_socket__fd(bare->socket), result;

	if (bare->program)
		result = accord_program_join(bare->program, queue, fd);
	else
		result = bpf_map_update_elem(bpf_object__find_map_fd_by_name(bare->object, "xsks"), &queue, &fd, BPF_ANY);
	if (result)
		give_up("map xsks", errno);
}

static void open_ring(struct bare *bare, const struct accord_netdev *netdev)
{
	const struct xsk_umem_config umem_config = {
		.fill_size = FRAMES / 2, .comp_size = FRAMES / 2, .frame_size = FRAME_BYTES};
	const struct xsk_socket_config config = {.rx_size = FRAMES / 2,
	                                         .tx_size = FRAMES / 2,
	                                         .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
	                                         .bind_flags = XDP_USE_NEED_WAKEUP};
	const size_t bytes = (size_t)FRAMES * FRAME_BYTES;
	uint32_t index = 0;
	int result = -EBUSY;

	bare->area = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (bare->area == MAP_FAILED)
		give_up("memory", errno);
	if ((result = xsk_umem__create(&bare->umem, bare->area, bytes, &bare->fill, &bare->completion, &umem_config)))
		give_up("UMEM", -result);
	for (int tries = 0; tries < RETRIES; tries++) {
		result = xsk_socket__create(&bare->socket, netdev->name, 0, bare->umem, &bare->rx, &bare->tx, &config);
		if (result != -EBUSY)
			break;
		pause_a_moment();
	}
	if (result)
		give_up("binding AF_XDP", -result);
	xsk_ring_prod__reserve(&bare->fill, FRAMES / 2, &index);
	for (uint32_t i = 0; i < FRAMES / 2; i++)
		*xsk_ring_prod__fill_addr(&bare->fill, index + i) = (uint64_t)i * FRAME_BYTES;
	xsk_ring_prod__submit(&bare->fill, FRAMES / 2);
}

/* What no compiler may leave out. */
static volatile uint8_t sink;

static void read_lines(const struct bare *bare, const struct xdp_desc *descriptor)
{
	const uint8_t *bytes = xsk_umem__get_data(bare->area, descriptor->addr);
	uint8_t sum = 0;

	for (uint32_t at = 0; at < descriptor->len; at += CACHE_LINE)
		sum = (uint8_t)(sum + bytes[at]);
	sink = sum;
}

static uint32_t receive_ring(struct bare *bare)
{
	uint32_t rx, fill, count = xsk_ring_cons__peek(&bare->rx, ACCORD_IO_BATCH, &rx);

	if (count && xsk_ring_prod__reserve(&bare->fill, count, &fill) == count) {
		for (uint32_t i = 0; i < count; i++) {
			const struct xdp_desc *descriptor = xsk_ring_cons__rx_desc(&bare->rx, rx + i);

			if (bare->kind == BARE_XDP_READ)
				read_lines(bare, descriptor);
			*xsk_ring_prod__fill_addr(&bare->fill, fill + i) = descriptor->addr;
		}
		xsk_ring_cons__release(&bare->rx, count);
		xsk_ring_prod__submit(&bare->fill, count);
	}
	if (xsk_ring_prod__needs_wakeup(&bare->fill))
		recvfrom(xsk_socket__fd(bare->socket), NULL, 0, MSG_DONTWAIT, NULL, NULL);
	return count;
}

/* ---- sockets ---- */

static void open_packet(struct bare *bare, const struct accord_netdev *netdev)
{
	const struct sockaddr_ll address = {
		.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL), .sll_ifindex = netdev->index};
	const int buffer = RECEIVE_BUFFER;

	bare->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	setsockopt(bare->fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer));
	if (bind(bare->fd, (const struct sockaddr *)&address, sizeof(address)))
		give_up("binding AF_PACKET", errno);
}

/* On its own interface: others may have the same port on theirs. */
static void open_udp(struct bare *bare, const struct accord_netdev *netdev)
{
	const struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(load_path().local_port)};

	bare->fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (setsockopt(bare->fd, SOL_SOCKET, SO_BINDTODEVICE, netdev->name, (socklen_t)strlen(netdev->name)) ||
	    bind(bare->fd, (const struct sockaddr *)&address, sizeof(address)))
		give_up("binding UDP", errno);
}

static void prepare_batch(struct bare *bare)
{
	for (uint32_t i = 0; i < ACCORD_IO_BATCH; i++) {
		bare->vectors[i] = (struct iovec){bare->buffers[i], FRAME_BYTES};
		bare->messages[i].msg_hdr.msg_iov = &bare->vectors[i];
		bare->messages[i].msg_hdr.msg_iovlen = 1;
	}
}

/* ---- any ---- */

struct bare *bare_open(enum bare_kind kind, const struct accord_netdev *netdev, const char *object_path, uint32_t flags)
{
	struct bare *bare = calloc(1, sizeof(*bare));

	if (!bare)
		give_up("memory", ENOMEM);
	bare->kind = kind;
	bare->link = bare->fd = -1;
	switch (kind) {
	case BARE_XDP:
	case BARE_XDP_READ:
		attach_ours(bare, netdev, object_path, flags);
		break;
	case BARE_XDP_REDIRECT:
		attach_redirect(bare, netdev, object_path, flags);
		break;
	case BARE_PACKET:
		open_packet(bare, netdev);
		break;
	case BARE_UDP:
		open_udp(bare, netdev);
		break;
	}
	if (bare->fd >= 0) {
		prepare_batch(bare);
	} else {
		open_ring(bare, netdev);
		join(bare);
	}
	return bare;
}

uint32_t bare_receive(struct bare *bare)
{
	int count;

	if (bare->socket)
		return receive_ring(bare);
	count = recvmmsg(bare->fd, bare->messages, ACCORD_IO_BATCH, MSG_DONTWAIT, NULL);
	return count > 0 ? (uint32_t)count : 0;
}

void bare_heartbeat(struct bare *bare)
{
	if (bare->program)
		accord_program_heartbeat(bare->program);
}

void bare_close(struct bare *bare)
{
	if (bare->socket)
		xsk_socket__delete(bare->socket);
	if (bare->umem)
		xsk_umem__delete(bare->umem);
	if (bare->area)
		munmap(bare->area, (size_t)FRAMES * FRAME_BYTES);
	if (bare->link >= 0)
		close(bare->link);
	accord_program_close(bare->program);
	bpf_object__close(bare->object);
	if (bare->fd >= 0)
		close(bare->fd);
	free(bare);
}
