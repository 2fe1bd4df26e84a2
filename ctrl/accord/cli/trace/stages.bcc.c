/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The time between the stages of negotiations, from a uprobe on accord_stage_reached (dataplane_c/src/stage.h).
 * The chain is OPENED, then SENT and WHOLE in turn; acknowledgements are measured from what they acknowledge, and
 * the step of the commit also from OPENED: that is the whole negotiation.
 */
#include <uapi/linux/ptrace.h>

#define TRANSACTION_BYTES 12
#define STEP_COMMIT 2
#define SUB_BITS 2

enum stage { OPENED = 1, SENT, WHOLE, ACKNOWLEDGED, FAILED, CLOSED };

struct who {
	u8 transaction[TRANSACTION_BYTES];
	u32 process;
	u32 role;
};

struct state {
	u64 opened_ns, chain_ns, sent_ns;
	u8 chain_stage, chain_step, sent_step;
	u8 reserved[5];
};

struct interval {
	u8 role, from_stage, from_step, to_stage, to_step, reason;
	u16 slot;
};

struct event {
	u64 at_ns;
	u32 process;
	u8 role, stage, step, reason;
	u8 transaction[TRANSACTION_BYTES];
};

/* The least recently used goes first: a daemon that was killed leaves its own behind. */
BPF_TABLE("lru_hash", struct who, struct state, states, 16384);
BPF_HASH(intervals, struct interval, u64, 8192);
BPF_HASH(sums, struct interval, u64, 512);
BPF_PERF_OUTPUT(events);

/* As slot_of of histogram.py. */
static u16 slot_of(u64 microseconds)
{
	u32 power;

	if (microseconds < 1 << SUB_BITS)
		return microseconds;
	power = bpf_log2l(microseconds) - 1; /* bcc's counts from one */
	return ((power - 1) << SUB_BITS) + (microseconds >> (power - SUB_BITS) & ((1 << SUB_BITS) - 1));
}

static void record(u32 role, u32 from_stage, u32 from_step, u32 to_stage, u32 to_step, u32 reason, u64 nanoseconds)
{
	struct interval key = {
		.role = role,
		.from_stage = from_stage,
		.from_step = from_step,
		.to_stage = to_stage,
		.to_step = to_step,
		.reason = reason,
	};
	u64 *sum, zero = 0;

	sum = sums.lookup_or_try_init(&key, &zero);
	if (sum)
		lock_xadd(sum, nanoseconds);
	key.slot = slot_of(nanoseconds / 1000);
	intervals.increment(key);
}

int stage_reached(struct pt_regs *ctx)
{
	const void *transaction = (const void *)PT_REGS_PARM1(ctx);
	u32 role = PT_REGS_PARM2(ctx), stage = PT_REGS_PARM3(ctx);
	u32 step = PT_REGS_PARM4(ctx), reason = PT_REGS_PARM5(ctx);
	struct who who = {.process = bpf_get_current_pid_tgid() >> 32, .role = role};
	struct state fresh = {}, *state;
	u64 now = bpf_ktime_get_boot_ns();

	if (bpf_probe_read_user(who.transaction, sizeof(who.transaction), transaction))
		return 0;
#ifdef EACH
	struct event event = {
		.at_ns = now,
		.process = who.process,
		.role = role,
		.stage = stage,
		.step = step,
		.reason = reason,
	};

	__builtin_memcpy(event.transaction, who.transaction, sizeof(event.transaction));
	events.perf_submit(ctx, &event, sizeof(event));
#endif
	if (stage == OPENED) {
		fresh.opened_ns = fresh.chain_ns = now;
		fresh.chain_stage = OPENED;
		states.update(&who, &fresh);
		return 0;
	}
	state = states.lookup(&who);
	if (!state) /* began before we did */
		return 0;
	if (stage == CLOSED) {
		states.delete(&who);
		return 0;
	}
	if (stage == ACKNOWLEDGED) {
		if (state->sent_ns && state->sent_step == step)
			record(role, SENT, step, ACKNOWLEDGED, step, 0, now - state->sent_ns);
		return 0;
	}
	record(role, state->chain_stage, state->chain_step, stage, step, reason, now - state->chain_ns);
	if (step == STEP_COMMIT && stage != FAILED)
		record(role, OPENED, 0, stage, step, 0, now - state->opened_ns);
	if (stage == SENT) {
		state->sent_ns = now;
		state->sent_step = step;
	}
	state->chain_ns = now;
	state->chain_stage = stage;
	state->chain_step = step;
	return 0;
}
