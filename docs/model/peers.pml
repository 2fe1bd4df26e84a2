/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peer to peer (HotNets 2009, section 2.3; PROTOCOL.md, section 17; negotiation/meeting.py): two hosts propose to each
 * other, at once or one after the other.
 *
 * - Whoever is going to propose answers nobody before it has: until then a proposal to it is lost, as nobody listens. A
 *   host that does not propose answers, as ever.
 * - Proposals cross when one arrives at a host with one of its own in flight. Both together say, by a symmetric function
 *   that looks at nothing else, which host leads (`LEADS`), and which stack it is: of those that both offer the one with
 *   the best sum of preferences, the lower number among equals (`best`).
 * - Who does not lead lets its own proposal go as one to be answered, but repeats it until the leader has it (`HEARD`, in
 *   the code PEER_PROPOSED); and answers the leader's, saying in the answer that it crossed. So T(1) covers both proposals.
 * - Who leads does not answer the other's proposal. It takes an answer that says "crossed" once it has the other's
 *   proposal, checks the choice over both, and commits. From there it is the three-step exchange.
 * - Whatever was sent before the other's proposal came may have met a closed door: it is sent again then.
 *
 * Two equal identities refuse each other: one chance in 2^128, left out. So are several paths between the two.
 *
 * MISTAKE_1 the tie is broken by arrival order: whoever hears a proposal yields
 * MISTAKE_2 nobody yields: each leads its own
 * MISTAKE_3 one's own preferences count twice
 * MISTAKE_4 a host that is going to propose answers before, and proposes all the same
 * MISTAKE_5 a proposal that yielded is not repeated
 * MISTAKE_6 the leader takes an answer without the other proposal at hand
 * MISTAKE_7 a repeated proposal of a negotiation that is over begins another one
 * MISTAKE_8 a commit is not repeated
 * MISTAKE_9 (liveness) who has yielded waits for the leader for ever
 * MISTAKE_10 what was sent to nobody is not sent again when the other's proposal comes
 *
 * LARGE LOSSES=2 DUPLICATES=1 EVERY_TROUBLE
 *
 * WITNESS_1 proposals cross and both commit
 * WITNESS_2 only one side proposes and both commit
 * WITNESS_3 a crossed answer arrives before the proposal that it speaks of
 * WITNESS_4 there is no common stack and both know
 */

#ifndef LOSSES
#define LOSSES 1
#endif
#ifndef DUPLICATES
#define DUPLICATES 0
#endif
#define SENDS (LOSSES + 1)

/* Of each host's messages, one bit each: from host h, shifted by 8 h. */
#define PROPOSAL 1
#define ANSWER 2
#define CROSSED 4               /* an answer, and the sender's own proposal is part of T(1) */
#define COMMIT 8
#define ABORT 16
#define ACK 32                  /* of a commit */
#define HEARD 64                /* acknowledgement of a proposal that leads to no answer */
#define BIT(who, message) (who == 0 -> message : message << 8)

mtype = { IDLE, PROPOSED, HOLDING, ANSWERED, COMMITTED, DONE, ABORTED };
#define NONE 3

mtype state[2] = IDLE;
byte leader;                    /* whose transaction ID is lower */
byte likes[2];                  /* preferences: 0: only stack 0; 1: only 1; 2: both, rather 0; 3: both, rather 1 */
bool wants[2], may_die[2], dead[2], early, given_up;
bool has[2];                    /* the other's proposal */
bool yielded[2], told[2];       /* its own proposal is not to be answered any more; the leader has it all the same */
byte stack[2] = NONE, sends[2], own_sends[2], commits;
short net;
byte losses, duplicates;

#define OTHER (1 - me)
#define OFFERS(who, which) (likes[who] == which || likes[who] >= 2)
#define LIKES(who, which) (likes[who] == which + 2 -> 2 : 1)
#define OVER(who) (state[who] == DONE || state[who] == ABORTED || dead[who] || (state[who] == IDLE && !wants[who]))
#ifdef MISTAKE_3
#define WEIGHT 3
#else
#define WEIGHT 1
#endif
#ifdef MISTAKE_1
#define LEADS false
#else
#ifdef MISTAKE_2
#define LEADS true
#else
#define LEADS (leader == me)
#endif
#endif
#ifdef MISTAKE_4
#define PROPOSES_TOO wants[me]
#define MAY_PROPOSE (state[me] == IDLE || state[me] == ANSWERED)
#else
#define PROPOSES_TOO false
#define MAY_PROPOSE (state[me] == IDLE)
#endif
#ifdef MISTAKE_5
#define REPEATS_OWN (state[me] == PROPOSED)
#else
#define REPEATS_OWN (state[me] == PROPOSED || (yielded[me] && !told[me]))
#endif
#ifdef MISTAKE_6
#define NEEDS_BOTH false
#else
#define NEEDS_BOTH true
#endif
#ifdef MISTAKE_7
#define FRESH (state[me] == IDLE || OVER(me))
#else
#ifdef MISTAKE_4
#define FRESH (state[me] == IDLE)
#else
#define FRESH (state[me] == IDLE && !wants[me])
#endif
#endif
#ifdef MISTAKE_10
#define REOPENS false
#else
#define REOPENS true
#endif
#ifdef MISTAKE_8
#define REPEATS_COMMIT false
#else
#define REPEATS_COMMIT (state[me] == COMMITTED)
#endif
#ifdef LIVENESS
#define MAY_SEND(count) true
#define COUNT(count) skip
#define MAY_LOSE true
#else
#define MAY_SEND(count) (count < SENDS)
#define COUNT(count) count++
#define MAY_LOSE (losses < LOSSES)
#endif

inline say(message) { net = net | BIT(me, message) }
inline take(message) { net = net & ~BIT(OTHER, message) }
inline drop(message) { net = net & ~(message | message << 8) }

/* The function of both proposals. It must not matter who computes it. */
inline best(found) {
	if
	:: !(OFFERS(0, 0) && OFFERS(1, 0)) && !(OFFERS(0, 1) && OFFERS(1, 1)) -> found = NONE
	:: (OFFERS(0, 0) && OFFERS(1, 0)) && !(OFFERS(0, 1) && OFFERS(1, 1)) -> found = 0
	:: !(OFFERS(0, 0) && OFFERS(1, 0)) && (OFFERS(0, 1) && OFFERS(1, 1)) -> found = 1
	:: else ->
		found = (WEIGHT * LIKES(me, 0) + LIKES(OTHER, 0) >= WEIGHT * LIKES(me, 1) + LIKES(OTHER, 1) -> 0 : 1)
	fi
}
inline answer(how) {
	best(stack[me]);
	if
	:: stack[me] == NONE ->
#ifdef WITNESS_4
		assert(state[OTHER] != ABORTED || how != CROSSED);
#endif
		say(ABORT); state[me] = ABORTED
	:: else -> say(how); state[me] = ANSWERED; sends[me] = 1
	fi
}

inline accept() {
	best(wanted);
	if
	:: wanted == stack[OTHER] -> stack[me] = wanted; state[me] = COMMITTED; sends[me] = 1; say(COMMIT)
	:: else -> say(ABORT); state[me] = ABORTED          /* the answer is not what both proposals say */
	fi;
	wanted = 0
}

proctype Host(byte me) {
	byte wanted;
	bool crossed;
end:
	do
	:: atomic {
		wants[me] && !dead[me] && MAY_PROPOSE ->
		wants[me] = false; crossed = false; state[me] = PROPOSED; own_sends[me] = 1; say(PROPOSAL)
	   }
	:: atomic {
		!dead[me] && net & BIT(OTHER, PROPOSAL) ->
		take(PROPOSAL);
		if
		:: !has[me] && REOPENS && state[me] == PROPOSED -> own_sends[me] = 0
		:: else -> skip
		fi;
		has[me] = state[me] != IDLE || FRESH;
		if
		:: state[me] == IDLE && !FRESH -> skip          /* nobody listens */
		:: FRESH -> wants[me] = PROPOSES_TOO; answer(ANSWER)
		:: state[me] == PROPOSED && !LEADS -> yielded[me] = true; crossed = true; answer(CROSSED)
		:: state[me] == PROPOSED && LEADS ->
			say(HEARD)
#ifdef MISTAKE_2
			; answer(ANSWER)
#endif
		:: state[me] == HOLDING -> say(HEARD); accept()         /* the answer that was held */
		:: else -> say(HEARD)
		fi
	   }
	:: atomic { !dead[me] && net & BIT(OTHER, HEARD) -> take(HEARD); told[me] = true }
	:: atomic {
		!dead[me] && net & BIT(OTHER, ANSWER) ->
		take(ANSWER);
		if
		:: state[me] == PROPOSED ->
			assert(!has[me]);                       /* who proposes answers by both, or not at all */
			accept()
		:: else -> skip
		fi
	   }
	:: atomic {
		!dead[me] && net & BIT(OTHER, CROSSED) ->
		take(CROSSED);
		if
		:: state[me] == PROPOSED && !has[me] && NEEDS_BOTH ->
#ifdef WITNESS_3
			assert(false);
#endif
			state[me] = HOLDING
		:: state[me] == PROPOSED && (has[me] || !NEEDS_BOTH) ->
			assert(has[me]);                        /* T(1) covers both: nobody commits to what it has not seen */
			accept()
		:: else -> skip
		fi
	   }
	:: atomic {
		!dead[me] && net & BIT(OTHER, COMMIT) ->
		take(COMMIT); say(ACK);
		if
		:: state[me] == ANSWERED ->
			assert(state[OTHER] == COMMITTED || state[OTHER] == DONE || dead[OTHER]);
			assert(stack[me] == stack[OTHER]);
#ifdef WITNESS_1
			assert(!crossed);
#endif
#ifdef WITNESS_2
			assert(crossed);
#endif
			commits++;
			assert(commits == 1);                   /* one stack between the two */
			state[me] = DONE
		:: else -> skip
		fi
	   }
	:: atomic {
		!dead[me] && net & BIT(OTHER, ACK) ->
		take(ACK);
		if
		:: state[me] == COMMITTED -> state[me] = DONE
		:: else -> skip
		fi
	   }
	:: atomic {
		!dead[me] && net & BIT(OTHER, ABORT) ->
		take(ABORT);
		if
		:: state[me] == PROPOSED || state[me] == HOLDING || state[me] == ANSWERED -> state[me] = ABORTED
		:: else -> skip
		fi
	   }
	:: atomic {
		!dead[me] && REPEATS_OWN && !(net & BIT(me, PROPOSAL)) && MAY_SEND(own_sends[me]) ->
		say(PROPOSAL); COUNT(own_sends[me])
	   }
	:: atomic {
		!dead[me] && state[me] == ANSWERED && !(net & (BIT(me, ANSWER) | BIT(me, CROSSED))) && MAY_SEND(sends[me]) ->
		if
		:: crossed -> say(CROSSED)
		:: else -> say(ANSWER)
		fi;
		COUNT(sends[me])
	   }
	:: atomic {
		!dead[me] && REPEATS_COMMIT && !(net & (BIT(me, COMMIT) | BIT(OTHER, ACK))) && MAY_SEND(sends[me]) ->
		say(COMMIT); COUNT(sends[me])
	   }
	od
}
proctype Network() {
end:
	do
	:: atomic {
		MAY_LOSE && net != 0 ->
		if
		:: net & PROPOSAL -> net = net & ~PROPOSAL
		:: net & PROPOSAL << 8 -> net = net & ~(PROPOSAL << 8)
		:: net & (ANSWER | CROSSED) -> net = net & ~(ANSWER | CROSSED)
		:: net & (ANSWER | CROSSED) << 8 -> net = net & ~((ANSWER | CROSSED) << 8)
		:: net & (COMMIT | COMMIT << 8) -> drop(COMMIT)
		:: net & (ABORT | ABORT << 8) -> drop(ABORT)
		:: net & (ACK | ACK << 8) -> drop(ACK)
		:: net & (HEARD | HEARD << 8) -> drop(HEARD)
		fi
#ifndef LIVENESS
		; losses++
#endif
	   }
#ifndef LIVENESS
	:: atomic { duplicates < DUPLICATES && own_sends[0] > 0 && !(net & PROPOSAL) -> net = net | PROPOSAL; duplicates++ }
	:: atomic { duplicates < DUPLICATES && commits > 0 && state[0] == DONE && stack[0] != NONE && !(net & COMMIT << 8) && leader == 1 -> net = net | COMMIT << 8; duplicates++ }
#endif
	od
}

#ifdef MISTAKE_9
#define EXPIRES(who) !yielded[who]
#else
#define EXPIRES(who) true
#endif

inline expire(who) {
	given_up = given_up || early;
	state[who] = (state[who] == COMMITTED -> DONE : ABORTED)
}

proctype Clock() {
end:
	do
	:: atomic {
		(early || timeout) && !OVER(0) && state[0] != IDLE && EXPIRES(0) -> expire(0)
	   }
	:: atomic {
		(early || timeout) && !OVER(1) && state[1] != IDLE && EXPIRES(1) -> expire(1)
	   }
	:: atomic { may_die[0] && state[0] != IDLE && !OVER(0) -> may_die[0] = false; dead[0] = true }
	od
}
#define COMMON ((OFFERS(0, 0) && OFFERS(1, 0)) || (OFFERS(0, 1) && OFFERS(1, 1)))

/* Whatever the order: the same stack at both ends, if there is one; else both ends know that there is none. */
proctype Judge() {
	atomic {
		timeout && OVER(0) && OVER(1) ->
		assert(dead[0] || given_up || (state[0] == DONE && state[1] == DONE && stack[0] == stack[1]) ||
		       (state[0] != DONE && state[1] != DONE));
		assert(dead[0] || given_up || !COMMON || state[0] == IDLE || state[0] == DONE)
	}
}

init {
	atomic {
		if :: leader = 0 :: leader = 1 fi;
#ifndef EVERY_TROUBLE
#ifdef LIVENESS
		likes[0] = 2;
#else
		if :: likes[0] = 0 :: likes[0] = 2 fi;
#endif
		if :: likes[1] = 1 :: likes[1] = 3 fi;
#else
		if :: likes[0] = 0 :: likes[0] = 2 :: likes[0] = 3 fi;
		if :: likes[1] = 0 :: likes[1] = 1 :: likes[1] = 2 :: likes[1] = 3 fi;
#endif
		wants[0] = true;
		if :: wants[1] = true :: skip fi;
		if :: may_die[0] = true :: early = true :: skip fi;
#ifdef LIVENESS
		early = true;
#endif
		run Host(0); run Host(1); run Network(); run Clock(); run Judge()
	}
}

#ifdef LIVENESS
ltl ends { <> [] (OVER(0) && OVER(1)) }
#endif
