/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An association that goes over from its stack to the next while data flows (PROTOCOL.md, section 16): begun by either end,
 * negotiated, greeted, moved; the next stack may break at any moment, with all that is on it, a commit may never arrive, a
 * hello be waited for in vain, a notice get lost. Each end is the code's own table (renegotiation_table.pmh). Data is a number
 * of units in each direction; a stack carries them in order, then the end of the direction.
 *
 * MISTAKE_1 the initiator says hello, and moves, before it has heard the responder's
 * MISTAKE_2 a responder that has not heard whether the initiator moved takes the old stack's end for the data's
 * MISTAKE_3 a responder that is in doubt does
 * MISTAKE_4 the responder moves before it has heard the initiator's hello
 * MISTAKE_5 an end that has moved goes on over the old stack when the next one breaks
 * MISTAKE_6 the old stack is not read to its end before the next one is
 * MISTAKE_7 the end of the next stack is followed as if it were the old one's
 * MISTAKE_8 the initiator closes although a change is being negotiated
 * MISTAKE_9 the responder goes on over the old stack when the next one breaks, and is not in doubt
 * MISTAKE_10 (liveness) a responder in doubt waits for word without end
 * MISTAKE_11 a notice that a change is off does not say which
 *
 * LARGE DATA=2 ATTEMPTS=3
 *
 * WITNESS_1 both directions go over, and all that was sent has come
 * WITNESS_2 a change is called off and the next one is made
 * WITNESS_3 the responder is in doubt, and hears that it need not be
 */

#ifndef DATA
#define DATA 1
#endif
#ifndef ATTEMPTS
#define ATTEMPTS 2
#endif

#include "renegotiation_table.pmh"

#define I 0
#define R 1
#define OTHER(side) (1 - side)
#define NO_COUNT 9

mtype initiator_end = END_STEADY, responder_end = END_STEADY, todo;
mtype held = END_BROKEN;                /* the state in which the responder was told to hold an end back; BROKEN: none */

byte sent[2], received[2], count[2] = NO_COUNT;
bool moving[2], finished[2], saw_end[2], broken[2], writes_next[2], reads_next[2];
byte old_pipe[2], next_pipe[2];         /* by who writes */
bool old_ended[2], next_ended[2], hello[2], said[2];
bool up[2], alive, wish, closed, excused;
byte attempts, change, off;             /* the latest change here, at the responder; the one that a notice says is off */

/* Of the negotiation: nothing, proposed, begun by the responder, committed by the initiator, by both. */
mtype = { NOTHING, PROPOSED, BEGUN, COMMITTED, BOTH };
mtype negotiation = NOTHING;

#define STATE(side) (side == I -> initiator_end : responder_end)
#define DONE(side) (saw_end[side] || broken[side] || (side == I && closed))
#define SETTLED(side) (STATE(side) == END_STEADY || STATE(side) == END_BROKEN || STATE(side) == END_DOUBTFUL)

inline break_off(side) {
	assert(excused);                        /* nothing that is whole is called broken */
	broken[side] = true;
	if
	:: side == I -> initiator_end = END_BROKEN
	:: else -> responder_end = END_BROKEN
	fi
}
inline whole(side) {
	saw_end[side] = true;
	assert(finished[OTHER(side)] && received[side] == sent[OTHER(side)])    /* no end is taken for the end of the data */
}
inline lose_next() {
	alive = false; up[I] = false; up[R] = false;
	hello[I] = false; hello[R] = false; said[I] = false; said[R] = false;
	count[I] = NO_COUNT; count[R] = NO_COUNT;
	next_pipe[I] = 0; next_pipe[R] = 0; next_ended[I] = false; next_ended[R] = false
}
inline move(side) {
	old_ended[side] = true; moving[side] = true     /* and nothing is written until the count is */
}
inline resume(side) {
	if
	:: writes_next[side] && reads_next[side] ->
		if
		:: side == I -> initiator_take(HAS_RESUMED)
		:: else -> responder_take(HAS_RESUMED)
		fi
	:: else -> skip
	fi
}
inline follow(side) {
	assert(excused || count[OTHER(side)] == received[side]);
	if
	:: count[OTHER(side)] == received[side] -> reads_next[side] = true; count[OTHER(side)] = NO_COUNT; resume(side)
	:: else -> break_off(side)
	fi
}
/* What both ends do with data. */
#define MAY_WRITE(side) (!moving[side] && !finished[side] && !broken[side] && !(side == I && closed) && sent[side] < DATA)
#define AT_OLD_END(side) (!reads_next[side] && old_pipe[OTHER(side)] == 0 && old_ended[OTHER(side)] && !DONE(side))

proctype End(byte side) {
end:
	do
	:: atomic {
		MAY_WRITE(side) ->
		sent[side]++;
		if
		:: !writes_next[side] -> old_pipe[side]++
		:: writes_next[side] && alive -> next_pipe[side]++
		:: else -> skip
		fi
	   }
	:: atomic {
		!moving[side] && !finished[side] && !broken[side] ->
		finished[side] = true;
		if
		:: writes_next[side] -> next_ended[side] = alive
		:: else -> old_ended[side] = true
		fi
	   }
	:: atomic {
		moving[side] && alive ->
		moving[side] = false; writes_next[side] = true; count[side] = sent[side];
		if
		:: finished[side] -> next_ended[side] = true
		:: else -> skip
		fi;
		resume(side)
	   }
	:: atomic { !reads_next[side] && old_pipe[OTHER(side)] > 0 && !DONE(side) -> old_pipe[OTHER(side)]--; received[side]++ }
	:: atomic {
		reads_next[side] && alive && next_pipe[OTHER(side)] > 0 && !DONE(side) ->
		next_pipe[OTHER(side)]--; received[side]++
	   }
	/* Nobody reads any more: the count is looked at all the same. */
	:: atomic { saw_end[side] && STATE(side) == END_MOVED && !reads_next[side] && count[OTHER(side)] != NO_COUNT -> follow(side) }
	:: atomic { reads_next[side] && STATE(side) == END_STEADY && !alive && !DONE(side) -> break_off(side) }
	:: atomic {
		reads_next[side] && alive && next_pipe[OTHER(side)] == 0 && next_ended[OTHER(side)] && !DONE(side) ->
#ifdef MISTAKE_7
		if
		:: STATE(side) == END_MOVED -> break_off(side)
		:: else -> whole(side)
		fi
#else
		whole(side)
#endif
#ifdef WITNESS_1
		; assert(!saw_end[OTHER(side)])
#endif
	   }
	od
}

proctype Initiator() {
end:
	do
	:: atomic {
		initiator_end == END_STEADY && attempts < ATTEMPTS && !writes_next[I] && !moving[I] && !closed && negotiation == NOTHING ->
		initiator_take(HAS_BEGIN); attempts++; wish = false; negotiation = PROPOSED
#ifdef WITNESS_2
		; assert(attempts < 2 || !excused)
#endif
	   }
	:: atomic { negotiation == BEGUN -> negotiation = COMMITTED; up[I] = true; alive = true; initiator_take(HAS_UP);
		if
		:: todo == DO_DROP -> lose_next()
		:: else -> skip
		fi
	   }
#ifdef MISTAKE_1
	:: atomic { initiator_end == END_GREETING && alive && !said[I] ->
#else
	:: atomic { initiator_end == END_GREETING && alive && hello[R] ->
#endif
		hello[R] = false; initiator_take(HAS_GREETED);
		assert(todo == DO_SAY_HELLO_AND_MOVE);
		hello[I] = true; said[I] = true; move(I)
	   }
	/* The hello does not come, or the next stack broke. */
	:: atomic {
		initiator_end == END_GREETING && (!alive || attempts == 1) ->
		initiator_take(HAS_FAILED);
		assert(todo == DO_CALL_OFF);
		excused = true; lose_next(); off = attempts
	   }
	:: atomic {
		initiator_end == END_MOVED && !alive ->
#ifdef MISTAKE_5
		initiator_end = END_STEADY; writes_next[I] = false
#else
		initiator_take(HAS_FAILED); break_off(I)
#endif
	   }
	:: atomic {
#ifdef MISTAKE_6
		(AT_OLD_END(I) || (initiator_end == END_MOVED && !reads_next[I] && !DONE(I))) &&
#else
		AT_OLD_END(I) &&
#endif
		(initiator_end != END_MOVED || count[R] != NO_COUNT) ->
		initiator_take(HAS_END);
		if
		:: todo == DO_END -> whole(I)
		:: todo == DO_FOLLOW -> follow(I)
		:: else -> skip
		fi
	   }
	/* The program has said all and reads no more. */
	:: atomic {
		finished[I] && !closed && !broken[I] &&
#ifdef MISTAKE_8
		(initiator_end == END_STEADY || initiator_end == END_NEGOTIATING) ->
#else
		initiator_end == END_STEADY ->
#endif
		initiator_take(HAS_LOST); closed = true
	   }
	od
}

proctype Responder() {
end:
	do
	:: atomic { responder_end == END_STEADY && !wish && attempts == 0 -> wish = true }
	:: atomic {
		negotiation == PROPOSED ->
		responder_take(HAS_BEGIN);
		if
		:: todo == DO_BEGIN -> negotiation = BEGUN; change = attempts
		:: todo == DO_DROP_AND_BEGIN -> negotiation = BEGUN; change = attempts; lose_next()
		:: else -> negotiation = NOTHING; initiator_take(HAS_FAILED)
		fi
	   }
	:: atomic {
		negotiation == COMMITTED ->
		negotiation = NOTHING; responder_take(HAS_UP);
		assert(todo == DO_SAY_HELLO);
		up[R] = true; said[R] = alive; hello[R] = alive
#ifdef MISTAKE_4
		; if
		:: alive -> responder_take(HAS_GREETED); move(R)
		:: else -> skip
		fi
#endif
	   }
	:: atomic { responder_end == END_GREETING && alive && hello[I] -> hello[I] = false; responder_take(HAS_GREETED); move(R) }
	:: atomic {
		responder_end == END_GREETING && !alive ->
#ifdef MISTAKE_9
		responder_end = END_STEADY
#else
		responder_take(HAS_FAILED)
#endif
	   }
	:: atomic { responder_end == END_MOVED && !alive -> responder_take(HAS_FAILED); break_off(R) }
	:: atomic {
		off != 0 ->
#ifdef WITNESS_3
		assert(responder_end != END_DOUBTFUL || off != change);
#endif
		if
#ifndef MISTAKE_11
		:: off != change -> skip
#endif
		:: else -> responder_take(HAS_OFF)
		fi;
		off = 0
	   }
	:: atomic {
#ifdef MISTAKE_6
		(AT_OLD_END(R) || (responder_end == END_MOVED && !reads_next[R] && !DONE(R))) &&
#else
		AT_OLD_END(R) &&
#endif
		(responder_end != END_MOVED || count[I] != NO_COUNT) && held != responder_end ->
		responder_take(HAS_END);
		if
		:: todo == DO_END -> whole(R)
		:: todo == DO_FOLLOW -> follow(R)
		:: todo == DO_HOLD ->
#ifdef MISTAKE_2
			if :: responder_end == END_GREETING -> whole(R) :: else -> skip fi;
#endif
#ifdef MISTAKE_3
			if :: responder_end == END_DOUBTFUL -> whole(R) :: else -> skip fi;
#endif
			held = responder_end
		:: else -> skip
		fi
	   }
	:: atomic { held != responder_end && held != END_BROKEN -> held = END_BROKEN }
#ifndef MISTAKE_10
	/* Long enough in doubt. */
	:: atomic { held == END_DOUBTFUL && responder_end == END_DOUBTFUL && off == 0 && !DONE(R) -> break_off(R) }
#endif
	od
}

/* Stacks break, commits and notices are lost. */
proctype World() {
end:
	do
	:: atomic { alive && !excused -> excused = true; lose_next() }
	:: atomic { negotiation == BEGUN -> negotiation = NOTHING; initiator_take(HAS_FAILED); responder_take(HAS_FAILED) }
	:: atomic { negotiation == COMMITTED -> excused = true; negotiation = NOTHING; lose_next(); responder_take(HAS_FAILED) }
	:: atomic { off != 0 -> off = 0; excused = true }
	od
}

proctype Judge() {
	atomic {
		timeout ->
#ifdef LIVENESS
		false;
#endif
		assert(DONE(I) && DONE(R));
		assert(SETTLED(I) && SETTLED(R))
	}
}

init {
	atomic { run End(I); run End(R); run Initiator(); run Responder(); run World(); run Judge() }
}

#ifdef LIVENESS
ltl ends { <> (DONE(1) && (DONE(0))) }
#endif
