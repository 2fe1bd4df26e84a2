/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C core as Python sees it: this header, after the preprocessor, is the cffi definition.
 *
 * Three nouns. An *engine* turns packets into node descriptors and back; it is sans-IO, time is an
 * argument (microseconds of any monotonic clock), all of its memory is taken when it is made. A *port*
 * is an interface with the best back end that it could get, plus the UDP sockets that were registered
 * with it; it moves packets between the wire and an engine. *frame* functions are what a port uses to
 * put Ethernet, IP and UDP around a packet. Functions that can fail return 0 or a negative
 * enum accord_reason; where the kernel said no, the port report says which call and errno.
 */
#ifndef ACCORD_CORE_H
#define ACCORD_CORE_H

#ifndef ACCORD_CDEF
#include <stddef.h>
#include <stdint.h>
#endif

#include "accord/births.h"
#include "accord/captures.h"
#include "accord/maps.h"
#include "accord/syns.h"
#include "accord/wire.h"

/* ---- Paths ------------------------------------------------------------------------------------ */

enum accord_path_constant {
	ACCORD_PATH_NO_SOCKET = -1,
	ACCORD_MAX_LINK_HEADER = 22, /* Ethernet and two VLAN tags */
};

/* Whether the plain connection's SYN came before the proposal: known where an XDP program reads SYNs. */
enum accord_syn_order {
	ACCORD_SYN_UNKNOWN,
	ACCORD_SYN_NOT_FIRST,
	ACCORD_SYN_FIRST,
};

/* Where a transaction's packets come from and go to. Ports in host order, addresses in network order. */
struct accord_path {
	uint8_t family;  /* 4 or 6 */
	uint8_t context; /* ACCORD_PROTOCOL_UDP or ACCORD_PROTOCOL_DIRECT */
	uint16_t local_port;
	uint16_t remote_port;
	int16_t socket;      /* index of a socket registered with the port; ACCORD_PATH_NO_SOCKET */
	uint32_t scope;      /* IPv6 scope ID of a link-local remote, else 0 */
	uint16_t mtu;        /* of the link or route, bytes with the IP header; 0: not known, so no datagram of
	                      * ours is longer than ACCORD_MIN_MTU_PACKET */
	uint16_t queue;      /* receive queue that the last frame came in on */
	uint8_t link_length; /* of link[]: the Ethernet header to send with, learnt by turning a received
	                      * one round; 0: not learnt, the socket sends */
	uint8_t link[22];
	uint8_t syn;                   /* enum accord_syn_order, when its first packet came */
	uint8_t local[16], remote[16]; /* IPv4 in the first four bytes, the rest zero */
};

/* ---- Engine ------------------------------------------------------------------------------------ */

/* What decides how much is in flight. */
enum accord_congestion {
	ACCORD_CONGESTION_NEWRENO, /* RFC 9002 */
	ACCORD_CONGESTION_CUBIC,   /* RFC 9438 */
	ACCORD_CONGESTIONS,
};

struct accord_engine_config {
	uint32_t transactions;         /* concurrent negotiations, both roles; default 1024 */
	uint32_t unproven;             /* of which responder ones whose peer's address is unproven; default 256 */
	uint32_t buffers;              /* packet buffers, receive and transmit; default 4096 */
	uint32_t buffer_bytes;         /* each; >= ACCORD_MIN_MTU_PACKET; default 2048 */
	uint32_t events;               /* event queue; default 4096 */
	uint32_t seed;                 /* of the hash table */
	uint32_t congestion;           /* enum accord_congestion */
	uint32_t strangers_per_second; /* that level 1 hands up; default 0 */
	uint32_t slots;                /* of answers that nothing else is kept of; default 0 */
	/* Unfinished negotiations from one network at once, beyond which there is a cookie (unproven), or silence (proven
	 * by a cookie alone); defaults: a quarter of unproven, a sixteenth of transactions. */
	uint32_t unproven_per_network, proven_per_network;
	uint32_t machine; /* this one's number, by which its slots are told from others' behind the same address */
};

/* What a stranger's proposal gets: load.h. */
enum accord_level {
	ACCORD_LEVEL_STATE,
	ACCORD_LEVEL_ANSWER,
	ACCORD_LEVEL_COOKIE,
	ACCORD_LEVELS,
};

/* How an engine is loaded by strangers. */
struct accord_engine_load {
	uint32_t level;     /* enum accord_level: in force */
	uint64_t since;     /* from this time on */
	uint64_t strangers; /* that came in the last whole second, answered by the XDP program included */
	uint64_t raised[3]; /* how often each level came into force from below; by enum accord_level */
};

enum accord_event_kind {
	ACCORD_EVENT_OPENED = 1, /* a responder transaction came to be: path is set */
	ACCORD_EVENT_NODE,       /* a node descriptor is whole and well formed: node, protocol, data, order */
	ACCORD_EVENT_SKIPPED,    /* a node of an unsupported protocol begins: node, protocol; once per step and node */
	ACCORD_EVENT_MESSAGE,    /* every packet of this step's message is in; comes after all its nodes */
	ACCORD_EVENT_ARRIVED,    /* the peer acknowledged every packet of the message that we sent as this step */
	ACCORD_EVENT_FAILED,     /* the transaction is dead, for the reason given; close it */
	/* No transaction, handle 0: a proposal, a whole flight that is the data, from an address that nothing is known of;
	 * path is set. Nothing is kept of it. */
	ACCORD_EVENT_STRANGER,
	/* No transaction: a commit, a flight of one packet that is the data, of the slot that is the handle; or of an
	 * answer of which nothing is kept (0), and with a cookie that is good for it; path is set. */
	ACCORD_EVENT_RETURNED,
	ACCORD_EVENT_CHALLENGED, /* the responder wants a cookie repeated, and gets it: it speaks Accord, and is loaded */
};

struct accord_event {
	uint32_t handle;
	uint16_t kind;   /* enum accord_event_kind */
	uint16_t reason; /* enum accord_reason, of FAILED */
	uint8_t transaction[12];
	uint8_t step;
	uint8_t node;
	uint16_t order; /* TSN offset, from the direction's first, of the node's first chunk */
	uint32_t protocol;
	uint32_t length;
	const uint8_t *data;     /* the descriptor; valid until the next accord_engine_events */
	struct accord_path path; /* of OPENED and STRANGER: as learnt; of others not written */
};

/* One node of a message to be sent: data is its whole encoded descriptor. */
struct accord_node_out {
	uint8_t node;
	uint32_t protocol;
	uint32_t length;
	const uint8_t *data;
};

/* A packet to be put on the wire; valid until the next call that is given the engine. */
struct accord_packet_out {
	struct accord_path *path; /* the transaction's own: a port may learn into it */
	const uint8_t *data;
	uint32_t length;
	uint32_t joined; /* the next one of this call belongs into the same datagram, right behind it */
};

struct accord_transaction_info {
	uint32_t packets_sent, packets_received, retransmitted, duplicates;
	uint64_t bytes_sent, bytes_received; /* Accord packets, without UDP and IP headers */
	uint32_t srtt_us, rttvar_us, rto_us;
	uint32_t window, threshold, in_flight; /* packets */
	uint32_t datagram_bytes;               /* Accord's part of the longest datagram that may be sent now */
	uint8_t proven;
	struct accord_path path;
};

/* What accord_stage_reached (stage.h) is told, for `accord trace stages`. */
enum accord_stage {
	ACCORD_STAGE_OPENED = 1,   /* a transaction came to be, in either role */
	ACCORD_STAGE_SENT,         /* this side's message of the step was handed over, to be sent */
	ACCORD_STAGE_WHOLE,        /* the peer's message of the step is in */
	ACCORD_STAGE_ACKNOWLEDGED, /* the peer has all of the message that we sent as this step */
	ACCORD_STAGE_FAILED,
	ACCORD_STAGE_CLOSED, /* the user has let go of it */
};

/* What is taken of an engine's fixed memory, and what there is. */
struct accord_engine_usage {
	uint32_t transactions, transactions_limit;
	uint32_t unproven, unproven_limit; /* of the transactions: responder ones whose peer's address is unproven */
	uint32_t buffers, buffers_limit;   /* packet buffers */
	uint32_t events, events_limit;     /* waiting for accord_engine_events */
	uint32_t slots, slots_limit;
	uint64_t bytes; /* all memory, taken at start */
};

struct accord_engine;

/* NULL when memory is missing or the configuration makes no sense. Zero fields take their defaults. */
struct accord_engine *accord_engine_new(const struct accord_engine_config *config);
void accord_engine_free(struct accord_engine *engine);
/* Bytes that an engine of this configuration takes, all of it at start; 0: it makes no sense. */
uint64_t accord_engine_bytes(const struct accord_engine_config *config);

/* Protocols whose nodes are stored; all others are acknowledged, counted and dropped. */
int accord_engine_support(struct accord_engine *engine, const uint32_t *protocols, uint32_t count);

/* Start a transaction as initiator. Returns a handle (> 0) or a negative reason. */
int64_t accord_engine_open(struct accord_engine *engine, uint64_t now, const uint8_t *transaction,
                           const struct accord_path *path);
/* Send this side's message of a step. packets_min: pad to at least so many full packets (0: none). For a transaction
 * that has failed the result is the reason. */
int accord_engine_send(struct accord_engine *engine, uint64_t now, uint32_t handle, uint8_t step,
                       const struct accord_node_out *nodes, uint32_t count, uint32_t packets_min);
/* Before the proposal is sent: IP bytes that the answer is likely to take, as the peer's last one did. */
int accord_engine_expect(struct accord_engine *engine, uint32_t handle, uint32_t answer_bytes);
/* The peer proved that it receives at its address: the amplification limit is lifted. */
int accord_engine_prove(struct accord_engine *engine, uint32_t handle);
/* The path's round-trip time, microseconds, as another protocol has measured it: counts until there is a sample. */
int accord_engine_round_trip(struct accord_engine *engine, uint32_t handle, uint64_t rtt_us);
/* The path to the peer has opened, as something else that came from there shows: what is not acknowledged yet is worth
 * sending again now, before the probe timer says so. */
int accord_engine_probe(struct accord_engine *engine, uint64_t now, uint32_t handle);
/* What cookies are made and checked with; none without a current key, which is how an engine begins: then strangers
 * that find no place get silence. To be repeated whenever a key or the time slot changes. */
void accord_engine_cookies(struct accord_engine *engine, const struct accord_cookie_ring *ring);
/* Send one packet, whole and sealed, of which nothing is kept: what answers ACCORD_EVENT_STRANGER. */
int accord_engine_send_once(struct accord_engine *engine, const struct accord_path *path, const uint8_t *packet,
                            uint32_t length);
/* Ask for a cookie after all, of whom ACCORD_EVENT_STRANGER has handed up: its first packet. */
int accord_engine_challenge(struct accord_engine *engine, const struct accord_path *path, const uint8_t *packet,
                            uint32_t length);
/* So many strangers got their cookies elsewhere, from the XDP program. */
void accord_engine_challenged(struct accord_engine *engine, uint64_t now, uint64_t strangers);
/* From now on the level is never below this one. */
void accord_engine_level(struct accord_engine *engine, uint64_t now, uint32_t floor);
void accord_engine_load(struct accord_engine *engine, uint64_t now, struct accord_engine_load *load);
/* Bytes of descriptors that may be sent now without breaking the amplification limit (a floor). */
int64_t accord_engine_budget(const struct accord_engine *engine, uint32_t handle);
/* What the paths to peers carried lately is not known any more (docs/PROTOCOL.md, section 4.4). */
void accord_engine_forget_paths(struct accord_engine *engine);
/* Forget a transaction. linger: keep answering its retransmissions for so long, then forget. */
int accord_engine_close(struct accord_engine *engine, uint64_t now, uint32_t handle, uint64_t linger);
int accord_engine_info(const struct accord_engine *engine, uint32_t handle, struct accord_transaction_info *info);

/* One datagram in, from the Accord header on: one packet, or several that share it. Returns 0 or the negative
 * reason of the first packet that was not taken; the reason of each is also counted. */
int accord_engine_input(struct accord_engine *engine, uint64_t now, const struct accord_path *path,
                        const uint8_t *datagram, uint32_t length);
/* Events out, in order. Returns how many were written. */
uint32_t accord_engine_events(struct accord_engine *engine, struct accord_event *events, uint32_t limit);
/* Packets out: new, retransmitted, acknowledgements. Returns how many were written: fewer than the limit does not mean
 * that there are no more, 0 does. */
uint32_t accord_engine_output(struct accord_engine *engine, uint64_t now, struct accord_packet_out *packets,
                              uint32_t limit);
/* When accord_engine_output or _events next has something to do; UINT64_MAX: never. */
uint64_t accord_engine_deadline(const struct accord_engine *engine);
/* counters: ACCORD_REASON_LIMIT elements, by reason. */
void accord_engine_counters(const struct accord_engine *engine, uint64_t *counters);
uint32_t accord_engine_transactions(const struct accord_engine *engine);
void accord_engine_usage(const struct accord_engine *engine, struct accord_engine_usage *usage);

/* ---- Answers without memory: PROTOCOL.md, section 22 -------------------------------------------------- */

enum accord_slot_constant {
	ACCORD_SLOT_SEED = 32,
	ACCORD_SLOT_TRANSCRIPT = 32,
	ACCORD_SLOT_KEPT = 1136,
	/* A flight: packets of one message, each of at most ACCORD_MIN_MTU_PACKET bytes and behind its length (u16). */
	ACCORD_FLIGHT_PACKETS = 4,
	ACCORD_FLIGHT_BYTES = ACCORD_FLIGHT_PACKETS * (2 + ACCORD_MIN_MTU_PACKET),
};

/* What is kept of an answer until its commit. */
struct accord_slot {
	uint32_t handle;
	uint32_t length;
	const uint8_t *proposal; /* a flight; valid until the next call that is given the engine, as is kept */
	uint32_t kept_length;
	const uint8_t *kept;     /* what was random in the answer and cannot be had from the seed again */
	uint32_t answer_packets; /* how many there are of the answer, and bytes of all of them */
	uint32_t answer_length;
	uint8_t seed[32];
	uint8_t transcript[32];
	struct accord_path path;
};

/* One node of a flight. */
struct accord_node_in {
	uint8_t node;
	uint8_t stored; /* 0: of a protocol that is not supported, and unchecked */
	uint32_t protocol;
	uint32_t length;
	const uint8_t *data; /* the descriptor */
};

/* The nodes of a flight: at most ACCORD_MAX_NODES of them. Their descriptors are written into room, which is as long as
 * the flight. Returns how many, or a negative reason (BAD_CHUNK: one is not whole). Nothing of it is kept. */
int accord_engine_read(const struct accord_engine *engine, const uint8_t *flight, uint32_t length,
                       struct accord_node_in *nodes, uint8_t *room);
/* A responder's message as a flight, its packets sealed; sent: of its packets before; heard: of the initiator's, which
 * are all acknowledged. Returns the flight's length, or a negative reason. */
int accord_flight_compose(const uint8_t *transaction, uint8_t step, uint16_t sent, uint16_t heard,
                          const struct accord_node_out *nodes, uint32_t count, uint8_t *flight, uint32_t room);
/* Take a slot for the answer to a proposal: all of it but handle and path is given. Returns its handle (> 0) or a
 * negative reason: NO_MEMORY, none is free; CONTRADICTION, there is one, or a transaction, with this ID. */
int64_t accord_engine_keep(struct accord_engine *engine, uint64_t now, const struct accord_path *path,
                           const struct accord_slot *slot);
/* The slot of a transaction ID, and of the peer at the path's remote end (NULL: any); or by its handle, as
 * ACCORD_EVENT_RETURNED tells it. 0 or SLOT_GONE. */
int accord_engine_slot(struct accord_engine *engine, uint64_t now, const uint8_t *transaction,
                       const struct accord_path *path, struct accord_slot *slot);
int accord_engine_slot_of(struct accord_engine *engine, uint64_t now, uint32_t handle, struct accord_slot *slot);
/* All slots as bytes, accord_slot_bytes() each, at most so many, those that expire first before the others, for another
 * engine of this build on this machine: they hold secrets. Both return how many. Restored are those for which there is
 * room and time. A slot serves one commit: who has handed them over clears its own. */
uint32_t accord_slot_bytes(void);
uint32_t accord_engine_slots_image(struct accord_engine *engine, uint64_t now, uint8_t *image, uint32_t limit);
uint32_t accord_engine_slots_restore(struct accord_engine *engine, uint64_t now, const uint8_t *image, uint32_t count);
void accord_engine_slots_clear(struct accord_engine *engine);
/* accord_engine_config.machine, which goes with the slots: to the engine that has them now, a commit for which it has
 * none is one whose slot is gone, and not another machine's. */
uint32_t accord_engine_machine(const struct accord_engine *engine);
void accord_engine_set_machine(struct accord_engine *engine, uint32_t machine);
/* A commit that bore the right T(1) was wrong all the same: the third time the slot is emptied. */
int accord_engine_slot_failed(struct accord_engine *engine, uint32_t handle);
/* The commit is verified. The slot is emptied, and the transaction is one that is over but for repetitions, which are
 * acknowledged for a while. 0, SLOT_GONE, or NO_MEMORY: the slot is emptied, and nobody will acknowledge anything. */
int accord_engine_settle(struct accord_engine *engine, uint64_t now, uint32_t handle, const uint8_t *commit,
                         uint32_t length);

/* The cookie for TLV_REPEAT of an answer (kind: enum accord_cookie_kind), bound for COOKIE_ANSWER; COOKIE_SLOT is bound
 * to this machine. 0 or a negative reason: without keys there is none (QUOTA). */
int accord_engine_token(const struct accord_engine *engine, const struct accord_path *path, const uint8_t *transaction,
                        uint32_t kind, uint32_t bound, uint8_t *cookie);
/* The seed that goes with a good cookie of kind COOKIE_ANSWER, ACCORD_SLOT_SEED bytes: the same wherever its key is.
 * 0 or BAD_COOKIE. */
int accord_engine_token_seed(const struct accord_engine *engine, const struct accord_path *path,
                             const uint8_t *transaction, const uint8_t *cookie, uint8_t *seed);
/* As accord_engine_settle, of an answer without a slot that had so many packets. */
int accord_engine_settle_token(struct accord_engine *engine, uint64_t now, const struct accord_path *path,
                               uint32_t answer_packets, const uint8_t *commit, uint32_t length);

/* ---- Names ------------------------------------------------------------------------------------- */

const char *accord_reason_name(uint32_t reason); /* "BAD_CHECKSUM"; NULL when there is none */
const char *accord_reason_text(uint32_t reason);
uint32_t accord_reason_party(uint32_t reason); /* enum accord_party */

/* ---- Frames: Ethernet, VLAN tags, IP and UDP around a packet -------------------------------------- */

/* An outer VLAN tag that the kernel took out of a frame and tells beside it; type 0: there was none. */
struct accord_frame_tag {
	uint16_t type, control; /* host order */
};

/*
 * Find the packet in a frame, by the rules of ebpf/parsing.h. Fills the path but for socket and queue: its
 * link header is the frame's with the addresses exchanged. The IPv4 header checksum is verified (the kernel
 * does not see the frame before us), UDP's is not: it may still be partial, and a packet has its own.
 * Returns 0 or a negative reason.
 */
int accord_frame_parse(const uint8_t *frame, uint32_t length, struct accord_frame_tag tag, struct accord_path *path,
                       const uint8_t **packet, uint32_t *packet_length);

/* Bytes of the frame that would carry a packet of so many bytes on this path. */
uint32_t accord_frame_bytes(const struct accord_path *path, uint32_t packet_length);

/* Build that frame; path->link_length is not 0. Returns its length, or a negative reason when room is short. */
int accord_frame_build(const struct accord_path *path, const uint8_t *packet, uint32_t length, uint8_t *frame,
                       uint32_t room);

/* ---- Ports ------------------------------------------------------------------------------------- */

/* The ladder, best first. */
enum accord_rung {
	ACCORD_RUNG_XDP_NATIVE = 0,
	ACCORD_RUNG_XDP_GENERIC,
	ACCORD_RUNG_PACKET, /* AF_PACKET */
	ACCORD_RUNG_UDP,    /* the registered UDP sockets alone; needs no privilege and no interface */
	ACCORD_RUNGS,
};

enum accord_port_constant {
	ACCORD_MAX_FDS = ACCORD_MAX_QUEUES + 2, /* a ring's for each queue, and raw sockets for IP protocol 253 */
};

struct accord_program;

struct accord_port_config {
	const char *interface;          /* NULL: only ACCORD_RUNG_UDP can be reached */
	const char *object_path;        /* of accord_xdp.bpf.o */
	uint32_t first_rung, last_rung; /* try from the first to the last, enum accord_rung */
	uint32_t any_port;              /* steer the magic cookie on every UDP port */
	uint32_t frames;                /* of each UMEM; default 4096 */
	uint32_t skip_rungs;            /* bits 1 << enum accord_rung: not to be tried, though they are between those two */
	struct accord_program **spare;  /* NULL, or a program of accord_program_open: taken, and set to NULL, when one is
	                                 * needed; saves loading it now, which is most of the time that this takes */
	uint32_t busy_poll_us;          /* each poll drives the receive queues itself: SO_BUSY_POLL; 0: interrupts alone */
};

/* Why something could not be had. */
struct accord_failure {
	uint16_t reason;  /* enum accord_reason; ACCORD_REASON_OK: nothing failed */
	int32_t error;    /* errno, or 0 */
	char detail[160]; /* which call failed, and on what */
};

/* A network interface as it is at this moment. */
struct accord_netdev {
	char name[16];
	int32_t index;
	uint32_t mtu;
	uint32_t queues; /* receive queues, at most ACCORD_MAX_QUEUES */
	uint8_t address[6];
};

struct accord_port_report {
	uint32_t rung; /* enum accord_rung that was reached */
	uint32_t queues;
	uint32_t program_id;
	uint16_t reason[4];              /* enum accord_reason, by rung: why a rung tried before was not reached */
	int32_t error[4];                /* errno by rung */
	char detail[4][160];             /* by rung: which call failed, and for FOREIGN_PROGRAM its name and ID */
	uint32_t busy_poll_us;           /* in effect; 0: not asked for, or refused */
	struct accord_failure busy_poll; /* why it was refused */
};

/*
 * One ring of a port: an AF_XDP socket, or the AF_PACKET socket. Since it was opened; frames, unless said
 * otherwise. What the kernel counts is XDP_STATISTICS of <linux/if_xdp.h>, or PACKET_STATISTICS.
 */
struct accord_ring_statistics {
	uint32_t queue;
	uint32_t size;                /* descriptors, each way */
	uint64_t received, sent;      /* handed to us; handed to the kernel */
	uint64_t receive_wakeups;     /* system calls: the driver asked for them, or busy polling does */
	uint64_t send_wakeups;        /* system calls */
	uint64_t receive_dropped;     /* no room: in a receive frame (AF_XDP), in the socket's buffer (AF_PACKET) */
	uint64_t receive_ring_full;   /* dropped: we were too slow to take them */
	uint64_t fill_ring_empty;     /* times that the driver found no frame to receive into */
	uint64_t receive_bad_address; /* entries of the fill ring that the kernel refused: ours is wrong */
	uint64_t send_bad_address;    /* entries of the transmit ring that it refused */
	uint64_t send_ring_empty;     /* times that the driver looked for something to send, and there was nothing */
};

/* A datagram on a registered socket that is not ours, for the protocols that share its port. */
struct accord_datagram {
	struct accord_path path;
	uint32_t length;
	const uint8_t *data; /* valid until the next accord_port_poll */
};

struct accord_port;

/* Fails only if no rung between first and last could be reached; report is filled in any case. */
int accord_port_open(const struct accord_port_config *config, struct accord_port_report *report,
                     struct accord_port **port);
/* Leave the interface and climb again, because it changed, went away or came back. Registered sockets stay, under
 * their indexes, and are served throughout. When no rung can be reached they are all that is left
 * (ACCORD_RUNG_UDP in the report), and a negative reason is returned. */
int accord_port_reopen(struct accord_port *port, const struct accord_port_config *config,
                       struct accord_port_report *report);
/* Detaches the XDP program, closes the rings; registered sockets stay their owner's. */
void accord_port_close(struct accord_port *port);
/* File descriptors to wait on for reading (registered sockets are not among them). */
uint32_t accord_port_fds(const struct accord_port *port, int32_t *fds, uint32_t limit);
/* Register a bound, non-blocking UDP socket: its port is steered, its datagrams are read by poll. The
 * port wants IP_PKTINFO / IPV6_RECVPKTINFO and IP_RECVERR / IPV6_RECVERR on it and sets them. Returns its
 * index for accord_path.socket, or a negative reason. */
int accord_port_add_socket(struct accord_port *port, int32_t fd);
int accord_port_remove_socket(struct accord_port *port, int32_t index);
/* From now on (or no longer) there is a service behind this port: SYNs that its peers send beside their proposals may
 * be suppressed. With a full map they are not, and it is counted as NO_MEMORY. */
void accord_port_expose(struct accord_port *port, uint16_t number, uint32_t exposed);
/*
 * Take negotiation packets on a UDP port that is another program's (or no longer): of what comes there only they are
 * ours, told by their magic cookie, and answers leave by the frames that the packets came by. The program's socket
 * stays the kernel's business. On ACCORD_RUNG_PACKET it gets copies of ours too; on ACCORD_RUNG_UDP nothing can be
 * picked from it.
 */
void accord_port_share(struct accord_port *port, uint16_t number, uint32_t shared);
/* Whether SYNs may be suppressed at all; from the start they may. While the engine has hardly a slot for another
 * unproven peer they are not in any case, as its proposal might be refused. */
void accord_port_suppress(struct accord_port *port, uint32_t wanted);
/* From now on the index is another socket of the same family and UDP port, and the one before is not read any more:
 * for handing that one to another process while negotiations go on under its index. */
int accord_port_replace_socket(struct accord_port *port, int32_t index, int32_t fd);
/* Receive a batch from everywhere into the engine, then send what the engine has. Returns packets moved:
 * call again while it is not 0. */
int accord_port_poll(struct accord_port *port, struct accord_engine *engine, uint64_t now);
/* What the XDP program makes cookies with, when it does: as accord_engine_cookies. */
void accord_port_cookies(struct accord_port *port, const struct accord_cookie_ring *ring);
/* Have the XDP program answer strangers while the engine is at ACCORD_LEVEL_COOKIE, and tell the engine of those. Polls
 * do it, too; a host that all is kept from does not poll. */
void accord_port_follow(struct accord_port *port, struct accord_engine *engine, uint64_t now);
/* Datagrams that poll met and that were not ours. */
uint32_t accord_port_datagrams(struct accord_port *port, struct accord_datagram *datagrams, uint32_t limit);
/* ICMP errors that poll met: fills the path whose packet was refused and returns a negative reason
 * (ACCORD_REASON_UNREACHABLE), or 0 when there is none. */
int accord_port_error(struct accord_port *port, struct accord_path *path);
/* Whether the XDP program is where it was attached; without one, as there should be none. An administrator can
 * detach a link by force, and then the interface is free for anybody's program. */
int accord_port_attached(const struct accord_port *port);
/* The XDP program's map "heard", which stays its own; -1 without one, or where a broker has it. */
int accord_port_heard_fd(const struct accord_port *port);
/* Returns when no processor is any more at delivering a packet to the socket that was right when it began. */
void accord_port_settle(void);
/* A sign of life: call at least every ACCORD_HEARTBEAT_MS / 3. */
void accord_port_heartbeat(struct accord_port *port);
/* From now until the next sign of life the XDP program passes everything. What the rings hold can be read and no more
 * comes, so that they can be closed without losing a packet. */
void accord_port_quiet(struct accord_port *port);
/* The rings, by queue; none on ACCORD_RUNG_UDP. Returns how many were written. */
uint32_t accord_port_rings(struct accord_port *port, struct accord_ring_statistics *rings, uint32_t limit);
/* Steering counters, by reason, summed over CPUs; ACCORD_REASON_LIMIT elements. */
int accord_port_counters(struct accord_port *port, uint64_t *counters);

/* Look at an interface. Fails for what is not there and for what has no Ethernet header. */
int accord_netdev_open(const char *name, struct accord_netdev *netdev, struct accord_failure *failure);

/* ---- The XDP program that an interface has, ours or anybody's ------------------------------------ */

struct accord_attached {
	uint32_t program_id; /* 0: none, and nothing else is filled in */
	uint32_t link_id;    /* the bpf_link that holds it there; 0: attached by netlink, or not to be found out */
	uint32_t mode;       /* XDP_ATTACHED_* of <linux/if_link.h> */
	uint32_t user;       /* who loaded it */
	uint64_t loaded_ns;  /* CLOCK_BOOTTIME */
	uint8_t tag[8];      /* a hash of its instructions */
	char name[16];       /* may be empty */
};

/* Returns 0, also when there is none, or a negative reason. */
int accord_attached_find(int32_t interface, struct accord_attached *attached);
/* "in the driver", "in generic mode"... */
const char *accord_attached_mode(uint32_t mode);

/* ---- The XDP program alone, for tests and probes ------------------------------------------------ */

/* Load the object and give its maps the present layout. Nothing is attached. */
int accord_program_open(const char *object_path, struct accord_program **program, struct accord_failure *failure);
void accord_program_close(struct accord_program *program);
/* The kernel's ID of the loaded program. */
uint32_t accord_program_id(const struct accord_program *program);
/* The map "settings" itself, as the program sees it. */
struct accord_settings *accord_program_settings(struct accord_program *program);
/* The map "heard", ACCORD_HEARD_SLOTS elements, to be read: other CPUs write it at any time. */
const struct accord_heard *accord_program_heard(const struct accord_program *program);
/* Which of its elements is a transaction's. */
uint32_t accord_heard_slot(const uint8_t *transaction);
/* For tests: write an element, as if the program had. */
int accord_program_hear(struct accord_program *program, uint32_t slot, const struct accord_heard *entry);
/* What is done with a UDP destination port, in host order: enum accord_port_flag, 0: nothing any more. */
int accord_program_steer(struct accord_program *program, uint16_t port, uint32_t flags);
/* Put an AF_XDP socket into the map "xsks"; -1 takes the queue's socket out. */
int accord_program_join(struct accord_program *program, uint32_t queue, int32_t fd);
int accord_program_counters(struct accord_program *program, uint64_t *counters);
/* BPF_PROG_TEST_RUN: run it on one frame, `repeat` times. output: room for output_length bytes; then what the
 * program left of the frame. verdict: enum xdp_action. duration_ns: of one run, the mean. */
int accord_program_test_run(struct accord_program *program, const uint8_t *frame, uint32_t length, uint32_t repeat,
                            uint8_t *output, uint32_t *output_length, uint32_t *verdict, uint32_t *duration_ns);

/* ---- Watching the verdicts of a program that another process has loaded: `accord trace verdicts` ---- */

struct accord_watcher;

/* The ID of the XDP program that is attached to an interface; 0: none. */
uint32_t accord_watch_find(int32_t interface);
/* Find the maps of a loaded program by its ID. Fails with NO_PRIVILEGE, MAP_MISMATCH, FOREIGN_PROGRAM. */
int accord_watch_open(uint32_t program_id, struct accord_watcher **watcher, struct accord_failure *failure);
/* The rings that were joined leave the map; the lease is given back if it is still this process's. */
void accord_watch_close(struct accord_watcher *watcher);
/* The map "watch" itself. */
struct accord_watch *accord_watch_lease(struct accord_watcher *watcher);
/* Put the ring of a CPU, a perf event's file descriptor, into the map "samples". */
int accord_watch_join(struct accord_watcher *watcher, uint32_t cpu, int32_t fd);

/* Offset in bits of a field of a struct of the running kernel, "sock", "__sk_common.skc_net.net", by its own type
 * information; negative: the kernel has no such field, or tells nothing. */
int64_t accord_btf_offset(const char *structure, const char *path);

#include "birth.h"
#include "captures.h"
#include "privilege.h"
#include "syn_option.h"
#include "tls_server.h"

#endif /* ACCORD_CORE_H */
