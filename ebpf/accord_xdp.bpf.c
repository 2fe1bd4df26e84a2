/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Steers negotiation packets to the AF_XDP socket of their receive queue, answers strangers by cookies while there is a
 * flood of them, and drops a SYN that says by an option that it is superfluous once its negotiation packet is here. All
 * else, and all in doubt, goes to the kernel as if this program were not there: it writes to no packet but what it
 * answers.
 *
 * The checks are in the order of what they cost: a packet of others is told by its headers and one
 * comparison, and reaches neither a hash, nor the clock, nor the routing table.
 */
#include <linux/bpf.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "challenge.h"
#include "consts.h"
#include "heard.h"
#include "host.h"
#include "maps.h"
#include "parsing.h"
#include "suppress.h"
#include "watch.h"

char _license[] SEC("license") = "Dual BSD/GPL";

static __always_inline __u32 classify(struct xdp_md *context, const struct packet *packet, __u32 at)
{
	__u32 frame_bytes = context->data_end - context->data, key = 0, reason;
	struct accord_settings *now;
	int for_us;

	if (packet->protocol == PROTOCOL_TCP)
		return judge_syn(context, packet->ip_at, at);
	now = bpf_map_lookup_elem(&settings, &key);
	if (!now || now->layout != ACCORD_MAP_LAYOUT)
		return ACCORD_REASON_MAP_MISMATCH;
	for_us = for_this_interface(packet->ethernet, now);
	if (now->flags & ACCORD_SETTINGS_CHALLENGE && for_us && frame_bytes <= now->frame_limit) {
		reason = meet_stranger(context, packet->ip_at, at, packet->length, now);
		if (reason != ACCORD_REASON_OK)
			return reason;
	}
	if (packet->protocol == PROTOCOL_UDP && !(now->flags & ACCORD_SETTINGS_ANY_PORT) &&
	    !bpf_map_lookup_elem(&ports, &packet->port))
		return ACCORD_REASON_NOT_OURS_PORT;
	if (!for_us)
		return ACCORD_REASON_NOT_LOCAL;
	/* The ring would lose it; the kernel will not. */
	if (frame_bytes > now->frame_limit)
		return ACCORD_REASON_LONG_PACKET;
	if (!daemon_lives(now))
		return ACCORD_REASON_STALE_HEARTBEAT;
	if (!for_this_host(context, packet->ip_at, packet->protocol))
		return ACCORD_REASON_NOT_LOCAL;
	if (!(now->flags & ACCORD_SETTINGS_CHALLENGE) || !note_latest(context, packet->ip_at, at))
		return ACCORD_REASON_STEERED;
	reason = meet_stranger(context, packet->ip_at, at, packet->length, now);
	return reason == ACCORD_REASON_OK ? ACCORD_REASON_STEERED : reason;
}

static __always_inline int is_refused(__u32 reason)
{
	return reason == ACCORD_REASON_SYN_SUPPRESSED || reason == ACCORD_REASON_BAD_COOKIE ||
	       reason == ACCORD_REASON_BAD_CHECKSUM || reason == ACCORD_REASON_SHORT_PACKET ||
	       reason == ACCORD_REASON_QUOTA;
}

SEC("xdp")
int accord_xdp(struct xdp_md *context)
{
	void *start = (void *)(long)context->data;
	struct cursor cursor = {.start = start, .position = start, .end = (void *)(long)context->data_end};
	struct packet packet = {};
	__u32 reason = parse_frame(&cursor, &packet), at = cursor_offset(&cursor);
	int verdict = XDP_PASS;

	if (reason == ACCORD_REASON_OK)
		reason = classify(context, &packet, at);
	if (reason == ACCORD_REASON_STEERED) {
		/* XDP_PASS as the last argument is what a queue without a socket gets: never a black hole. */
		verdict = bpf_redirect_map(&xsks, context->rx_queue_index, XDP_PASS);
		if (verdict == XDP_REDIRECT)
			note_proposal(context, packet.ip_at, at, packet.length, packet.port);
		else
			reason = ACCORD_REASON_NO_SOCKET;
	} else if (reason == ACCORD_REASON_CHALLENGED) {
		verdict = XDP_TX;
	} else if (is_refused(reason)) {
		verdict = XDP_DROP;
	}
	count(reason);
	tell(context, reason, verdict);
	return verdict;
}
