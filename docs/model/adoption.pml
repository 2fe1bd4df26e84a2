/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The race with a legacy SYN, parallel-syn (PROTOCOL.md, sections 9.1 and 10.1): the connection of the SYN becomes the
 * negotiated TCP node, or the plain connection. Both ends are the code's own tables: the initiator's race (race_table.pmh)
 * and the place that the responder keeps for the connection (adoption_table.pmh). Datagrams are lost and arrive in any
 * order; the option, or the mark, may be taken off on the way; somebody who has seen the ID may open a connection with it.
 *
 * MISTAKE_1 the initiator waits at a mark for ever
 * MISTAKE_2 a connection that may be adopted is served as a plain one meanwhile
 * MISTAKE_3 an answer that comes after bytes of a plain stream is still taken
 * MISTAKE_4 the preface is left away at a mark whatever is above TCP
 * MISTAKE_5 the preface is left away at a SYN-ACK without a mark
 * MISTAKE_6 a SYN-ACK is marked although the option will be forgotten
 * MISTAKE_7 a preface for which nobody waits is given to the service
 * MISTAKE_8 the connection of a stranger takes the place of the peer's own
 * MISTAKE_9 the initiator commits before it has the SYN-ACK
 * MISTAKE_10 a ClientHello is served at once although its negotiation is in flight
 * MISTAKE_11 a proposal is answered although its ClientHello was served before
 * MISTAKE_12 a record for which no commit comes is given to the service
 * MISTAKE_13 the plain words of a stranger end the negotiation
 *
 * LARGE LOSSES=1 DUPLICATES=1 EVERY_TROUBLE
 *
 * WITNESS_1 a connection is found by its SYN and adopted
 * WITNESS_2 a connection is found by its preface and adopted
 * WITNESS_3 the wait at a mark is in vain and the connection is the plain one
 * WITNESS_4 the commit comes before the connection
 * WITNESS_5 a stranger is put out of the place by the peer's own connection
 * WITNESS_6 a connection is found by its ClientHello and adopted
 * WITNESS_7 a peer without Accord answers the proposal's ClientHello
 * WITNESS_8 the SYN leaves before the proposal and its connection is adopted
 */

#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef DUPLICATES
#define DUPLICATES 0
#endif
#define SENDS (LOSSES + 1)

#define parallel_syn true
#define asks true

#include "race_table.pmh"
#include "adoption_table.pmh"

#define PROPOSAL 1
#define ANSWER 2
#define REFUSAL 4
#define COMMIT 8
#define GIVE_UP 16
#define SYN 32
#define SYN_AGAIN 64            /* without the option */
#define SYN_ACK 128
#define SYN_ACK_MARKED 256

mtype = { LEGACY, ACCEPTS, OTHER_STACK, REFUSES, HUNG };
mtype = { NOTHING, OPENING, OPEN, GREETED, SECURING, SECURE, ADOPTED };
mtype = { SILENT, BY_PREFACE, BY_HELLO, BY_RECORD, BY_END, BY_PLAIN };
mtype = { UNDECIDED, PLAIN, JOINED, DROPPED };

/* What is so. */
mtype peer, fallback;
bool bare, tls_above, patient, trusts_mark, made, early, intruder, strips_option, strips_mark, remembers;

/* The initiator. */
mtype race = RACE_READY, event, connection = NOTHING;
byte proposals, syns, commits;
bool lost, spoken, final, marked, was_marked;
bool negotiating, expired, waits, committed_i, adopting, finished;
bool plain_i, behind_i;         /* bytes of a plain stream have left; the commit says "behind the preface" */
bool greeted;                   /* the proposal's ClientHello was said over the connection */

/* The responder. */
mtype place = PLACE_ABSENT, newcomer = NOBODY, held = NOBODY, spare = NOBODY, before = NOBODY;
mtype served[3] = UNDECIDED, said[3] = SILENT;
bool accepted[3], seen[3];
bool challenged, heard, known, over, ends, refused, claimed, names_it, hello_served;
byte answers;

short net;
byte losses, duplicates;

#define EXCUSED early            /* lifetimes are over at any time */
#define AT(who) (who == OWN -> 1 : 2)
#define OVER (race == RACE_NEGOTIATED || race == RACE_FELL_BACK || race == RACE_FAILED)
#ifdef LIVENESS
#define MAY_SEND(count) true
#define COUNT(count) skip
#define MAY_LOSE true
#else
#define MAY_SEND(count) (count < SENDS)
#define COUNT(count) count++
#define MAY_LOSE (losses < LOSSES)
#endif

inline take(message) { net = net & ~(message) }

/* ---- what the table tells the initiator to do ---- */

inline finish() { assert(!finished); finished = true }                  /* exactly one end */
inline do_propose() { negotiating = true; proposals = 1; net = net | PROPOSAL }
inline do_open(option) { assert(connection == NOTHING && option == SYN_ADOPT); connection = OPENING; syns = 1; net = net | SYN }
inline do_close() {
	if
	:: connection != OPENING && said[1] == SILENT -> said[1] = BY_END
	:: else -> skip
	fi;
	connection = NOTHING
}
inline do_secure() {
	assert((connection == OPEN || connection == GREETED || connection == ADOPTED) && !bare && fallback != NEVER);
	assert(!committed_i);
	connection = SECURING; adopting = false;
	if
	:: greeted -> skip
	:: else -> said[1] = BY_PLAIN
	fi;
	plain_i = true
}
inline do_greet() {
	assert(connection == OPEN && negotiating && !bare && fallback == PARALLEL);
	connection = GREETED; greeted = true;
	said[1] = BY_HELLO
}
inline do_adopt() {
	assert((connection == OPEN || connection == GREETED) && negotiating);
	connection = ADOPTED; adopting = true
}
inline do_wait(why) {
#ifdef MISTAKE_1
	waits = waits
#else
	waits = true
#endif
}
inline do_give_up() {
	assert(negotiating); negotiating = false; adopting = false; net = net | GIVE_UP
}
inline do_negotiated() {
	finish();
	assert(committed_i && !plain_i && (connection == ADOPTED || connection == NOTHING))     /* the loser is closed first */
}
inline do_fell_back() {
	finish();
	assert(!negotiating && !committed_i && fallback != NEVER);              /* never two winners */
	assert((bare && (connection == OPEN || connection == ADOPTED)) || connection == SECURE);
#ifdef WITNESS_3
	assert(!was_marked || peer != HUNG);
#endif
#ifdef WITNESS_7
	assert(!greeted || peer != LEGACY);
#endif
	if
	:: greeted -> skip
	:: else -> said[1] = BY_PLAIN
	fi;
	plain_i = true
}
inline do_failed() {
	finish();
	assert(!negotiating && !committed_i && connection == NOTHING);
	assert(early || fallback == NEVER)
}

inline tell() {
	if
#ifdef MISTAKE_3
	:: (race == RACE_SECURING || race == RACE_FELL_BACK) && event == ON_ANSWERED -> adopting = true
#endif
#ifdef MISTAKE_9
	:: race == RACE_OFFERED && event == ON_ANSWERED -> race = RACE_ADOPTING; adopting = true
#endif
	:: else -> race_receive()
	fi
}
#ifdef MISTAKE_3
#define LISTENS_TO_ANSWERS (negotiating || plain_i)
#else
#define LISTENS_TO_ANSWERS negotiating
#endif
#ifdef MISTAKE_4
#define NEEDS_PREFACE (!was_marked)
#else
#ifdef MISTAKE_5
#define NEEDS_PREFACE (!tls_above)
#else
#define NEEDS_PREFACE (greeted || !(was_marked && tls_above))
#endif
#endif

#define ACCORD (peer != LEGACY)

proctype Initiator() {
	atomic { race_start() };
end:
	do
	:: atomic {
		!expired && net & ANSWER ->
		take(ANSWER);
		if
		:: LISTENS_TO_ANSWERS && peer == ACCEPTS && !adopting && !committed_i -> event = ON_ANSWERED; goto handle
		:: negotiating && peer == OTHER_STACK ->
			negotiating = false; committed_i = true; commits = 1; net = net | COMMIT;
			event = ON_COMMITTED; goto handle
		:: else -> skip
		fi
	   }
	:: atomic {
		net & REFUSAL ->
		take(REFUSAL);
		if
		:: negotiating ->
			negotiating = false; adopting = false; event = ON_NEGOTIATION_FAILED; spoken = true; goto handle
		:: else -> skip                         /* after the commit: the stack is over */
		fi
	   }
	:: atomic {
		adopting ->                             /* the stack commits: the preface first, or the stack's own bytes */
		assert(connection == ADOPTED);          /* nothing is committed before the SYN-ACK, or to a plain stream */
		adopting = false; negotiating = false; committed_i = true;
		if
		:: greeted && !tls_above ->             /* what was said is of no such stack */
			committed_i = false; net = net | GIVE_UP; event = ON_NEGOTIATION_FAILED; spoken = true; goto handle
		:: else -> skip
		fi;
		behind_i = NEEDS_PREFACE;
#ifdef WITNESS_8
		assert(made);
#endif
		if
		:: greeted -> skip
		:: !greeted && behind_i -> said[1] = BY_PREFACE
		:: !behind_i && tls_above -> said[1] = BY_RECORD
		:: !behind_i && tls_above -> skip       /* the application says nothing yet */
		:: !behind_i && !tls_above -> said[1] = BY_PLAIN
		fi;
		commits = 1; net = net | COMMIT; event = ON_COMMITTED; goto handle
	   }
	:: atomic { waits -> waits = false; event = ON_WAITED; goto handle }
	:: atomic {
		net & (SYN_ACK | SYN_ACK_MARKED) ->
		marked = (net & SYN_ACK_MARKED) && !strips_mark;
		take(SYN_ACK | SYN_ACK_MARKED);
		if
		:: connection == OPENING ->
			connection = OPEN; was_marked = marked;
			marked = marked || challenged;          /* both say that the proposal has been heard */
			event = ON_SYN_ACK; goto handle
		:: else -> marked = false
		fi
	   }
	:: atomic { connection == GREETED && (!ACCORD || served[1] == PLAIN) -> event = ON_PLAIN_SPOKEN; goto handle }
	:: atomic {
		connection == SECURING && (!ACCORD || !greeted || served[1] == PLAIN) ->
		connection = SECURE; event = ON_PLAIN_READY; goto handle
	   }
	:: atomic { negotiating && !expired && !(net & PROPOSAL) && MAY_SEND(proposals) -> net = net | PROPOSAL; COUNT(proposals) }
	:: atomic { committed_i && !(claimed || over) && !(net & COMMIT) && MAY_SEND(commits) -> net = net | COMMIT; COUNT(commits) }
	:: atomic {
		connection == OPENING && !expired && !(net & (SYN | SYN_AGAIN | SYN_ACK | SYN_ACK_MARKED)) && MAY_SEND(syns) ->
		net = net | SYN_AGAIN; COUNT(syns)
	   }
	:: atomic {
		expired && negotiating ->
		/* Whoever may be served plainly has not waited for the whole of a lifetime. */
		assert(early || !((race == RACE_WAITING || race == RACE_GREETED) && fallback == PARALLEL));
		expired = false; negotiating = false; adopting = false; event = ON_NEGOTIATION_FAILED; goto handle
	   }
	:: atomic {
		expired && !negotiating && connection == OPENING ->
		expired = false; connection = NOTHING; event = ON_TCP_FAILED; goto handle
	   }
	:: atomic { expired && !negotiating && connection != OPENING -> expired = false }
	od;
	atomic {
		skip;                   /* an atomic sequence may be jumped into, but not to its beginning */
handle:		tell();
		event = 0; spoken = false; marked = false;
		goto end
	}
}

/* ---- what the other table tells the responder to do ---- */

inline serve(who) {
	assert(served[AT(who)] == UNDECIDED);                           /* never both plain and adopted */
	assert(said[AT(who)] != BY_PREFACE || !seen[AT(who)]);          /* no service is given a preface */
	assert(who != OWN || said[1] != BY_RECORD || !seen[1]);         /* nor a stack's records */
	assert(who != OWN || EXCUSED || intruder || !(committed_i && peer == ACCEPTS));  /* no stack's bytes are served */
	served[AT(who)] = PLAIN
}
inline be_plain(who) {
	if
	:: seen[AT(who)] -> serve(who)
	:: else -> skip                                                 /* its first bytes are waited for */
	fi
#ifdef WITNESS_5
	; assert(!(who == STRANGER && newcomer == OWN && who == before))
#endif
}
inline be_dropped(who) {
	assert(served[AT(who)] == UNDECIDED);
	assert(who != OWN || EXCUSED || intruder || !committed_i);      /* the peer's own is not reset */
	served[AT(who)] = DROPPED
}
inline be_joined(who, behind) {
	assert(served[AT(who)] == UNDECIDED);
	assert(who != OWN || (committed_i && !plain_i));                /* bytes of one stream are not read as another's */
	assert(who == OWN || before != OWN);                            /* nor is the peer's own put out of its place */
	assert(who != OWN || (behind == behind_i));
	assert(who != OWN || !behind || said[1] == BY_PREFACE || said[1] == BY_HELLO);
#ifdef WITNESS_1
	assert(behind);
#endif
#ifdef WITNESS_2
	assert(said[AT(who)] != BY_PREFACE);
#endif
#ifdef WITNESS_6
	assert(said[AT(who)] != BY_HELLO);
#endif
	served[AT(who)] = JOINED
}

/* What the table says is to be done with a connection; done when it has said all. */
mtype = { NO_MORE, TO_PLAIN, TO_DROP, TO_JOIN, TO_JOIN_BEHIND };
mtype todo[3] = NO_MORE;
inline do_plain(who) { todo[AT(who)] = TO_PLAIN }
inline do_spare(who) { todo[AT(who)] = TO_PLAIN }
inline do_drop(who) { todo[AT(who)] = TO_DROP }
inline do_join(who) { todo[AT(who)] = TO_JOIN }
inline do_join_behind(who) { todo[AT(who)] = TO_JOIN_BEHIND }
inline fulfil(who) {
	if
	:: todo[AT(who)] == TO_PLAIN -> be_plain(who)
	:: todo[AT(who)] == TO_DROP -> be_dropped(who)
	:: todo[AT(who)] == TO_JOIN -> be_joined(who, false)
	:: todo[AT(who)] == TO_JOIN_BEHIND -> be_joined(who, true)
	:: else -> skip
	fi;
	todo[AT(who)] = NO_MORE
}
inline do_refuse() { refused = true }
/* A ClientHello is a plain beginning to a responder whose stack has no TLS on TCP. */
inline do_stop() { assert(plain_i || (greeted && !tls_above)); over = true; ends = true; net = net | REFUSAL }
inline do_fail() { assert(EXCUSED || intruder || peer != ACCEPTS) }

inline place_now() { place = PLACE_PARKED; held = newcomer }
inline happen() {
	before = held;
	if
#ifdef MISTAKE_2
	:: event == MET_SYN && place == PLACE_ABSENT -> serve(newcomer); place_now()
#endif
#ifdef MISTAKE_7
	:: event == MET_PREFACE && place == PLACE_ABSENT -> seen[AT(newcomer)] = true; serve(newcomer)
#endif
#ifdef MISTAKE_8
	:: event == MET_SYN && newcomer == STRANGER && place == PLACE_SILENT -> do_plain(held); held = newcomer
#endif
#ifdef MISTAKE_12
	:: (event == MET_END || event == MET_EXPIRE) && place == PLACE_SPOKEN -> do_plain(held); held = NOBODY; place = PLACE_ABSENT
#endif
#ifdef MISTAKE_13
	:: event == MET_SAYS_PLAIN && place == PLACE_SILENT -> do_plain(held); held = NOBODY; do_stop(); place = PLACE_SPENT
#endif
	:: else -> place_receive()
	fi;
	fulfil(OWN);
	fulfil(STRANGER);
	/* Nobody from elsewhere takes the place of the peer's own. */
	assert(!(before == OWN && held == STRANGER && served[1] == UNDECIDED));
	before = NOBODY
}

#define ACCORD (peer != LEGACY)
#ifdef MISTAKE_6
#define MARKS heard
#else
#define MARKS (heard && remembers)
#endif
bool option_seen, syn_seen;

/* The proposal's ClientHello is known from its answer on, for as long as anybody waits for a connection. */
#ifdef MISTAKE_10
#define HELLO_KNOWN false
#else
#define HELLO_KNOWN (known && peer == ACCEPTS && tls_above && place != PLACE_ABSENT && place != PLACE_PARKED)
#endif

/* The first bytes of a connection, or a SYN that names the transaction, or nothing yet. */
inline look(who) {
	seen[AT(who)] = true;
	if
	:: spare == who -> spare = NOBODY
	:: else -> skip
	fi;
	if
	:: said[AT(who)] == BY_HELLO && !HELLO_KNOWN -> hello_served = true
	:: else -> skip
	fi;
	if
	:: held == who && said[AT(who)] == BY_PREFACE -> event = MET_SAYS_PREFACE
	:: held == who && said[AT(who)] == BY_HELLO && HELLO_KNOWN -> event = MET_SAYS_HELLO
	:: held == who && said[AT(who)] == BY_RECORD -> event = MET_SAYS_RECORD
	:: held == who && said[AT(who)] == BY_END -> event = MET_SAYS_END
	:: held == who && (said[AT(who)] == BY_PLAIN || (said[AT(who)] == BY_HELLO && !HELLO_KNOWN)) -> event = MET_SAYS_PLAIN
	:: held != who && said[AT(who)] == BY_PREFACE -> event = MET_PREFACE; newcomer = who
	:: held != who && said[AT(who)] == BY_HELLO && HELLO_KNOWN -> event = MET_HELLO; newcomer = who
	:: held != who && said[AT(who)] == BY_RECORD && (who == STRANGER || names_it) -> be_dropped(who)
	:: else -> serve(who)
	fi
}

proctype Responder() {
end:
	do
	:: atomic {
		net & PROPOSAL ->
		take(PROPOSAL); heard = ACCORD;
		if
		:: peer == ACCEPTS && !known && !challenged -> challenged = true        /* and nothing is kept of it */
		:: ACCORD && peer != HUNG && !known ->
			known = true; answers = 1;
			if
			:: peer == REFUSES -> over = true; net = net | REFUSAL
			:: peer == OTHER_STACK -> net = net | ANSWER
#ifndef MISTAKE_11
			:: peer == ACCEPTS && hello_served -> over = true; net = net | REFUSAL
			:: peer == ACCEPTS && !hello_served -> event = MET_EXPECT; goto handle
#else
			:: peer == ACCEPTS -> event = MET_EXPECT; goto handle
#endif
			fi
		:: else -> skip
		fi
	   }
	:: atomic {
		net & COMMIT ->
		take(COMMIT);
		if
		:: known && !over && !claimed ->
			claimed = true;
			assert(committed_i);
#ifdef WITNESS_4
			assert(accepted[1]);
#endif
			if
			:: peer == ACCEPTS -> event = (behind_i -> MET_COMMIT_BEHIND : MET_COMMIT_FIRST); goto handle
			:: else -> skip
			fi
		:: else -> skip
		fi
	   }
	:: atomic {
		net & GIVE_UP ->
		take(GIVE_UP);
		if
		:: known && !over && !claimed -> over = true; ends = true
		:: else -> skip
		fi
	   }
	:: atomic { ends -> ends = false; event = MET_END; goto handle }
	:: atomic {
		known && negotiating && !claimed && !(net & (ANSWER | REFUSAL)) && MAY_SEND(answers) ->
		COUNT(answers); net = net | (over -> REFUSAL : ANSWER)
	   }
	/* The kernel: the first SYN that arrives makes the connection, a later one only repeats the answer to it. */
	:: atomic {
		net & (SYN | SYN_AGAIN) ->
		option_seen = (syn_seen -> option_seen : (net & SYN) && !strips_option);
		syn_seen = true;
		take(SYN | SYN_AGAIN);
		net = net | (ACCORD && option_seen && MARKS -> SYN_ACK_MARKED : SYN_ACK)
	   }
	:: atomic {
		ACCORD && !accepted[1] && syn_seen && (connection != NOTHING || said[1] != SILENT) && connection != OPENING ->
		accepted[1] = true;
		if
		:: option_seen && remembers -> names_it = true; event = MET_SYN; newcomer = OWN; goto handle
		:: else -> skip
		fi
	   }
	:: atomic {
		intruder && ACCORD && !accepted[2] ->
		accepted[2] = true;
		if
		:: event = MET_SYN; newcomer = STRANGER; goto handle
		:: skip
		fi
	   }
	:: atomic {
		accepted[2] && said[2] == SILENT && served[2] == UNDECIDED ->
		if
		:: said[2] = BY_PREFACE
		:: said[2] = BY_PLAIN
#ifdef EVERY_TROUBLE
		:: said[2] = BY_RECORD
		:: said[2] = BY_HELLO           /* which was seen in the proposal */
#endif
		fi
	   }
	:: atomic { accepted[1] && said[1] != SILENT && !seen[1] && served[1] == UNDECIDED -> look(OWN); goto handle }
	:: atomic { accepted[2] && said[2] != SILENT && !seen[2] && served[2] == UNDECIDED -> look(STRANGER); goto handle }
	/* Its lifetime, and that of a place after the commit. */
	:: atomic { known && !over && !claimed && (early || timeout) -> over = true; ends = true }
	:: atomic { claimed && place != PLACE_ABSENT && place != PLACE_PARKED && (early || (timeout && OVER)) -> event = MET_EXPIRE; goto handle }
	od;
	atomic {
		skip;
handle:		happen();
		if
		:: event == MET_EXPECT && refused -> over = true; net = net | REFUSAL
		:: event == MET_EXPECT && !refused -> net = net | ANSWER
		:: (event == MET_COMMIT_FIRST || event == MET_COMMIT_BEHIND) && refused ->
			assert(EXCUSED);                /* an honest commit in time is taken, whatever a stranger says */
			over = true; net = net | REFUSAL
		:: else -> skip
		fi;
		event = 0; newcomer = NOBODY; refused = false;
		goto end
	}
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
		:: net & COMMIT -> take(COMMIT)
		:: net & GIVE_UP -> take(GIVE_UP)
		:: net & (SYN | SYN_AGAIN) -> take(SYN | SYN_AGAIN)
		:: net & (SYN_ACK | SYN_ACK_MARKED) -> take(SYN_ACK | SYN_ACK_MARKED)
		fi
#ifndef LIVENESS
		; losses++
#endif
	   }
#ifndef LIVENESS
	:: atomic { duplicates < DUPLICATES && proposals > 0 && !(net & PROPOSAL) -> net = net | PROPOSAL; duplicates++ }
	:: atomic { duplicates < DUPLICATES && committed_i && !(net & COMMIT) -> net = net | COMMIT; duplicates++ }
#endif
	od
}

proctype Clock() {
end:
	do
	:: atomic { (early || timeout) && !expired && !OVER && (negotiating || connection == OPENING) -> expired = true }
	od
}

/* Where nothing is left to be done, both ends take the connection for the same. */
proctype Judge() {
	atomic {
		timeout && OVER && (place == PLACE_ABSENT || place == PLACE_PARKED) ->
		assert(EXCUSED || intruder || !ACCORD || race != RACE_NEGOTIATED || peer != ACCEPTS || served[1] == JOINED);
		assert(EXCUSED || intruder || !ACCORD || race != RACE_FELL_BACK || served[1] == PLAIN)
	}
}

#ifdef EVERY_TROUBLE
#define ALSO true
#define ALWAYS true
#define TOUCHED true
#else
#define ALWAYS false
#define TOUCHED (peer == ACCEPTS || (peer == HUNG && fallback == PARALLEL))
#define ALSO !(intruder || strips_option || strips_mark)
#endif

init {
	atomic {
#if defined(LIVENESS) && !defined(EVERY_TROUBLE)
		if :: peer = ACCEPTS :: peer = REFUSES :: peer = HUNG fi;
		if :: fallback = PARALLEL :: fallback = DELAYED :: fallback = NEVER fi;
		if :: bare = true :: skip fi;
		tls_above = true; trusts_mark = true; remembers = true; made = true;
#else
		if :: peer = HUNG :: peer = ACCEPTS :: peer = OTHER_STACK :: peer = REFUSES :: peer = LEGACY fi;
		if :: fallback = PARALLEL :: fallback = DELAYED :: fallback = NEVER fi;
		if :: bare = true :: skip fi;
		if :: tls_above = true :: peer == ACCEPTS -> skip fi;
		if :: fallback == PARALLEL -> patient = true :: skip fi;
		trusts_mark = true;
		if :: fallback == PARALLEL && !patient -> trusts_mark = false :: skip fi;
		remembers = true;
		if
		:: peer == ACCEPTS && (tls_above || ALWAYS) -> intruder = true
		:: TOUCHED -> strips_option = true
		:: TOUCHED -> strips_mark = true
		:: skip
		fi;
		made = true;
		if :: ALSO && peer == ACCEPTS && fallback == PARALLEL && !patient && !bare -> made = false :: skip fi;
		if
		:: ALSO && peer == ACCEPTS -> remembers = false
		:: ALSO && TOUCHED -> early = true
		:: skip
		fi;
#endif
#ifdef LIVENESS
		early = true;
#endif
		run Initiator(); run Responder(); run Network(); run Clock(); run Judge()
	}
}

#ifdef LIVENESS
ltl ends { <> OVER }
#endif
