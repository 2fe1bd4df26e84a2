/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One negotiation as the transport sees it, and the table of them: fixed slots, found by handle or by
 * transaction ID and role. The role belongs to the key, so both ends may live in one engine.
 */
#ifndef ACCORD_TRANSACTION_H
#define ACCORD_TRANSACTION_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "ackrange.h"
#include "core.h"
#include "crowd.h"
#include "packet.h"
#include "reassembly.h"
#include "recovery.h"
#include "slab.h"

enum transaction_constant {
	TRANSACTION_ACK_DELAY_US = 25000,
	/* Packets. RFC 9000 section 13.2.2 has two; here a message of common size is answered before its
	 * acknowledgement matters, and the host that would send one is about to compute that answer. Well
	 * below the initial window, so that a longer message does not stop. */
	TRANSACTION_ACK_EVERY = 4,
	/* Shared datagrams in a row whose loss says that the path is smaller than its ends. */
	TRANSACTION_LOST_DATAGRAMS = 2,
	TRANSACTION_LIFETIME_US = ACCORD_MAX_LIFETIME_MS * 1000,
	/* Slots that were given back last, and are not to be taken again yet. The rest is taken latest first: the few
	 * that a host is busy with stay in its caches. */
	TRANSACTION_RESTING = 32,
	/* Begun by peers of whom nothing is known but a cookie, since the user last asked for events. An answer with TLS
	 * takes some two milliseconds: who comes behind as many waits no longer than that for them. */
	TRANSACTION_UNTOLD = 16,
};

#define TRANSACTION_NONE UINT32_MAX

/*
 *   FREE --open, admit--> LIVE --fail--> FAILED --close--> FREE
 *                          |  \                            ^ ^
 *                          |   `-----close, no linger------' |
 *                          `--close, linger--> LINGERING --expire
 */
enum transaction_state {
	TRANSACTION_FREE,
	TRANSACTION_LIVE,
	TRANSACTION_FAILED,    /* the user has been, or will be, told; nothing moves any more */
	TRANSACTION_LINGERING, /* the user has forgotten it; what was sent arrives, what comes is acknowledged */
};

/* What this side sends. TSN offsets. */
struct outbox {
	uint16_t total;                            /* [0, total) have been queued */
	uint16_t sent;                             /* [0, sent) have been on the wire at least once */
	uint16_t oldest;                           /* all before it are acknowledged */
	uint16_t retained;                         /* packets kept although they are; see outbox_awaits */
	int8_t step;                               /* latest; -1: none */
	uint16_t repeats;                          /* packets to be sent again that the peer has; see outbox_unlock */
	uint16_t missed;                           /* one past the packet of recovery.missed_at; 0: none */
	uint16_t unacknowledged[REASSEMBLY_STEPS]; /* packets, by step / 2 */
	uint32_t buffers[ACCORD_MAX_PACKETS];      /* of [0, total); SLAB_NONE once given back */
};

struct transaction {
	uint32_t handle;
	uint32_t slot;
	uint32_t next;  /* in its hash chain, or among the free */
	uint32_t head;  /* of its hash chain */
	uint32_t crowd; /* places of its peer's network */
	uint8_t state;  /* enum transaction_state */
	uint8_t role;   /* enum role: this side's */
	uint8_t id[ACCORD_TRANSACTION_BYTES];
	struct accord_path path;
	uint64_t created, expires; /* expires: while lingering */
	uint32_t sooner, later;    /* among the lingering */
	struct slab_share share;   /* share.unproven: the peer's address is not proven */
	bool admitted;             /* by a cookie, and nothing more is known of the peer: no commit has come */
	bool untold;               /* by a cookie, and the user has not been told */

	uint64_t ack_due;  /* UINT64_MAX: nothing to tell */
	uint32_t arrivals; /* packets with chunks since the last acknowledgement */
	bool aborted;      /* the peer's context node carried a REASON */
	bool mute;         /* failed before it was closed: linger in silence */
	bool continues;    /* the initiator's latest message is no commit: its context node carried CONTINUES */

	uint32_t lost_datagram;            /* the latest shared one that counted as lost */
	uint8_t lost_datagrams;            /* shared ones, since one arrived */
	bool alone;                        /* no packet shares a datagram any more: too many of these were lost */
	uint64_t wire_received, wire_sent; /* bytes with UDP and IP, for the amplification limit */

	uint32_t expected;     /* bytes with UDP and IP that the answer is likely to take; 0: not known */
	uint64_t acknowledged; /* bytes with UDP and IP, of the proposal */
	uint64_t unheard;      /* of these and of repeated: as much as the peer behaves as if it had not come */
	uint64_t repeated;     /* bytes with UDP and IP, sent for the sake of the peer's amplification limit */
	uint32_t packets_sent, packets_received, retransmitted, duplicates;
	uint64_t bytes_sent, bytes_received;
	uint32_t events;    /* in the queue */
	uint8_t challenges; /* that the proposal has answered */
	uint16_t why;       /* state FAILED: the reason */

	/* All before it is cleared for a new transaction; from here on each part is begun by itself. */
	struct ackrange range;
	struct recovery recovery;
	/* Each ends in an array that is not cleared for a new transaction, nor touched as far as it is not used:
	 * together five times as long as all the rest. */
	struct reassembly reassembly;
	struct outbox outbox;
	uint32_t fingerprints[ACCORD_MAX_PACKETS]; /* of received packets, by TSN offset */
};

struct transaction_table {
	struct transaction *slots;
	uint32_t *heads; /* hash chains */
	uint32_t count, live, unproven, unproven_limit;
	uint32_t slot_mask, head_mask;           /* powers of two, minus one */
	uint32_t free;                           /* a stack */
	uint32_t resting[TRANSACTION_RESTING];   /* a ring of slots, free too, but only for want of others */
	uint32_t rested;                         /* that has rested for longest: index in the ring */
	uint32_t lingering_head, lingering_tail; /* in the order in which they began to */
	uint32_t lingering, lingering_unproven;  /* so many; of them, so many never proved their address */
	uint64_t seed;
	enum accord_congestion congestion; /* of each */
	struct crowd unproven_crowd, admitted_crowd, untold_crowd;
	uint32_t admitted, admitted_limit, untold; /* by a cookie alone, lingering ones included; not told of them */
};

/* Who a transaction is begun with. */
enum admission {
	ADMISSION_NONE,     /* nobody */
	ADMISSION_OURS,     /* this side begins */
	ADMISSION_UNPROVEN, /* a peer whose address nothing proves */
	ADMISSION_COOKIE,   /* a peer whose cookie proves its address */
};

/* Smallest power of two >= value. */
uint32_t transaction_power(uint32_t value);
void transaction_table_init(struct transaction_table *table, struct transaction *slots, uint32_t *heads,
                            const struct accord_engine_config *config);
struct transaction *transaction_find(const struct transaction_table *table, const uint8_t *id, enum role role);
/* NULL: stale or never given out. */
struct transaction *transaction_of(const struct transaction_table *table, uint32_t handle);
/* Takes a free slot and makes it LIVE. NULL: none, or no quota; see reason. */
struct transaction *transaction_new(struct transaction_table *table, uint64_t now, const uint8_t *id,
                                    enum admission admission, const struct accord_path *path, uint32_t *reason);
/* May a peer on this path whose address a cookie proves, and nothing else, have a place? */
bool transaction_admits(const struct transaction_table *table, const struct accord_path *path);
/* The user has all its events. */
void transaction_told(struct transaction_table *table, struct transaction *transaction);
/* LINGERING from now on. */
void transaction_linger(struct transaction_table *table, struct transaction *transaction);

/* Of those that linger and never proved their address the one that began to first; NULL: there is none. */
struct transaction *transaction_unproven_lingering(struct transaction_table *table);
void transaction_free(struct transaction_table *table, struct transaction *transaction);
/* The peer has committed, or otherwise shown who it is. */
void transaction_prove(struct transaction_table *table, struct slab *slab, struct transaction *transaction);

/* Is this path's remote end the transaction's? */
static inline bool transaction_same_remote(const struct transaction *transaction, const struct accord_path *path)
{
	const struct accord_path *ours = &transaction->path;

	if (ours->family != path->family || ours->context != path->context || ours->remote_port != path->remote_port)
		return false;
	/* Lengths that the compiler knows spare a call. */
	if (path->family == 4)
		return memcmp(ours->remote, path->remote, 4) == 0;
	return memcmp(ours->remote, path->remote, sizeof(path->remote)) == 0;
}
/* Learn from the path on which a valid packet came. */
void transaction_learn(struct transaction *transaction, const struct accord_path *path);
/* Accord's part of the longest datagram that may be sent to the peer now, bytes. */
uint32_t transaction_datagram(const struct transaction *transaction);
/* Bytes of UDP and IP around each packet. */
static inline uint32_t transaction_overhead(const struct transaction *transaction)
{
	uint32_t ip = transaction->path.family == 4 ? 20 : 40;

	return ip + (transaction->path.context == ACCORD_PROTOCOL_UDP ? 8 : 0);
}
/* May a packet of so many bytes be sent without amplifying? */
static inline bool transaction_may_send(const struct transaction *transaction, uint32_t length)
{
	uint64_t after = transaction->wire_sent + length + transaction_overhead(transaction);

	return !transaction->share.unproven || after <= ACCORD_AMPLIFICATION * transaction->wire_received;
}

#endif /* ACCORD_TRANSACTION_H */
