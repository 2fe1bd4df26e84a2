/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Our option among those of a SYN (RFC 9293 section 3.1, RFC 6994): docs/PROTOCOL.md, section 10.
 *
 * Two ways to the same answer. Where the header is as long as that of a Linux SYN, with or without our option behind
 * its own, some words are compared. Else the options are walked, each of the 40 bytes being looked at once: a loop of
 * fixed length with no offset that has to be proven, and none that ends after some options and so misses ours.
 */
#ifndef ACCORD_EBPF_PARSING_TCP_H
#define ACCORD_EBPF_PARSING_TCP_H

#include <linux/bpf.h>
#include <linux/tcp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "accord/wire.h"
#include "consts.h"
#include "heard.h"

/* For walk_options, which keeps its own state here as well. */
struct tcp_options {
	__u8 bytes[TCP_OPTIONS_BYTES + 4]; /* zeros behind length */
	__u32 length;
	/* In memory that the verifier does not follow, each value stands for all others: it takes every branch of a
	 * round once. In registers it would try the combinations of where options may begin and ours be, to no end. */
	volatile __u32 next;
	volatile int found;
};

/* The option as it is on the wire: kind, length, ExID, transaction ID. */
struct syn_option {
	__u8 kind;
	__u8 length;
	__be16 exid;
	struct heard_id id;
};

enum {
	OPTION_NONE = -1,
	OPTION_BAD = -2,
	/* tcp_options_write() of Linux: MSS; SACK permitted, timestamps; NOP, window scale; then those of BPF. */
	LINUX_OPTIONS_BYTES = 20,
	LINUX_AND_OURS_BYTES = LINUX_OPTIONS_BYTES + ACCORD_TCP_OPTION_BYTES,
};

static __always_inline int is_our_exid(__be16 exid)
{
	return exid == bpf_htons(ACCORD_TCP_OPTION_EXID) || exid == bpf_htons(ACCORD_TCP_OPTION_EXID_ADOPT);
}

/* options: LINUX_OPTIONS_BYTES of them, those of a whole Linux SYN. */
static __always_inline int is_linux_syn(const __be32 *options)
{
	return (options[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0x02040000) && options[1] == bpf_htonl(0x0402080a) &&
	       (options[4] & bpf_htonl(0xffffff00)) == bpf_htonl(0x01030300);
}

/* Is that our option, and nothing but? */
static __always_inline int is_option(const __be32 *option)
{
	return (option[0] & bpf_htonl(0xffff0000)) ==
	           bpf_htonl((__u32)ACCORD_TCP_OPTION_KIND << 24 | ACCORD_TCP_OPTION_BYTES << 16) &&
	       is_our_exid(((const __be16 *)option)[1]);
}

/*
 * Where our option begins; OPTION_NONE. OPTION_BAD: the list does not parse to its end, or has two of ours, of which
 * no sender means the second. An option of our kind and ExID with another length is another protocol's: RFC 6994
 * has 32-bit ExIDs that begin like ours. Global, so that the verifier takes the options for memory of unknown contents.
 */
__attribute__((noinline)) int walk_options(struct tcp_options *options)
{
	if (!options)
		return OPTION_BAD;
	options->next = 0;
	options->found = OPTION_NONE;
	for (__u32 at = 0; at < TCP_OPTIONS_BYTES && at < options->length; at++) {
		__u32 kind = options->bytes[at], length;

		if (at != options->next)
			continue;
		if (kind == TCP_OPTION_END)
			break;
		options->next = at + 1;
		if (kind == TCP_OPTION_NOP)
			continue;
		length = options->bytes[at + 1];
		if (length < 2 || at + length > options->length)
			return OPTION_BAD;
		options->next = at + length;
		if (kind != ACCORD_TCP_OPTION_KIND || length != ACCORD_TCP_OPTION_BYTES)
			continue;
		if (!is_our_exid(bpf_htons(options->bytes[at + 2] << 8 | options->bytes[at + 3])))
			continue;
		if (options->found != OPTION_NONE)
			return OPTION_BAD;
		options->found = at;
	}
	return options->found;
}

/*
 * Returns ACCORD_REASON_OK with the option, or the reason why there is none: NOT_OURS_PROTOCOL, BAD_TCP_OPTION. tcp: a
 * header whose data offset lies within the frame and is large enough for the option.
 */
static __always_inline __u32 parse_option(struct xdp_md *context, const struct tcphdr *tcp, struct syn_option *option)
{
	const void *first = tcp + 1, *end = (const void *)(long)context->data_end;
	__u32 offset = first - (const void *)(long)context->data;
	struct tcp_options options = {.length = tcp->doff * 4 - sizeof(*tcp)};
	int at;

	/* What nearly every SYN of others is that has room for our option. */
	if (options.length == LINUX_OPTIONS_BYTES && first + LINUX_OPTIONS_BYTES <= end && is_linux_syn(first))
		return ACCORD_REASON_NOT_OURS_PROTOCOL;
	if (options.length == LINUX_AND_OURS_BYTES && first + LINUX_AND_OURS_BYTES <= end && is_linux_syn(first) &&
	    is_option(first + LINUX_OPTIONS_BYTES)) {
		at = LINUX_OPTIONS_BYTES;
	} else {
		/* For the verifier; a data offset has no room for more. */
		if (options.length < ACCORD_TCP_OPTION_BYTES || options.length > TCP_OPTIONS_BYTES)
			return ACCORD_REASON_NOT_OURS_PROTOCOL;
		if (bpf_xdp_load_bytes(context, offset, options.bytes, options.length))
			return ACCORD_REASON_BAD_TCP_OPTION;
		at = walk_options(&options);
	}
	if (at == OPTION_NONE)
		return ACCORD_REASON_NOT_OURS_PROTOCOL;
	if (at < 0 || bpf_xdp_load_bytes(context, offset + at, option, sizeof(*option)))
		return ACCORD_REASON_BAD_TCP_OPTION;
	return ACCORD_REASON_OK;
}

#endif
