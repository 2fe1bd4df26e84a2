/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The race with a legacy SYN, no-syn (PROTOCOL.md, sections 10.1 and 10.2): a proposal, and beside it the SYN of a plain
 * connection, which a responder that heard the proposal first may drop, once. The initiator is the code's own table
 * (race_table.pmh); the responder is a listener, with or without Accord and the table of ebpf/suppress.h before it.
 *
 * Time goes in ticks of SUPPRESS_MS. A SYN is repeated after two of them at least, without the option, and a delayed
 * datagram may arrive at any tick.
 *
 * MISTAKE_1 every SYN of a transaction is dropped
 * MISTAKE_2 suppression has no expiry
 * MISTAKE_3 a repeated proposal makes its transaction younger
 * MISTAKE_4 a SYN is dropped although one with its transaction has passed before
 * MISTAKE_5 a refused initiator waits for its suppressed SYN to be repeated
 * MISTAKE_6 a forged answer is followed by the plain connection
 * MISTAKE_7 bare TCP wins although security is required
 * MISTAKE_8 the negotiation that has lost goes on
 * MISTAKE_9 the connection that has lost stays open
 * MISTAKE_10 an answer is still taken once the plain connection has won
 *
 * LARGE LOSSES=2 DUPLICATES=1 EVERY_TROUBLE
 *
 * WITNESS_1 the SYN is dropped and the negotiation wins
 * WITNESS_2 the SYN is dropped, the proposal refused and the second connection taken
 * WITNESS_3 the SYN is dropped, nobody answers, and its repetition is taken
 * WITNESS_4 a peer without Accord is reached
 * WITNESS_5 an answer wins over a connection on which TLS is being set up
 * WITNESS_6 after a challenge an answer wins over an open connection on which nothing was said
 */

#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef DUPLICATES
#define DUPLICATES 1
#endif
#define SENDS (LOSSES + 1)
#define SYNS (LOSSES + 2)       /* one may be dropped on purpose */
#define LAST_TICK 2
#define SYN_TICKS 2

#include "race_table.pmh"
#include "suppress_rules.pmh"

/* Datagrams and segments in flight, one bit each; connection 2 is the one that replaces the first. */
#define PROPOSAL 1
#define ANSWER 2
#define REFUSAL 4
#define COMMIT 8
#define GIVE_UP 16
#define SYN_OPTION 32           /* of connection 1, with FALLBACK */
#define SYN_1 64
#define SYN_2 128
#define SYN_ACK_1 256
#define SYN_ACK_2 512
#define RESET_1 1024
#define RESET_2 2048

mtype = { LEGACY, ACCEPTS, REFUSES, HUNG, IMPOSTOR };
mtype = { NOTHING, OPENING, OPEN, SECURING, SECURE };

/* What is so. */
mtype peer, fallback;
bool bare, asks, listens, has_tls, early, parallel_syn, patient, trusts_mark, made;

/* The initiator. */
mtype race = RACE_READY, event, connection = NOTHING, syn;
byte which, proposals, syns, syn_at;
bool lost, spoken, final, marked;
bool negotiating, expired, committed_i, waits, was_refused, was_forged, finished;

/* The responder. */
bool challenged, known, over, committed_r, syn_dropped, syn_passed;
byte answers;
bool noted_long_ago, long_over;        /* a tick ago, or more */

short net;
byte losses, duplicates;

#define OVER (race == RACE_NEGOTIATED || race == RACE_FELL_BACK || race == RACE_FAILED)
#ifdef LIVENESS
#define MAY_SEND(count, limit) true
#define COUNT(count) skip
#define MAY_LOSE true
#else
#define MAY_SEND(count, limit) (count < limit)
#define COUNT(count) count++
#define MAY_LOSE (losses < LOSSES)
#endif

inline take(message) { net = net & ~(message) }

/* ---- what the table tells the initiator to do ---- */

inline finish() { assert(!finished); finished = true }                  /* exactly one end */
inline do_greet() { assert(false) }     /* that is parallel-syn's */
inline do_propose() { negotiating = true; proposals = 1; net = net | PROPOSAL }
inline do_open(option) {
	assert(connection == NOTHING);
	which++;
	connection = OPENING;
	syn = option;
	syns = 1;
	syn_at = now;
	net = net | (option == SYN_FALLBACK -> SYN_OPTION : (which == 1 -> SYN_1 : SYN_2))
}
inline do_close() {
#ifdef MISTAKE_9
	skip
#else
	assert(connection != NOTHING);
	connection = NOTHING
#endif
}
inline do_secure() {
	assert(connection == OPEN && !bare && fallback != NEVER);
	connection = SECURING
}
inline do_adopt() { assert(false) }                                     /* parallel-syn only */
inline do_wait(why) { waits = true }
inline do_give_up() {
	assert(negotiating);
#ifndef MISTAKE_8
	negotiating = false;
#endif
	net = net | GIVE_UP
}
inline do_negotiated() {
	finish();
	assert(committed_i && connection == NOTHING);                   /* the loser is closed first */
#ifdef WITNESS_1
	assert(!syn_dropped)
#endif
	skip
}
inline do_fell_back() {
	finish();
#ifndef MISTAKE_8
	assert(!negotiating);
#endif
	assert(!committed_i);                                           /* never two winners */
	assert(fallback != NEVER && !was_forged);                       /* nothing weaker after a forgery */
	assert((connection == OPEN && bare) || connection == SECURE);   /* never bare under required */
#ifdef WITNESS_2
	assert(!(syn_dropped && was_refused && which == 2));
#endif
#ifdef WITNESS_3
	assert(!(syn_dropped && which == 1 && peer == HUNG));
#endif
#ifdef WITNESS_4
	assert(peer != LEGACY);
#endif
	skip
}
inline do_failed() {
	finish();
	assert(!negotiating && !committed_i && connection == NOTHING);
	/* Whoever is there for a plain connection is reached, whatever its Accord does. */
	assert(early || fallback == NEVER || was_forged || !listens || !(bare || has_tls))
}

inline tell() {
	if
#ifdef MISTAKE_5
	:: race == RACE_BESIDE && event == ON_NEGOTIATION_FAILED && !final -> race = RACE_OPENING
#endif
#ifdef MISTAKE_6
	:: race == RACE_BESIDE && event == ON_NEGOTIATION_FAILED && final -> race = RACE_OPENING
#endif
#ifdef MISTAKE_7
	:: race == RACE_BESIDE && event == ON_SYN_ACK && !bare -> race = RACE_FELL_BACK; do_give_up(); do_fell_back()
#endif
#ifdef MISTAKE_10
	:: race == RACE_FELL_BACK && event == ON_COMMITTED -> race = RACE_NEGOTIATED; do_negotiated()
#endif
	:: else -> race_receive()
	fi
}

/* MISTAKE_10 comes with a negotiation that still listens. */
#ifdef MISTAKE_10
#define LISTENS_TO_ANSWERS (negotiating || race == RACE_FELL_BACK)
#else
#define LISTENS_TO_ANSWERS negotiating
#endif
/* A SYN, or what it is answered by: there is no reason to repeat it yet. */
#define IN_FLIGHT (SYN_ACK_1 | SYN_ACK_2 | RESET_1 | RESET_2 | (which == 1 -> (SYN_OPTION | SYN_1) : SYN_2))

proctype Initiator() {
	atomic { race_start() };
end:
	do
	:: atomic {
		net & ANSWER ->
		take(ANSWER);
		if
		:: LISTENS_TO_ANSWERS && peer == ACCEPTS ->
#ifdef WITNESS_5
			assert(race != RACE_RACING);
#endif
#ifdef WITNESS_6
			assert(race != RACE_WAITING);
#endif
			negotiating = false; committed_i = true; net = net | COMMIT; event = ON_COMMITTED; goto handle
		:: LISTENS_TO_ANSWERS && peer == IMPOSTOR ->
			negotiating = false; was_forged = true; net = net | GIVE_UP;
			event = ON_NEGOTIATION_FAILED; spoken = true; final = true; goto handle
		:: else -> skip
		fi
	   }
	:: atomic {
		net & REFUSAL ->
		take(REFUSAL);
		if
		:: negotiating ->
			negotiating = false; was_refused = true;
			event = ON_NEGOTIATION_FAILED; spoken = true; goto handle
		:: else -> skip
		fi
	   }
	:: atomic { waits -> waits = false; event = ON_WAITED; goto handle }
	:: atomic {
		net & (which == 1 -> SYN_ACK_1 : SYN_ACK_2) ->
		take((which == 1 -> SYN_ACK_1 : SYN_ACK_2));
		if
		:: connection == OPENING -> connection = OPEN; marked = challenged; event = ON_SYN_ACK; goto handle
		:: else -> skip
		fi
	   }
	:: atomic {
		net & (which == 1 -> RESET_1 : RESET_2) ->
		take((which == 1 -> RESET_1 : RESET_2));
		if
		:: connection == OPENING -> connection = NOTHING; event = ON_TCP_FAILED; goto handle
		:: else -> skip
		fi
	   }
	:: atomic { which == 2 && net & (SYN_ACK_1 | RESET_1) -> take(SYN_ACK_1 | RESET_1) }    /* too late */
	:: atomic { connection == SECURING && has_tls -> connection = SECURE; event = ON_PLAIN_READY; goto handle }
	:: atomic { connection == SECURING && !has_tls -> connection = NOTHING; event = ON_TCP_FAILED; goto handle }
	:: atomic {
		negotiating && !expired && !(net & PROPOSAL) && MAY_SEND(proposals, SENDS) ->
		net = net | PROPOSAL; COUNT(proposals)
	   }
	:: atomic {
		connection == OPENING && !expired && !(net & IN_FLIGHT) && (now >= syn_at + SYN_TICKS || now == LAST_TICK) && MAY_SEND(syns, SYNS) ->
		assert(!(syn == SYN_FALLBACK && was_refused));                  /* who was refused does not wait for it */
		COUNT(syns);
		net = net | (which == 1 -> SYN_1 : SYN_2)
	   }
	:: atomic { expired && negotiating -> expired = false; negotiating = false; event = ON_NEGOTIATION_FAILED; goto handle }
	:: atomic { expired && !negotiating && connection == OPENING -> expired = false; connection = NOTHING; event = ON_TCP_FAILED; goto handle }
	:: atomic { expired && !negotiating && connection != OPENING -> expired = false }
	od;
	atomic {
		skip;                   /* an atomic sequence may be jumped into, but not to its beginning */
handle:		tell();
		event = 0; spoken = false; final = false; marked = false;
		goto end
	}
}

/* ---- the responder ---- */

#define ACCORD (peer != LEGACY)

inline pass_syn() { syn_passed = true; net = net | (listens -> SYN_ACK_1 : RESET_1) }
inline meet_syn() {
	if
	:: !ACCORD -> pass_syn()
	:: else ->
		judge_syn();
		if
		:: verdict == DROPS ->
			assert(!syn_dropped);                           /* one SYN of a transaction, no other */
			assert(!syn_passed);                            /* and only its first */
			assert(!noted_long_ago);                        /* counted from the first proposal */
			assert(!long_over);                             /* none for a negotiation that is over */
			syn_dropped = true
		:: else -> pass_syn()
		fi;
		verdict = 0
	fi
}

proctype Responder() {
end:
	do
	:: atomic {
		net & PROPOSAL ->
		take(PROPOSAL);
		if
		:: peer == ACCEPTS && !known && !challenged -> challenged = true        /* and nothing is kept of it */
		:: ACCORD ->
			note_proposal();
			if
			:: !known && peer != HUNG ->
				known = true; answers = 1;
				if
				:: peer == REFUSES -> over = true; net = net | REFUSAL
				:: else -> net = net | ANSWER
				fi
			:: else -> skip
			fi
		:: else -> skip
		fi
	   }
	:: atomic {
		net & COMMIT ->
		take(COMMIT);
		if
		:: known && !over ->
			over = true; committed_r = true;
			assert(race != RACE_FELL_BACK)                  /* never two winners */
		:: else -> skip
		fi
	   }
	:: atomic {
		net & GIVE_UP ->
		take(GIVE_UP);
		if
		:: known && !over -> over = true
		:: else -> skip
		fi
	   }
	:: atomic {
		known && negotiating && !(net & (ANSWER | REFUSAL)) && MAY_SEND(answers, SENDS) ->
		COUNT(answers);
		net = net | (peer == REFUSES -> REFUSAL : ANSWER)
	   }
	:: atomic { net & SYN_OPTION -> take(SYN_OPTION); meet_syn() }
	:: atomic { net & SYN_1 -> take(SYN_1); net = net | (listens -> SYN_ACK_1 : RESET_1) }
	:: atomic { net & SYN_2 -> take(SYN_2); net = net | (listens -> SYN_ACK_2 : RESET_2) }
	od
}

/* ---- the world ---- */

proctype Network() {
end:
	do
	:: atomic {
		MAY_LOSE && net != 0 ->
		if
		:: net & PROPOSAL -> take(PROPOSAL)
		:: net & ANSWER -> take(ANSWER)
		:: net & REFUSAL -> take(REFUSAL)
		:: net & (COMMIT | GIVE_UP) -> take(COMMIT | GIVE_UP)
		:: net & SYN_OPTION -> take(SYN_OPTION)
		:: net & (SYN_1 | SYN_2) -> take(SYN_1 | SYN_2)
		:: net & (SYN_ACK_1 | SYN_ACK_2) -> take(SYN_ACK_1 | SYN_ACK_2)
		:: net & (RESET_1 | RESET_2) -> take(RESET_1 | RESET_2)
		fi
#ifndef LIVENESS
		; losses++
#endif
	   }
#ifndef LIVENESS
	:: atomic { duplicates < DUPLICATES && proposals > 0 && !(net & PROPOSAL) -> net = net | PROPOSAL; duplicates++ }
	:: atomic {
		duplicates < DUPLICATES && syn == SYN_FALLBACK && syns > 0 && !(net & SYN_OPTION) ->
		net = net | SYN_OPTION; duplicates++
	   }
#endif
	od
}

/* A lifetime is over, of a negotiation or of a connection that does not open: when nothing else can happen any more, or
 * (`early`) at any time. */
proctype Clock() {
end:
	do
	:: atomic { (early || timeout) && !expired && !OVER && (negotiating || connection == OPENING) -> expired = true }
	:: atomic {
		now < LAST_TICK ->
		now++; noted_long_ago = (heard != HEARD_NOTHING); long_over = over
	   }
	od
}

/* Nothing is left to be done: somebody has won, or it is known why not. */
proctype Judge() {
	atomic { timeout && OVER && now == LAST_TICK -> assert(!(committed_r && race != RACE_NEGOTIATED)) }
}

init {
	atomic {
#if defined(LIVENESS) && !defined(EVERY_TROUBLE)
		if :: peer = ACCEPTS :: peer = HUNG fi;
#else
		if :: peer = IMPOSTOR :: peer = HUNG :: peer = LEGACY :: peer = REFUSES :: peer = ACCEPTS fi;
#endif
		if :: fallback = PARALLEL :: fallback = DELAYED :: fallback = NEVER fi;
		if :: bare = true :: skip fi;
		/* Who is not asked is as one without Accord, but where there is nothing else. */
		if :: asks = true :: peer == LEGACY || fallback == NEVER -> skip fi;
		listens = true;
		has_tls = true;
		trusts_mark = true;     /* or a challenge decides nothing */
		if :: fallback == PARALLEL && !bare && peer == ACCEPTS -> skip :: made = true fi;
#ifdef LIVENESS
		early = true;
#endif
		/* One trouble beside those of the channel and of Accord. */
		if
		:: peer != LEGACY && peer != IMPOSTOR -> early = true
		:: listens = false
		:: !bare -> has_tls = false
		:: skip
		fi;
		run Initiator(); run Responder(); run Network(); run Clock(); run Judge()
	}
}

#ifdef LIVENESS
ltl ends { <> OVER }
#endif
