/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * State changes, retransmissions and resets of negotiated TCP connections, from the kernel's tracepoints.
 *
 * A connection that was installed without a SYN is told by its socket being in repair mode (TCP_REPAIR) at the moment
 * it is established; from then on its socket is known here. REPAIR_BYTE, REPAIR_MASK, SOCK_NET and NET_INUM are where
 * the running kernel keeps tcp_sock.repair, sock.__sk_common.skc_net.net and net.ns.inum, by its own type information.
 */

/* Numbers that the kernel does not change. Its network headers would take seconds to compile. */
enum { FAMILY_IPV6 = 10, PROTOCOL_TCP = 6, TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_CLOSE = 7 };

enum what { STATE = 1, RETRANSMITTED, RESET_SENT, RESET_RECEIVED };

struct known {
	u64 since_ns;
	u32 namespace;
	u16 family, local_port, remote_port;
	u8 closed, negotiated;
	u8 local[16], remote[16];
};

struct event {
	u64 at_ns, since_ns, socket;
	u32 namespace;
	u16 family, local_port, remote_port;
	u8 what, negotiated, before, after;
	u8 local[16], remote[16];
};

/* Key: the socket's address. A reset may still leave when it is closed; its next use begins anew. */
BPF_TABLE("lru_hash", u64, struct known, connections, 65536);
BPF_PERF_OUTPUT(events);

static u32 namespace_of(const void *socket)
{
	const void *net = NULL;
	u32 number = 0;

	bpf_probe_read_kernel(&net, sizeof(net), socket + SOCK_NET);
	bpf_probe_read_kernel(&number, sizeof(number), net + NET_INUM);
	return number;
}

static int is_negotiated(const void *socket)
{
	u8 byte = 0;

	bpf_probe_read_kernel(&byte, sizeof(byte), socket + REPAIR_BYTE);
	return !!(byte & REPAIR_MASK);
}

static void tell(void *ctx, u64 socket, const struct known *known, u8 what, u8 before, u8 after)
{
	struct event event = {
		.at_ns = bpf_ktime_get_boot_ns(),
		.since_ns = known->since_ns,
		.socket = socket,
		.namespace = known->namespace,
		.family = known->family,
		.local_port = known->local_port,
		.remote_port = known->remote_port,
		.what = what,
		.negotiated = known->negotiated,
		.before = before,
		.after = after,
	};

	__builtin_memcpy(event.local, known->local, sizeof(event.local));
	__builtin_memcpy(event.remote, known->remote, sizeof(event.remote));
	events.perf_submit(ctx, &event, sizeof(event));
}

TRACEPOINT_PROBE(sock, inet_sock_set_state)
{
	u64 socket = (u64)args->skaddr;
	struct known fresh = {}, *known = connections.lookup(&socket);

	if (args->protocol != PROTOCOL_TCP)
		return 0;
	if (known && known->closed) {
		connections.delete(&socket);
		known = NULL;
	}
	if (!known) {
		/* A negotiated one is established from SYN_SENT in repair mode; others are of interest with ALL alone,
		 * and then from their first change on. */
		fresh.negotiated = args->oldstate == TCP_SYN_SENT && args->newstate == TCP_ESTABLISHED &&
		                   is_negotiated((const void *)socket);
#ifndef ALL
		/* By a socket of SCRATCH_PORT the daemon learns what the route is like; it connects nothing. */
		if (!fresh.negotiated || args->dport == SCRATCH_PORT)
			return 0;
#endif
		fresh.namespace = namespace_of((const void *)socket);
#ifdef NAMESPACE
		if (fresh.namespace != NAMESPACE)
			return 0;
#endif
		fresh.since_ns = bpf_ktime_get_boot_ns();
		fresh.family = args->family;
		if (args->family == FAMILY_IPV6) {
			bpf_probe_read_kernel(fresh.local, 16, (void *)args->saddr_v6);
			bpf_probe_read_kernel(fresh.remote, 16, (void *)args->daddr_v6);
		} else {
			bpf_probe_read_kernel(fresh.local, 4, (void *)args->saddr);
			bpf_probe_read_kernel(fresh.remote, 4, (void *)args->daddr);
		}
		connections.update(&socket, &fresh);
		known = connections.lookup(&socket);
		if (!known)
			return 0;
	}
	if (args->oldstate == TCP_SYN_SENT && args->newstate == TCP_ESTABLISHED)
		known->negotiated = is_negotiated((const void *)socket);
	/* Known late: a socket has its ports once it is connected. */
	known->local_port = args->sport;
	known->remote_port = args->dport;
	tell(args, socket, known, STATE, args->oldstate, args->newstate);
	known->closed = args->newstate == TCP_CLOSE;
	return 0;
}

static void about(void *ctx, const void *address, u8 what)
{
	u64 socket = (u64)address;
	const struct known *known = connections.lookup(&socket);

	if (known)
		tell(ctx, socket, known, what, 0, 0);
}

TRACEPOINT_PROBE(tcp, tcp_retransmit_skb)
{
	about(args, args->skaddr, RETRANSMITTED);
	return 0;
}

TRACEPOINT_PROBE(tcp, tcp_receive_reset)
{
	about(args, args->skaddr, RESET_RECEIVED);
	return 0;
}

/* Its record has types that not every kernel's headers know; what is read of it has not moved since 4.16. */
struct send_reset {
	u64 common;
	const void *skb;
	const void *socket;
};

int send_reset(struct send_reset *args)
{
	about(args, args->socket, RESET_SENT);
	return 0;
}
