/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A port has at most two ways: frames, through the back end that the ladder reached, and the registered UDP
 * sockets, which are served on every rung, since XDP passes what is in doubt and a first packet has no link
 * header to leave by. An answer takes the way that its packet came.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/membarrier.h>

#include "cookie.h"
#include "heard.h"
#include "io_udp.h"
#include "ladder.h"
#include "loader.h"
#include "locals.h"
#include "steering.h"

enum {
	/* Of ACCORD_IO_BATCH packets, per poll: more than the initial windows of a burst of negotiations. */
	OUTPUT_BATCHES = 8,
	/* Of 16 slots for unproven peers, so many taken are as good as all: a ring holds more proposals than one. */
	CROWDED = 12,
	SOCKETS_EVERY = 4, /* polls, while full batches of frames come in: asking for datagrams is a system call */
	FOLLOW_US = 10000, /* between looks at what the program counts: each is a cache line of another CPU's */
};

struct accord_port {
	struct accord_foothold foothold;
	struct accord_udp *udp;
	struct accord_locals locals; /* on ACCORD_RUNG_PACKET */
	int asking;                  /* a socket to ask for the interface's and the host's addresses */
	uint32_t any_port;
	uint32_t suppress, crowded; /* wanted; no room for more peers */
	uint32_t busy_polls;        /* since the sockets were asked */
	struct accord_cookie_ring cookies;
	uint64_t challenged; /* by the program, as far as the engine was told */
	uint64_t followed;   /* when it was */
	struct accord_steering steering;
	uint64_t counters[ACCORD_REASON_LIMIT]; /* what the XDP program does not count */
	uint8_t datagram[ACCORD_MAX_PACKET];    /* that several packets share, being put together */
	/* During a poll. */
	struct accord_engine *engine;
	uint64_t now;
};

static void count(struct accord_port *port, enum accord_reason reason)
{
	port->counters[reason]++;
}

/* ---- receipt ---- */

static int is_link_local(const struct accord_path *path)
{
	return path->family == 6 && path->remote[0] == 0xfe && (path->remote[1] & 0xc0) == 0x80;
}

/* On ACCORD_RUNG_PACKET there is no program that did the steering; the rules are the same. */
static enum accord_reason steer_copy(const struct accord_port *port, const struct accord_path *path)
{
	if (path->context == ACCORD_PROTOCOL_UDP && !port->any_port &&
	    !accord_steering_wants(&port->steering, accord_udp_sockets(port->udp), path->local_port))
		return ACCORD_REASON_NOT_OURS_PORT;
	return accord_locals_contain(&port->locals, path) ? ACCORD_REASON_STEERED : ACCORD_REASON_NOT_LOCAL;
}

/* Frames that are longer than a ring's go by the kernel both ways. */
static uint16_t path_mtu(const struct accord_port *port)
{
	uint32_t mtu = port->foothold.netdev.mtu;

	return mtu < UINT16_MAX ? (uint16_t)mtu : UINT16_MAX;
}

/* The table is a cache miss away, and only the first packet's answer is kept. packet: a whole header. */
static uint8_t syn_of(const struct accord_port *port, const uint8_t *packet)
{
	const struct accord_header *header = (const struct accord_header *)packet;

	if (!port->foothold.program || header->step != ACCORD_STEP_PROPOSAL)
		return ACCORD_SYN_UNKNOWN;
	return accord_heard_syn(accord_program_heard(port->foothold.program), header->transaction);
}

static void frame_packet(void *context, struct accord_path *path, int interface, const uint8_t *packet, uint32_t length)
{
	struct accord_port *port = context;
	enum accord_reason reason;

	(void)interface;
	if (!accord_io_is_ours(packet, length)) {
		count(port, ACCORD_REASON_NOT_OURS_MAGIC);
		return;
	}
	if (port->foothold.rung == ACCORD_RUNG_PACKET) {
		reason = steer_copy(port, path);
		count(port, reason);
		if (reason != ACCORD_REASON_STEERED)
			return;
	}
	if (is_link_local(path))
		path->scope = (uint32_t)port->foothold.netdev.index;
	path->mtu = path_mtu(port);
	if (path->context == ACCORD_PROTOCOL_UDP)
		path->socket = accord_sockets_find(accord_udp_sockets(port->udp), path);
	path->syn = syn_of(port, packet);
	accord_engine_input(port->engine, port->now, path, packet, length);
}

static void socket_packet(void *context, struct accord_path *path, int interface, const uint8_t *packet,
                          uint32_t length)
{
	struct accord_port *port = context;

	/* The kernel's own copy of a frame that AF_PACKET gave us already. */
	if (port->foothold.rung == ACCORD_RUNG_PACKET && interface == port->foothold.netdev.index &&
	    steer_copy(port, path) == ACCORD_REASON_STEERED)
		return;
	if (port->foothold.rung == ACCORD_RUNG_UDP)
		count(port, ACCORD_REASON_STEERED);
	if (interface && interface == port->foothold.netdev.index)
		path->mtu = path_mtu(port);
	path->syn = length >= sizeof(struct accord_header) ? syn_of(port, packet) : ACCORD_SYN_UNKNOWN;
	accord_engine_input(port->engine, port->now, path, packet, length);
}

static void frame_drop(void *context, enum accord_reason reason)
{
	count(context, reason);
}

/* Where there is a program, it has counted the datagrams of others already. */
static void socket_drop(void *context, enum accord_reason reason)
{
	struct accord_port *port = context;

	if (port->foothold.rung == ACCORD_RUNG_UDP)
		count(port, reason);
}

static uint32_t receive(struct accord_port *port)
{
	const struct accord_sink frame_sink = {frame_packet, frame_drop, port};
	const struct accord_sink socket_sink = {socket_packet, socket_drop, port};
	struct accord_io *frames = port->foothold.frames, *sockets = accord_udp_io(port->udp);
	uint32_t moved = 0;

	if (frames)
		moved += frames->operations->receive(frames, &frame_sink, ACCORD_IO_BATCH);
	if (moved >= ACCORD_IO_BATCH && ++port->busy_polls < SOCKETS_EVERY)
		return moved;
	port->busy_polls = 0;
	return moved + sockets->operations->receive(sockets, &socket_sink, ACCORD_IO_BATCH);
}

/* ---- sending ---- */

static void send_datagram(struct accord_port *port, const struct accord_path *path, const uint8_t *data,
                          uint32_t length)
{
	struct accord_io *frames = port->foothold.frames, *sockets = accord_udp_io(port->udp);
	int result;

	if (frames && path->link_length && !frames->operations->send(frames, path, data, length))
		return;
	result = sockets->operations->send(sockets, path, data, length);
	if (result < 0)
		count(port, (enum accord_reason) - result);
}

/* Returns how many packets went into the datagram. */
static uint32_t send_packets(struct accord_port *port, const struct accord_packet_out *out)
{
	uint32_t packets = 1, length = out->length;

	if (!out->joined) {
		send_datagram(port, out->path, out->data, out->length);
		return 1;
	}
	memcpy(port->datagram, out->data, out->length);
	for (; out[packets - 1].joined; packets++) {
		memcpy(port->datagram + length, out[packets].data, out[packets].length);
		length += out[packets].length;
	}
	send_datagram(port, out->path, port->datagram, length);
	return packets;
}

static uint32_t send_all(struct accord_port *port)
{
	struct accord_io *frames = port->foothold.frames, *sockets = accord_udp_io(port->udp);
	struct accord_packet_out out[ACCORD_IO_BATCH];
	uint32_t moved = 0;

	for (int batch = 0; batch < OUTPUT_BATCHES; batch++) {
		uint32_t packets = accord_engine_output(port->engine, port->now, out, ACCORD_IO_BATCH);

		for (uint32_t i = 0; i < packets;)
			i += send_packets(port, &out[i]);
		moved += packets;
		if (!packets)
			break;
	}
	/* Also when there was nothing new: a full ring may have kept some back. */
	if (frames)
		frames->operations->flush(frames);
	sockets->operations->flush(sockets);
	return moved;
}

/* A store only when it changes something: the program reads the same cache line for each packet of ours. */
static void allow_suppression(struct accord_port *port)
{
	struct accord_settings *settings;
	uint32_t flags;

	if (!port->foothold.program)
		return;
	settings = accord_program_settings(port->foothold.program);
	flags = settings->flags & ~(uint32_t)ACCORD_SETTINGS_SUPPRESS;
	if (port->suppress && !port->crowded)
		flags |= ACCORD_SETTINGS_SUPPRESS;
	if (flags != settings->flags)
		__atomic_store_n(&settings->flags, flags, __ATOMIC_RELAXED);
}

/* A proposal that is refused for want of room would cost its peer a repetition of the SYN. */
static void look_for_room(struct accord_port *port, const struct accord_engine *engine)
{
	struct accord_engine_usage usage;

	accord_engine_usage(engine, &usage);
	port->crowded = usage.unproven * 16 >= usage.unproven_limit * CROWDED ||
	                usage.transactions * 16 >= usage.transactions_limit * CROWDED;
	allow_suppression(port);
}

static uint64_t challenged(const struct accord_settings *settings)
{
	uint64_t sum = 0;

	for (uint32_t queue = 0; queue < ACCORD_MAX_QUEUES; queue++)
		sum += __atomic_load_n(&settings->challenges[queue].answered, __ATOMIC_RELAXED);
	return sum;
}

void accord_port_follow(struct accord_port *port, struct accord_engine *engine, uint64_t now)
{
	struct accord_settings *settings;
	struct accord_engine_load load;
	uint32_t flags;

	if (!port->foothold.program)
		return;
	settings = accord_program_settings(port->foothold.program);
	if (now - port->followed >= FOLLOW_US) {
		uint64_t sum = challenged(settings);

		/* A program of a later foothold begins at zero. */
		accord_engine_challenged(engine, now, sum > port->challenged ? sum - port->challenged : 0);
		port->challenged = sum;
		port->followed = now;
	}
	accord_engine_load(engine, now, &load);
	flags = settings->flags & ~(uint32_t)ACCORD_SETTINGS_CHALLENGE;
	if (load.level == ACCORD_LEVEL_COOKIE && cookie_ring_usable(&port->cookies))
		flags |= ACCORD_SETTINGS_CHALLENGE;
	if (flags != settings->flags)
		__atomic_store_n(&settings->flags, flags, __ATOMIC_RELAXED);
}

static void write_cookies(struct accord_port *port)
{
	if (port->foothold.program)
		accord_program_settings(port->foothold.program)->cookies = port->cookies;
}

void accord_port_cookies(struct accord_port *port, const struct accord_cookie_ring *ring)
{
	port->cookies = *ring;
	write_cookies(port);
}

int accord_port_poll(struct accord_port *port, struct accord_engine *engine, uint64_t now)
{
	uint32_t moved;

	port->engine = engine;
	port->now = now;
	accord_udp_recycle(port->udp);
	moved = receive(port);
	moved += send_all(port);
	port->engine = NULL;
	look_for_room(port, engine);
	accord_port_follow(port, engine, now);
	return (int)moved;
}

/* ---- the rest ---- */

/* With a full map the port is not steered, and its packets come by the socket: counted, not refused. */
static void steer(struct accord_port *port, uint16_t number)
{
	if (accord_steering_apply(&port->steering, accord_udp_sockets(port->udp), port->foothold.program, number))
		count(port, ACCORD_REASON_NO_MEMORY);
}

int accord_port_open(const struct accord_port_config *config, struct accord_port_report *report,
                     struct accord_port **opened)
{
	struct accord_port *port = calloc(1, sizeof(*port));
	int result;

	*opened = NULL;
	memset(report, 0, sizeof(*report));
	if (!port)
		return -ACCORD_REASON_NO_MEMORY;
	/* Without it they stay as they were. */
	port->asking = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	port->any_port = config->any_port;
	port->suppress = 1;
	port->udp = accord_udp_new();
	result = port->udp ? accord_ladder_climb(config, report, &port->foothold) : -ACCORD_REASON_NO_MEMORY;
	if (result) {
		accord_port_close(port);
		return result;
	}
	if (port->foothold.rung == ACCORD_RUNG_PACKET)
		accord_locals_refresh(&port->locals, port->asking);
	if (port->foothold.frames)
		accord_udp_open_direct(port->udp, port->foothold.rung == ACCORD_RUNG_PACKET);
	allow_suppression(port);
	*opened = port;
	return 0;
}

int accord_port_reopen(struct accord_port *port, const struct accord_port_config *config,
                       struct accord_port_report *report)
{
	int result;

	accord_ladder_leave(&port->foothold);
	port->any_port = config->any_port;
	result = accord_ladder_climb(config, report, &port->foothold);
	if (result) {
		memset(&port->foothold, 0, sizeof(port->foothold));
		port->foothold.rung = ACCORD_RUNG_UDP;
		report->rung = ACCORD_RUNG_UDP;
	}
	if (port->foothold.rung == ACCORD_RUNG_PACKET)
		accord_locals_refresh(&port->locals, port->asking);
	port->counters[ACCORD_REASON_NO_MEMORY] +=
		accord_steering_apply_all(&port->steering, accord_udp_sockets(port->udp), port->foothold.program);
	port->challenged = 0;
	write_cookies(port);
	allow_suppression(port);
	return result;
}

void accord_port_close(struct accord_port *port)
{
	if (!port)
		return;
	accord_ladder_leave(&port->foothold);
	if (port->udp)
		accord_udp_io(port->udp)->operations->close(accord_udp_io(port->udp));
	accord_locals_free(&port->locals);
	if (port->asking >= 0)
		close(port->asking);
	free(port);
}

uint32_t accord_port_fds(const struct accord_port *port, int32_t *fds, uint32_t limit)
{
	const struct accord_io *frames = port->foothold.frames;

	uint32_t count = frames ? frames->operations->fds(frames, fds, limit) : 0;

	return count + accord_udp_direct_fds(port->udp, fds + count, limit - count);
}

uint32_t accord_port_rings(struct accord_port *port, struct accord_ring_statistics *rings, uint32_t limit)
{
	struct accord_io *frames = port->foothold.frames;

	return frames ? frames->operations->rings(frames, rings, limit) : 0;
}

int accord_port_add_socket(struct accord_port *port, int32_t fd)
{
	int index = accord_sockets_add(accord_udp_sockets(port->udp), fd);

	if (index >= 0)
		steer(port, (uint16_t)accord_sockets_port(accord_udp_sockets(port->udp), index));
	return index;
}

int accord_port_remove_socket(struct accord_port *port, int32_t index)
{
	int number = accord_sockets_remove(accord_udp_sockets(port->udp), index);

	if (number < 0)
		return number;
	if (!accord_sockets_use(accord_udp_sockets(port->udp), (uint16_t)number))
		steer(port, (uint16_t)number);
	return 0;
}

void accord_port_expose(struct accord_port *port, uint16_t number, uint32_t exposed)
{
	accord_steering_expose(&port->steering, number, exposed);
	if (accord_steering_wants(&port->steering, accord_udp_sockets(port->udp), number))
		steer(port, number);
}

void accord_port_share(struct accord_port *port, uint16_t number, uint32_t shared)
{
	accord_steering_share(&port->steering, number, shared);
	steer(port, number);
}

void accord_port_suppress(struct accord_port *port, uint32_t wanted)
{
	port->suppress = wanted;
	allow_suppression(port);
}

int accord_port_replace_socket(struct accord_port *port, int32_t index, int32_t fd)
{
	return accord_sockets_replace(accord_udp_sockets(port->udp), index, fd);
}

uint32_t accord_port_datagrams(struct accord_port *port, struct accord_datagram *datagrams, uint32_t limit)
{
	return accord_udp_datagrams(port->udp, datagrams, limit);
}

int accord_port_error(struct accord_port *port, struct accord_path *path)
{
	return accord_udp_error(port->udp, path);
}

int accord_port_heard_fd(const struct accord_port *port)
{
	return port->foothold.program ? accord_program_heard_fd(port->foothold.program) : -1;
}

int accord_port_attached(const struct accord_port *port)
{
	return !port->foothold.program || accord_program_attached(port->foothold.program);
}

void accord_port_heartbeat(struct accord_port *port)
{
	struct accord_foothold *foothold = &port->foothold;
	struct accord_settings *settings;

	if (foothold->rung == ACCORD_RUNG_PACKET)
		accord_locals_refresh(&port->locals, port->asking);
	if (!foothold->program)
		return;
	accord_netdev_refresh(&foothold->netdev, port->asking);
	settings = accord_program_settings(foothold->program);
	if (memcmp(settings->address, foothold->netdev.address, sizeof(settings->address)))
		memcpy(settings->address, foothold->netdev.address, sizeof(settings->address));
	accord_program_heartbeat(foothold->program);
}

/* Delivery is an RCU reader (netif_receive_skb), and the kernel's membarrier(2) of this kind is synchronize_rcu. Where
 * it is refused (nohz_full), a processor would have to stop between two instructions for as long as all that follows.
 */
void accord_port_settle(void)
{
	syscall(__NR_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0);
}

void accord_port_quiet(struct accord_port *port)
{
	if (port->foothold.program)
		accord_program_quiet(port->foothold.program);
}

int accord_port_counters(struct accord_port *port, uint64_t *counters)
{
	int result = 0;

	if (port->foothold.program)
		result = accord_program_counters(port->foothold.program, counters);
	else
		memset(counters, 0, ACCORD_REASON_LIMIT * sizeof(*counters));
	for (uint32_t reason = 0; !result && reason < ACCORD_REASON_LIMIT; reason++)
		counters[reason] += port->counters[reason];
	return result;
}
