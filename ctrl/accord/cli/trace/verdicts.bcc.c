/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * What becomes of a frame after the program's verdict: the XDP program cannot know that the ring it redirected to was
 * full, the kernel's tracepoints can. The verdicts themselves come from the program, into the rings of the tracer.
 */

struct failure {
	u64 at_ns;
	u32 interface;
	s32 error; /* 0: the verdict itself was invalid, or a transmission failed */
	u32 action;
	u32 queue;
};

BPF_HASH(programs, u32, u8, 64);
BPF_PERF_OUTPUT(failures);

static int watched(u32 program)
{
	return programs.lookup(&program) != NULL;
}

static int tell_redirect(void *ctx, u32 program, u32 interface, s32 error, u32 action, u32 queue)
{
	struct failure failure = {
		.at_ns = bpf_ktime_get_boot_ns(),
		.interface = interface,
		.error = error,
		.action = action,
		.queue = queue,
	};

	if (watched(program))
		failures.perf_submit(ctx, &failure, sizeof(failure));
	return 0;
}

TRACEPOINT_PROBE(xdp, xdp_redirect_err)
{
	return tell_redirect(args, args->prog_id, args->ifindex, args->err, args->act, args->map_index);
}

TRACEPOINT_PROBE(xdp, xdp_exception)
{
	return tell_redirect(args, args->prog_id, args->ifindex, 0, args->act, 0);
}
