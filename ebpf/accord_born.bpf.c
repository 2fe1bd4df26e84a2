/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * TC ingress: a negotiated TCP connection is given to the program that listens on its port (docs/PROTOCOL.md,
 * section 9.2). The daemon has put both sides' numbers into the map "births"; of the connection's first segment, which
 * proves by its acknowledgement that the peer knows ours, the kernel then makes the socket that a handshake would have
 * made, in the listener's own queue.
 *
 * No packet is written to. Whoever is not expected passes, and while nobody is it costs one load; the verdict is always
 * "go on", so that what else is attached to the interface sees the packet, but for two between an expected connection's
 * addresses and ports: a later segment of it, which without a socket would be answered with a reset (it is as lost, and
 * its sender repeats it), and a SYN, to which an established connection would not give way either.
 *
 * Linux 6.9, by its kfunc; the object is not loaded before somebody asks for it.
 */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "accord/births.h"
#include "consts.h"

char _license[] SEC("license") = "Dual BSD/GPL";

enum {
	/* <linux/pkt_cls.h>; the same number as TCX_NEXT of later headers. */
	GO_ON = -1,
	DROP = 2,

	TCP_FLAGS_SEEN = 0x16, /* SYN, RST, ACK */
	TCP_FLAG_OF_ACK = 0x10,
	STATE_LISTEN = 10, /* <linux/tcp.h> has it in user space only */
	NS_IN_MS = 1000000,
};

/* include/net/tcp.h; not in any header that user space is given. The kernel checks its size. */
struct bpf_tcp_req_attrs {
	__u32 rcv_tsval, rcv_tsecr;
	__u16 mss;
	__u8 rcv_wscale, snd_wscale;
	__u8 ecn_ok, wscale_ok, sack_ok, tstamp_ok, usec_ts_ok;
	__u8 reserved[3];
};
_Static_assert(sizeof(struct bpf_tcp_req_attrs) == 20, "attributes");

/* Of whatever contents: that it is a struct is all that libbpf compares, and a declaration alone is none. */
struct sock {
	__u32 contents;
};
extern int bpf_sk_assign_tcp_reqsk(struct __sk_buff *skb, struct sock *sk, struct bpf_tcp_req_attrs *attrs,
                                   int attrs__sz) __ksym;

/* By this the loader knows an object of another layout. */
const volatile __u32 births_layout SEC(".rodata.births") = ACCORD_BIRTHS_LAYOUT;

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, ACCORD_BIRTHS_ENTRIES);
	__type(key, struct accord_birth_key);
	__type(value, struct accord_birth);
} births SEC(".maps");

/* When the last of them is over: until then each segment is looked up. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} latest SEC(".maps");

struct headers {
	struct accord_birth_key key;
	struct bpf_sock_tuple tuple;
	__u32 sequence, acknowledgement;
	__u8 flags; /* TCP_FLAG_OF_ACK or TCP_FLAG_OF_SYN, that alone */
};

static __always_inline int load(struct __sk_buff *skb, __u32 at, void *header, __u32 bytes)
{
	/* From the network header: some interfaces have no other in front of it. */
	return bpf_skb_load_bytes_relative(skb, at, header, bytes, BPF_HDR_START_NET);
}

static __always_inline int load_tcp(struct __sk_buff *skb, __u32 at, struct headers *headers)
{
	struct tcphdr tcp;

	if (load(skb, at, &tcp, sizeof(tcp)))
		return -1;
	headers->flags = ((const __u8 *)&tcp)[TCP_FLAGS_AT] & TCP_FLAGS_SEEN;
	if (headers->flags != TCP_FLAG_OF_ACK && headers->flags != TCP_FLAG_OF_SYN)
		return -1;
	headers->key.local_port = tcp.dest;
	headers->key.remote_port = tcp.source;
	headers->sequence = bpf_ntohl(tcp.seq);
	headers->acknowledgement = bpf_ntohl(tcp.ack_seq);
	return 0;
}

static __always_inline int load_ipv4(struct __sk_buff *skb, struct headers *headers)
{
	struct iphdr ip;

	if (load(skb, 0, &ip, sizeof(ip)) || ip.protocol != PROTOCOL_TCP || ip.ihl < MIN_IHL ||
	    ip.frag_off & bpf_htons(IPV4_FRAGMENTED) || load_tcp(skb, ip.ihl * 4, headers))
		return -1;
	headers->key.family = 4;
	__builtin_memcpy(headers->key.local, &ip.daddr, sizeof(ip.daddr));
	__builtin_memcpy(headers->key.remote, &ip.saddr, sizeof(ip.saddr));
	headers->tuple.ipv4.saddr = ip.saddr;
	headers->tuple.ipv4.daddr = ip.daddr;
	headers->tuple.ipv4.sport = headers->key.remote_port;
	headers->tuple.ipv4.dport = headers->key.local_port;
	return 0;
}

/* No extension headers: no kernel puts any before its TCP, and who does has the answer of a host without Accord. */
static __always_inline int load_ipv6(struct __sk_buff *skb, struct headers *headers)
{
	struct ipv6hdr ip;

	if (load(skb, 0, &ip, sizeof(ip)) || ip.nexthdr != PROTOCOL_TCP || load_tcp(skb, sizeof(ip), headers))
		return -1;
	headers->key.family = 6;
	__builtin_memcpy(headers->key.local, &ip.daddr, sizeof(ip.daddr));
	__builtin_memcpy(headers->key.remote, &ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(headers->tuple.ipv6.saddr, &ip.saddr, sizeof(ip.saddr));
	__builtin_memcpy(headers->tuple.ipv6.daddr, &ip.daddr, sizeof(ip.daddr));
	headers->tuple.ipv6.sport = headers->key.remote_port;
	headers->tuple.ipv6.dport = headers->key.local_port;
	return 0;
}

/*
 * The kernel takes the TSecr that it is told for the clock of this moment. Told what our SYN-ACK said, it would count
 * on from there and time the handshake, which it never saw, as none: so the time since is added, which is the round
 * trip when the peer echoes the SYN-ACK's. TSval 0 says nothing of the peer's clock (RFC 7323, section 5.2 begins with
 * it).
 */
static __always_inline int assign(struct __sk_buff *skb, const struct accord_birth *birth, struct sock *listener)
{
	struct bpf_tcp_req_attrs attrs = {
		.rcv_tsecr = birth->timestamp + (__u32)((bpf_ktime_get_boot_ns() - birth->expected_ns) / NS_IN_MS),
		.mss = birth->mss,
		.rcv_wscale = birth->local_scale,
		.snd_wscale = birth->remote_scale,
		.wscale_ok = birth->scaled,
		.sack_ok = birth->sack,
		.tstamp_ok = birth->timestamps,
	};

	return bpf_sk_assign_tcp_reqsk(skb, listener, &attrs, sizeof(attrs));
}

static __always_inline __u32 bear(struct __sk_buff *skb, const struct accord_birth *birth, struct headers *headers)
{
	__u32 bytes = headers->key.family == 4 ? sizeof(headers->tuple.ipv4) : sizeof(headers->tuple.ipv6);
	struct bpf_sock *found = bpf_skc_lookup_tcp(skb, &headers->tuple, bytes, BPF_F_CURRENT_NETNS, 0);
	__u32 fate = ACCORD_BIRTH_DESERTED;
	struct sock *listener;

	if (!found)
		return fate;
	if (found->state == STATE_LISTEN) {
		listener = (struct sock *)bpf_skc_to_tcp_sock(found);
		fate = listener && !assign(skb, birth, listener) ? ACCORD_BIRTH_BORN : ACCORD_BIRTH_REFUSED;
	}
	bpf_sk_release(found);
	return fate;
}

SEC("tc")
int accord_born(struct __sk_buff *skb)
{
	struct headers headers = {};
	struct accord_birth *birth;
	__u32 zero = 0;
	__u64 *over = bpf_map_lookup_elem(&latest, &zero), now;

	if (!over || !*over)
		return GO_ON;
	now = bpf_ktime_get_boot_ns();
	/* A VLAN's frames come again, on an interface of their own. */
	if (now >= *over || skb->vlan_present)
		return GO_ON;
	if (skb->protocol == bpf_htons(ETH_P_IP)     ? load_ipv4(skb, &headers)
	    : skb->protocol == bpf_htons(ETH_P_IPV6) ? load_ipv6(skb, &headers)
	                                             : -1)
		return GO_ON;
	birth = bpf_map_lookup_elem(&births, &headers.key);
	if (!birth || birth->fate != ACCORD_BIRTH_WAITING || now >= birth->until_ns)
		return GO_ON;
	/* The peer has this port for this connection. Another's SYN, or a guess, would take its place in the kernel. */
	if (headers.flags == TCP_FLAG_OF_SYN)
		return DROP;
	if (headers.acknowledgement != birth->local_isn + 1)
		return GO_ON;
	if (headers.sequence != birth->remote_isn + 1) {
		__sync_fetch_and_add(&birth->early, 1);
		return DROP;
	}
	/* Two processors may have one copy each: the other's then finds the connection. */
	if (__sync_val_compare_and_swap(&birth->fate, ACCORD_BIRTH_WAITING, ACCORD_BIRTH_BORN) == ACCORD_BIRTH_WAITING)
		birth->fate = bear(skb, birth, &headers);
	return GO_ON;
}
