/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Writes the transaction ID on SYNs of the daemon's own sockets, one by one as it asks for them, and marks SYN-ACKs
 * of its listeners (docs/PROTOCOL.md, section 10).
 *
 * It runs for every TCP socket of its cgroup. Sockets of others cost one comparison where a connection begins and
 * one where it is established; no flag is set on them, so their segments cost nothing. Flags that are set on ours
 * are cleared as soon as the option is written, or the connection established. The program always returns 1 and
 * leaves the reply alone: what other programs of the cgroup decide stands.
 */
#include <linux/bpf.h>
#include <linux/errno.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "accord/wire.h"
#include "heard.h"
#include "syns.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum {
	/* <linux/tcp.h> names them as bit fields only (RFC 9293, section 3.1). */
	FLAG_SYN = 0x02,
	FLAG_ACK = 0x10,

	EXID_SEARCH_BYTES = 4, /* bpf_load_hdr_opt: kind, length, ExID */
};

/* RFC 6994, section 3. */
struct option {
	__u8 kind;
	__u8 length;
	__be16 exid;
	__u8 transaction[ACCORD_TRANSACTION_BYTES];
};
_Static_assert(sizeof(struct option) == ACCORD_TCP_OPTION_BYTES, "option");

static __always_inline int handshake_flags(const struct bpf_sock_ops *context)
{
	return context->skb_tcp_flags & (FLAG_SYN | FLAG_ACK);
}

static __always_inline void set_flags(struct bpf_sock_ops *context, __u32 flags)
{
	bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags | flags);
}

static __always_inline void clear_flags(struct bpf_sock_ops *context, __u32 flags)
{
	if (flags)
		bpf_sock_ops_cb_flags_set(context, context->bpf_sock_ops_cb_flags & ~flags);
}

/* Our flags, without those that another program has set before us. */
static __always_inline __u32 write_flag(__u64 state)
{
	return state & ACCORD_SYN_SHARED ? 0 : BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
}

static __always_inline __u32 retrans_flag(__u64 state)
{
	return state & ACCORD_SYN_SHARED_RETRANS ? 0 : BPF_SOCK_OPS_RETRANS_CB_FLAG;
}

/* Into option, if it is whole; negative: there is none. flags: BPF_LOAD_HDR_OPT_TCP_SYN, or 0 for the packet at hand.
 */
static __always_inline long load(struct bpf_sock_ops *context, __u16 exid, struct option *option, __u64 flags)
{
	*option = (struct option){
		.kind = ACCORD_TCP_OPTION_KIND,
		.length = EXID_SEARCH_BYTES,
		.exid = bpf_htons(exid),
	};
	return bpf_load_hdr_opt(context, option, sizeof(*option), flags);
}

/* ---- the initiator's SYN ---- */

static __always_inline void on_connect(struct bpf_sock_ops *context)
{
	__u64 state, then;
	struct accord_syn *syn = find(context, &state);

	/* A second connect() of the same socket is another connection: nobody has asked for that one. */
	if (!syn || state & ACCORD_SYN_CONNECTING)
		return;
	then = state | ACCORD_SYN_CONNECTING | 1 << ACCORD_SYN_SENT_SHIFT;
	if (context->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG)
		then |= ACCORD_SYN_SHARED;
	if (context->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_RETRANS_CB_FLAG)
		then |= ACCORD_SYN_SHARED_RETRANS;
	change(syn, state, then);
	set_flags(context, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG);
}

/*
 * The kernel does not ask when no room at all is left, and another program of the cgroup can refuse the room that
 * was reserved here: the daemon therefore takes "connecting and not written" for "no room".
 */
static __always_inline void reserve_on_syn(struct bpf_sock_ops *context)
{
	struct accord_syn *syn;
	__u64 state;

	/* A simultaneous open sends SYN-ACKs from this side, too. */
	if (handshake_flags(context) != FLAG_SYN)
		return;
	syn = find(context, &state);
	if (!syn || !(state & ACCORD_SYN_CONNECTING))
		return;
	/* A path that drops SYNs with the option costs one retransmission: that one goes without. */
	if (state & ACCORD_SYN_WRITTEN || context->total_retrans ||
	    bpf_reserve_hdr_opt(context, sizeof(struct option), 0)) {
		clear_flags(context, write_flag(state));
		return;
	}
	change(syn, state, state | ACCORD_SYN_RESERVED);
}

static __always_inline void write_on_syn(struct bpf_sock_ops *context)
{
	struct option option = {.kind = ACCORD_TCP_OPTION_KIND, .length = sizeof(option)};
	struct accord_syn *syn;
	__u64 state;

	if (handshake_flags(context) != FLAG_SYN)
		return;
	syn = find(context, &state);
	/* Not reserved: the room is another program's. */
	if (!syn || (state & (ACCORD_SYN_RESERVED | ACCORD_SYN_WRITTEN)) != ACCORD_SYN_RESERVED)
		return;
	option.exid = bpf_htons(state & ACCORD_SYN_ADOPT ? ACCORD_TCP_OPTION_EXID_ADOPT : ACCORD_TCP_OPTION_EXID);
	__builtin_memcpy(option.transaction, syn->transaction, sizeof(option.transaction));
	if (!bpf_store_hdr_opt(context, &option, sizeof(option), 0))
		change(syn, state, state | ACCORD_SYN_WRITTEN);
	clear_flags(context, write_flag(state));
}

static __always_inline void on_retransmission(struct bpf_sock_ops *context)
{
	__u64 state;
	struct accord_syn *syn;

	if (context->args[2]) /* did not leave */
		return;
	syn = find(context, &state);
	if (!syn || (state >> ACCORD_SYN_SENT_SHIFT & ACCORD_SYN_SENT_MOST) == ACCORD_SYN_SENT_MOST)
		return;
	change(syn, state, state + (1 << ACCORD_SYN_SENT_SHIFT));
}

/* ---- the responder's SYN-ACK ---- */

/*
 * The SYN of this request bore ADOPT, and its negotiation packet has been heard. Two options are none.
 */
static __always_inline int wants_mark(struct bpf_sock_ops *context, struct option *option)
{
	struct option other;

	return load(context, ACCORD_TCP_OPTION_EXID_ADOPT, option, BPF_LOAD_HDR_OPT_TCP_SYN) == sizeof(*option) &&
	       heard_lately(option->transaction) &&
	       load(context, ACCORD_TCP_OPTION_EXID, &other, BPF_LOAD_HDR_OPT_TCP_SYN) == -ENOMSG;
}

static __always_inline void on_listen(struct bpf_sock_ops *context)
{
	struct bpf_sock *sock = context->sk;
	struct accord_listener *listener = sock ? bpf_sk_storage_get(&listeners, sock, NULL, 0) : NULL;

	if (!listener)
		return;
	listener->shared = !!(context->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	set_flags(context, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

/* ---- both ---- */

static __always_inline void on_length(struct bpf_sock_ops *context)
{
	struct option option;

	/* The kernel only reckons its segment size; or it answers with a SYN cookie, from whose connection it will not
	 * know the SYN any more: then a mark would promise what cannot be kept. */
	if (context->args[0])
		return;
	if (context->is_fullsock)
		reserve_on_syn(context);
	else if (handshake_flags(context) == (FLAG_SYN | FLAG_ACK) && wants_mark(context, &option))
		bpf_reserve_hdr_opt(context, sizeof(option), 0);
}

static __always_inline void on_write(struct bpf_sock_ops *context)
{
	struct option option;

	if (context->args[0])
		return;
	if (context->is_fullsock)
		write_on_syn(context);
	else if (handshake_flags(context) == (FLAG_SYN | FLAG_ACK) && wants_mark(context, &option))
		bpf_store_hdr_opt(context, &option, sizeof(option), 0);
}

/* Both are aligned to their words; the compiler knows no memcmp that it could inline. */
static __always_inline int is_same(const __u8 *one, const __u8 *other)
{
	const __u32 *a = (const void *)one, *b = (const void *)other;

	return !((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]));
}

static __always_inline int is_marked(struct bpf_sock_ops *context, const struct accord_syn *syn)
{
	struct option option;

	return load(context, ACCORD_TCP_OPTION_EXID_ADOPT, &option, 0) == sizeof(option) &&
	       is_same(option.transaction, syn->transaction);
}

/* Of a socket that called connect(): one that did so at the same time as its peer is established passively. */
static __always_inline void on_connected(struct bpf_sock_ops *context, int by_syn_ack)
{
	struct accord_syn *syn;
	__u64 state;

	if (!(context->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_RETRANS_CB_FLAG))
		return;
	syn = find(context, &state);
	if (!syn || !(state & ACCORD_SYN_CONNECTING))
		return;
	if (by_syn_ack && state & ACCORD_SYN_ADOPT && is_marked(context, syn))
		change(syn, state, state | ACCORD_SYN_MARKED);
	clear_flags(context, write_flag(state) | retrans_flag(state));
}

/* Of a socket that a listener made, whose flags it has inherited. */
static __always_inline void on_accepted(struct bpf_sock_ops *context)
{
	struct accord_listener *listener;
	struct bpf_sock *sock;

	if (!(context->bpf_sock_ops_cb_flags & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG))
		return;
	sock = context->sk;
	listener = sock ? bpf_sk_storage_get(&listeners, sock, NULL, 0) : NULL;
	if (!listener)
		return;
	if (!listener->shared)
		clear_flags(context, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
	bpf_sk_storage_delete(&listeners, sock);
}

SEC("sockops")
int accord_sockops(struct bpf_sock_ops *context)
{
	switch (context->op) {
	case BPF_SOCK_OPS_TCP_CONNECT_CB:
		on_connect(context);
		break;
	case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
		on_length(context);
		break;
	case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
		on_write(context);
		break;
	case BPF_SOCK_OPS_RETRANS_CB:
		on_retransmission(context);
		break;
	case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
		on_connected(context, 1);
		break;
	case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
		on_accepted(context);
		on_connected(context, 0);
		break;
	case BPF_SOCK_OPS_TCP_LISTEN_CB:
		on_listen(context);
		break;
	default:
		break;
	}
	return 1;
}
