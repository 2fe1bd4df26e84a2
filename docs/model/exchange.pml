/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three-step exchange (PROTOCOL.md, sections 2, 4, 7 and 8): proposal, answer, commit, aborts, over a channel that
 * loses, duplicates and reorders; either side may crash, the responder may come back without its memory, somebody on the
 * path may change one message. Which handler a state has for an event is read from the code (exchange_table.pmh); what
 * the handlers do is written here.
 *
 * A message in flight is one bit of `net`: the order is whatever is taken first. A lost message is sent again as long as
 * SENDS allows. T(1) is what it covers: the offer that the responder saw, the stack, and the cookie, of which there is
 * one to each life of the responder.
 *
 * MISTAKE_1 a commit is sent once and never again
 * MISTAKE_2 the initiator commits before it has checked the MAC of the answer
 * MISTAKE_3 T(1) does not cover the cookie
 * MISTAKE_4 a repeated proposal of a negotiation that is over begins another one
 * MISTAKE_5 a responder that comes back after a crash uses its old cookie
 * MISTAKE_6 the initiator believes the choice of the responder without making its own
 * MISTAKE_7 the responder commits with its answer
 * MISTAKE_8 a refused commit is met with silence
 * MISTAKE_9 the responder does not check the MAC of the commit
 * MISTAKE_10 (liveness) the responder waits for the commit for ever
 * MISTAKE_11 the initiator hears no abort once it has committed
 * MISTAKE_12 the answer is sent once and never again
 *
 * LARGE LOSSES=2 DUPLICATES=1 EVERY_TROUBLE
 *
 * WITNESS_1 both sides commit to the best stack
 * WITNESS_2 the initiator commits and the responder refuses
 * WITNESS_3 the responder is restarted between two proposals and both sides still commit
 */

#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef DUPLICATES
#define DUPLICATES 1
#endif
#define SENDS (LOSSES + 1)

#include "exchange_table.pmh"

/* Stacks, weaker first. */
#define NONE 0
#define BARE 1
#define SECURE 2
#define BEST 3

/* Messages, one bit each. The answers and aborts of a responder's two lives are different ones. */
#define PROPOSAL 1
#define ANSWER_0 2
#define ANSWER_1 4
#define COMMIT 8
#define ACK_COMMIT 16
#define ABORT_BY_I 32
#define ABORT_BY_R 64
#define ACK_ABORT 128
#define ACK_ANSWER 256
#define ACK_ABORT_I 512

mtype = { UNTOUCHED, STRIP_PROPOSAL, WEAKEN_ANSWER, CHANGE_COMMIT, BLIND_COMMIT };

mtype initiator = I_READY, responder = R_COLLECTING;
mtype attack;
bool crash_i, crash_r, early, may_stop, dead_i, revived;
bool requires_i, requires_r;    /* security */
byte supports;                  /* the best stack that the responder has */
bool refuses;                   /* a session of the responder's cannot commit */

short net;
byte losses, duplicates;

/* Either side's transport: what of it is not acknowledged, and how often it was sent. */
short out_i, out_r;
byte sends_i, sends_r;

/* What each side believes, and what really happened. */
byte stack_i, life_i, stack_r, offer_r, life;
bool mac_good, known;
bool committed_i, given_up, stopped, touched, commit_changed, reached[2];
byte commits_r;

#define OVER_I (initiator == I_CONFIRMED || initiator == I_ABORTED || dead_i)
#define OVER_R (!known || responder == R_COMMITTED || responder == R_ABORTED)
#define ANSWER (life == 0 -> ANSWER_0 : ANSWER_1)

/* Liveness: losses without end, and repetitions without end; only a lifetime ends that. */
#ifdef LIVENESS
#define UNBOUNDED
#endif
#ifdef UNBOUNDED
#define MAY_SEND(count) true
#define COUNT(count) skip
#else
#define MAY_SEND(count) (count < SENDS)
#define COUNT(count) count++
#endif

#ifdef MISTAKE_1
#define AGAIN_I (out_i != COMMIT)
#else
#define AGAIN_I true
#endif
#ifdef MISTAKE_4
#define OPENS_ANEW (responder == R_ABORTED || responder == R_COMMITTED)
#else
#define OPENS_ANEW false
#endif
#ifdef MISTAKE_11
#define HEARS_ABORT (!committed_i)
#else
#define HEARS_ABORT true
#endif
#ifdef MISTAKE_12
#define AGAIN_R (out_r != ANSWER_0 && out_r != ANSWER_1)
#else
#define AGAIN_R true
#endif

inline say_i(message) { out_i = message; sends_i = 1; net = net | message }
inline say_r(message) { out_r = message; sends_r = 1; net = net | message }
inline take(message) { net = net & ~(message) }

/* ---- the initiator's handlers ---- */

mtype event;                    /* of the handler that runs */
bool abort_i;                   /* the message is an abort */
byte offered_i, cookie_i;       /* what the answer is about */

inline initiator_collect() { skip }
inline initiator_failed() { initiator = I_ABORTED; out_i = 0 }
inline initiator_tell() {
	if
	:: initiator == I_PROPOSED || initiator == I_ADVANCING -> say_i(ABORT_BY_I)
	:: else -> out_i = 0
	fi;
	initiator = I_ABORTED
}
inline initiator_stop() { initiator_tell() }
inline initiator_confirm() { initiator = I_CONFIRMED; out_i = 0 }
inline initiator_unconfirmed() { initiator = I_CONFIRMED; out_i = 0 }
inline initiator_finish() {
	if
#ifndef MISTAKE_2
	:: stack_i >= SECURE && !mac_good -> initiator_tell()
	:: else ->
#else
	:: true ->
#endif
		assert(!(requires_i && stack_i == BARE));               /* never bare under required */
		assert(stack_i == BARE || mac_good);                    /* nobody tilts a choice that is authenticated */
		initiator = I_COMMITTED;
		committed_i = true;
		say_i(COMMIT)
	fi
}
inline initiator_resume() {
	if
	:: initiator == I_PROPOSING -> initiator = I_PROPOSED; say_i(PROPOSAL)
	:: initiator == I_ADVANCING -> initiator_finish()
	fi
}
inline initiator_message() {
	if
	:: abort_i && HEARS_ABORT -> initiator = I_ABORTED; out_i = 0
	:: !abort_i && initiator == I_PROPOSED ->
		stack_i = offered_i;
		life_i = cookie_i;
		if
#ifndef MISTAKE_6
		:: requires_i && stack_i == BARE -> initiator_tell()
#endif
		:: else -> initiator = I_ADVANCING
		fi
	:: else -> skip
	fi
}

byte stack_of[2], offer_of[2];

/* What the initiator hears of an answer. The one on the path can put any stack into it, but no MAC. */
inline hear() {
	offered_i = stack_of[cookie_i];
	if
	:: attack == WEAKEN_ANSWER && !touched && initiator == I_PROPOSED && offered_i > BARE ->
		touched = true; mac_good = false;
		if
		:: offered_i = BARE
		:: offered_i == BEST -> offered_i = SECURE
		fi
	:: initiator == I_PROPOSED -> mac_good = (offer_of[cookie_i] == BEST)
	:: else -> skip
	fi
}

proctype Initiator() {
	initiator = I_PROPOSING;
end:
	do
	:: atomic { !dead_i && (initiator == I_PROPOSING || initiator == I_ADVANCING) -> event = ON_RESUME; goto handle }
	:: atomic { !dead_i && may_stop && initiator == I_PROPOSED -> may_stop = false; stopped = true; event = ON_STOP; goto handle }
	:: atomic {
		!dead_i && net & ANSWER_0 ->
		take(ANSWER_0); net = net | ACK_ANSWER; reached[0] = true;
		cookie_i = 0; hear(); event = ON_MESSAGE_COMPLETE; goto handle
	   }
	:: atomic {
		!dead_i && net & ANSWER_1 ->
		take(ANSWER_1); net = net | ACK_ANSWER; reached[1] = true;
		cookie_i = 1; hear(); event = ON_MESSAGE_COMPLETE; goto handle
	   }
	:: atomic {
		!dead_i && net & ABORT_BY_R ->
		take(ABORT_BY_R); net = net | ACK_ABORT;
		abort_i = true; event = ON_MESSAGE_COMPLETE; goto handle
	   }
	:: atomic {
		!dead_i && net & ACK_COMMIT ->
		take(ACK_COMMIT);
		event = (out_i == COMMIT -> ON_MESSAGE_ARRIVED : 0); goto handle
	   }
	:: atomic { !dead_i && net & ACK_ABORT_I -> take(ACK_ABORT_I); out_i = (out_i == ABORT_BY_I -> 0 : out_i) }
	:: atomic {
		!dead_i && out_i != 0 && !(net & out_i) && MAY_SEND(sends_i) && AGAIN_I ->
		net = net | out_i; COUNT(sends_i)
	   }
	od;
	atomic {
		skip;		/* an atomic sequence may be jumped into, but not to its beginning */
handle:		initiator_receive();
		event = 0; offered_i = 0; cookie_i = 0; abort_i = false;
		goto end
	}
}

/* ---- the responder's handlers ---- */

mtype = { IS_PROPOSAL, IS_COMMIT, IS_ABORT };
mtype what;
bool blind, changed;

inline witness_1() {
#ifdef WITNESS_1
	assert(stack_r != BEST)
#else
	skip
#endif
}
inline witness_3() {
#ifdef WITNESS_3
	assert(life == 0)
#else
	skip
#endif
}
inline responder_collect() { skip }
inline responder_failed() { responder = R_ABORTED; out_r = 0 }
inline responder_stop() { responder_failed() }
inline responder_tell() { responder = R_ABORTED; say_r(ABORT_BY_R) }
inline responder_commit() {
	responder = R_COMMITTED;
	out_r = 0;
	commits_r++;
	assert(commits_r == 1);                                         /* once, whatever is repeated or replayed */
	assert(committed_i);                                            /* nothing that the initiator did not commit to */
	assert(stack_r == BARE || (stack_i == stack_r && life_i == life && offer_r == BEST && !commit_changed));
	assert(attack != UNTOUCHED || (stack_i == stack_r && life_i == life));
	assert(!(requires_r && stack_r == BARE));
	witness_1(); witness_3()
}
inline responder_resume() {
	if
	:: responder == R_CHOOSING ->
		stack_r = (offer_r < supports -> offer_r : supports);
		if
		:: requires_r && stack_r == BARE -> responder_tell()
		:: else ->
			responder = R_ANSWERED;
			stack_of[life] = stack_r; offer_of[life] = offer_r;
#ifdef MISTAKE_7
			responder_commit();
#endif
			say_r(ANSWER)
		fi
	:: responder == R_ADVANCING ->
		if
		:: !refuses -> responder_commit()
		:: else ->
#ifdef WITNESS_2
			assert(initiator != I_CONFIRMED);
#endif
#ifdef MISTAKE_8
			responder_failed()
#else
			responder_tell()
#endif
		fi
	fi
}
inline responder_message() {
	if
	:: what == IS_ABORT -> responder = R_ABORTED; out_r = 0
	:: what == IS_PROPOSAL && responder == R_COLLECTING -> responder = R_CHOOSING
	:: what == IS_COMMIT && responder == R_ANSWERED ->
		out_r = 0;
		if
#ifndef MISTAKE_3
		:: blind || life_i != life || (stack_i != stack_r) -> responder = R_ABORTED    /* T(1): silence */
#else
		:: !blind && stack_i != stack_r -> responder = R_ABORTED
#endif
		:: else ->
			assert(reached[life]);                          /* the address is proven: it received the answer */
			if
#ifndef MISTAKE_9
			:: changed && stack_r >= SECURE -> responder_tell()
#endif
			:: else -> responder = R_ADVANCING
			fi
		fi
	:: else -> skip
	fi
}

proctype Responder() {
end:
	do
	:: atomic {
		net & PROPOSAL ->
		take(PROPOSAL);
		if
		:: !known || OPENS_ANEW ->
			known = true; responder = R_COLLECTING; offer_r = BEST;
			if
			:: attack == STRIP_PROPOSAL && !touched ->
				touched = true;
				if
				:: offer_r = BARE
				:: offer_r = SECURE
				fi
			:: else -> skip
			fi
		:: else -> skip
		fi;
		what = IS_PROPOSAL; event = ON_MESSAGE_COMPLETE; goto handle
	   }
	:: atomic {
		net & COMMIT && known ->
		take(COMMIT); net = net | ACK_COMMIT;
		if
		:: attack == CHANGE_COMMIT && !touched -> touched = true; changed = true; commit_changed = true
		:: else -> skip
		fi;
		what = IS_COMMIT; event = ON_MESSAGE_COMPLETE; goto handle
	   }
	:: atomic {
		attack == BLIND_COMMIT && !touched && known && responder == R_ANSWERED ->
		touched = true; blind = true;
		what = IS_COMMIT; event = ON_MESSAGE_COMPLETE; goto handle
	   }
	:: atomic {
		net & ABORT_BY_I && known ->
		take(ABORT_BY_I); net = net | ACK_ABORT_I;
		what = IS_ABORT; event = ON_MESSAGE_COMPLETE; goto handle
	   }
	:: atomic { net & (COMMIT | ABORT_BY_I) && !known -> take(COMMIT | ABORT_BY_I) }        /* UNKNOWN_TRANSACTION */
	:: atomic {
		net & ACK_ANSWER ->
		take(ACK_ANSWER); out_r = (out_r == ANSWER_0 || out_r == ANSWER_1 -> 0 : out_r)
	   }
	:: atomic { net & ACK_ABORT -> take(ACK_ABORT); out_r = (out_r == ABORT_BY_R -> 0 : out_r) }
	:: atomic {
		known && (responder == R_CHOOSING || responder == R_ADVANCING) ->
		event = ON_RESUME; goto handle
	   }
	:: atomic {
		out_r != 0 && !(net & out_r) && MAY_SEND(sends_r) && AGAIN_R ->
		net = net | out_r; COUNT(sends_r)
	   }
	od;
	atomic {
		skip;		/* an atomic sequence may be jumped into, but not to its beginning */
handle:		responder_receive();
		event = 0; blind = false; changed = false; what = 0;
		goto end
	}
}

/* ---- the world ---- */

#ifdef UNBOUNDED
#define MAY_LOSE true
#define MAY_DUPLICATE false
#else
#define MAY_LOSE (losses < LOSSES)
#define MAY_DUPLICATE (duplicates < DUPLICATES)
#endif

proctype Network() {
end:
	do
	:: atomic {
		MAY_LOSE && net != 0 ->
		if
		:: net & PROPOSAL -> take(PROPOSAL) :: net & ANSWER_0 -> take(ANSWER_0)
		:: net & ANSWER_1 -> take(ANSWER_1) :: net & COMMIT -> take(COMMIT)
		:: net & ACK_COMMIT -> take(ACK_COMMIT) :: net & ABORT_BY_I -> take(ABORT_BY_I)
		:: net & ABORT_BY_R -> take(ABORT_BY_R) :: net & ACK_ABORT -> take(ACK_ABORT)
		:: net & ACK_ANSWER -> take(ACK_ANSWER) :: net & ACK_ABORT_I -> take(ACK_ABORT_I)
		fi
#ifndef UNBOUNDED
		; losses++
#endif
	   }
	:: atomic {
		/* A copy that comes late: of a proposal, or of a commit. */
		MAY_DUPLICATE && initiator != I_READY && initiator != I_PROPOSING && !(net & PROPOSAL) ->
		net = net | PROPOSAL; duplicates++
	   }
	:: atomic { MAY_DUPLICATE && committed_i && !(net & COMMIT) -> net = net | COMMIT; duplicates++ }
	od
}

proctype Crashes() {
end:
	do
	:: atomic { crash_i && !OVER_I -> crash_i = false; dead_i = true; out_i = 0 }
	:: atomic {
		crash_r && known ->
		crash_r = false; revived = true; known = false; responder = R_COLLECTING; out_r = 0; stack_r = 0; offer_r = 0;
#ifdef MISTAKE_5
		life = life
#else
		life = 1
#endif
	   }
	od
}

inline expire_i() {
	if
	:: initiator == I_COMMITTED -> initiator_unconfirmed()
	:: else -> initiator_failed()
	fi;
	event = 0
}

/* Lifetimes. On a good day they are over when nothing else can happen any more; on a bad one (`early`), at any time. */
proctype Clock() {
end:
	do
	:: atomic {
		(early || timeout) && !OVER_I && initiator != I_READY && initiator != I_PROPOSING ->
		given_up = given_up || early; event = ON_FAILED; expire_i()
	   }
#ifndef MISTAKE_10
	:: atomic { (early || timeout) && !OVER_R -> given_up = given_up || early; responder_failed() }
#endif
	od
}
/* Where everything has ended and nobody gave up early, both sides have the same stack or none; and they have one where
 * there is one and nobody interferes. Without security nothing is claimed against somebody on the path. */
#define EXCUSED (dead_i || revived || given_up)
#define CHOOSABLE (!refuses && !(supports == BARE && (requires_i || requires_r)))

proctype Judge() {
	atomic {
		timeout && OVER_I && OVER_R ->
		assert(EXCUSED || (touched && (stack_i == BARE || attack == BLIND_COMMIT)) ||
		       (initiator == I_CONFIRMED) == (known && responder == R_COMMITTED));
		assert(EXCUSED || touched || stopped || !CHOOSABLE || initiator == I_CONFIRMED)
	}
}

#ifdef EVERY_TROUBLE
#define ALSO true
#else
#define ALSO (attack == UNTOUCHED)
#endif
#if defined(UNBOUNDED) && !defined(EVERY_TROUBLE)
#define ATTACKED false
#else
#define ATTACKED true
#endif

init {
	atomic {
#if defined(LIVENESS) && !defined(EVERY_TROUBLE)
		supports = BEST;
#else
		if :: requires_i = true :: skip fi;
		if :: requires_r = true :: skip fi;
		if :: supports = BARE :: supports = BEST fi;
#endif
		if :: refuses = true :: skip fi;
		/* One trouble beside those of the channel; EVERY_TROUBLE: one on the path and one at an end. */
		attack = UNTOUCHED;
		if
		:: ATTACKED -> attack = STRIP_PROPOSAL
		:: ATTACKED -> attack = WEAKEN_ANSWER
		:: ATTACKED -> attack = CHANGE_COMMIT
		:: ATTACKED -> attack = BLIND_COMMIT
		:: skip
		fi;
		if
		:: ALSO -> crash_i = true
		:: ALSO -> crash_r = true
		:: ALSO -> may_stop = true
		:: ALSO -> early = true
		:: skip
		fi;
#ifdef UNBOUNDED
		early = true;
#endif
		run Initiator(); run Responder(); run Network(); run Crashes(); run Clock(); run Judge()
	}
}

#ifdef LIVENESS
ltl ends { <> [] (OVER_I && OVER_R) }
#endif
