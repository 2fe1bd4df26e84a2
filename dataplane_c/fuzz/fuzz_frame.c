// SPDX-License-Identifier: Apache-2.0
/*
 * Invariant: what a frame's parser calls a packet lies within the frame and its IP datagram; an answer that is built
 * along the path that was learnt parses, goes back to where the frame came from, and says what was to be said.
 *
 * The input is a byte for the VLAN tag that the NIC has taken out, and what to mend; then a frame.
 */
#include "frame.h"
#include "script.h"

enum {
	MEND_SUM = 1, /* of the IPv4 header */
	TAGGED = 2,
	MAX_FRAME = 2048,
	ETHERNET = 14,
};

static void mend_sum(uint8_t *frame, uint32_t length)
{
	uint32_t at = ETHERNET, header, sum = 0;

	while (at + 4 <= length &&
	       ((frame[at - 2] == 0x81 && !frame[at - 1]) || (frame[at - 2] == 0x88 && frame[at - 1] == 0xa8)))
		at += 4;
	if (at + 20 > length || frame[at - 2] != 8 || frame[at - 1])
		return;
	header = (frame[at] & 15u) * 4;
	if (header < 20 || at + header > length)
		return;
	frame[at + 10] = frame[at + 11] = 0;
	for (uint32_t i = 0; i < header; i++)
		sum += i % 2 ? frame[at + i] : (uint32_t)frame[at + i] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	frame[at + 10] = (uint8_t)(~sum >> 8);
	frame[at + 11] = (uint8_t)~sum;
}

static void check_answer(const struct accord_path *path, const uint8_t *packet, uint32_t length)
{
	static uint8_t frame[MAX_FRAME + ACCORD_FRAME_OVERHEAD];
	struct accord_frame_tag none = {0};
	struct accord_path back;
	const uint8_t *again;
	uint32_t again_length;
	int total = accord_frame_build(path, packet, length, frame, sizeof(frame)), result;

	HOLD(total > 0 && (uint32_t)total == accord_frame_bytes(path, length));
	HOLD(accord_frame_build(path, packet, length, frame, (uint32_t)total - 1) < 0);
	result = accord_frame_parse(frame, (uint32_t)total, none, &back, &again, &again_length);
	if (result) {
		/* Its source is the address that the frame came to, and that one need not be anybody's; as need not its port.
		 */
		HOLD(result == -ACCORD_REASON_MALFORMED_FRAME || result == -ACCORD_REASON_TOO_MANY_EXTENSIONS);
		return;
	}
	HOLD(again_length == length && !memcmp(again, packet, length));
	HOLD(back.family == path->family && back.context == path->context && back.link_length == path->link_length);
	HOLD(!memcmp(back.local, path->remote, sizeof(back.local)) &&
	     !memcmp(back.remote, path->local, sizeof(back.remote)));
	HOLD(back.local_port == path->remote_port && back.remote_port == path->local_port);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
	struct accord_frame_tag tag = {0};
	struct accord_path path;
	const uint8_t *packet = NULL;
	uint32_t length, packet_length = 0;
	uint8_t *frame;

	if (size < 1 || size > MAX_FRAME)
		return 0;
	if (bytes[0] & TAGGED)
		tag = (struct accord_frame_tag){.type = 0x8100, .control = bytes[0]};
	length = (uint32_t)size - 1;
	/* Of exactly its size, so that the sanitizer sees a read beyond it. */
	frame = malloc(length ? length : 1);
	memcpy(frame, bytes + 1, length);
	if (bytes[0] & MEND_SUM)
		mend_sum(frame, length);
	if (!accord_frame_parse(frame, length, tag, &path, &packet, &packet_length)) {
		HOLD(packet >= frame + ETHERNET && packet_length <= length && packet <= frame + length - packet_length);
		HOLD(path.link_length >= ETHERNET && path.link_length <= ACCORD_MAX_LINK_HEADER);
		HOLD(path.family == 4 || path.family == 6);
		HOLD(path.context == ACCORD_PROTOCOL_UDP || path.context == ACCORD_PROTOCOL_DIRECT);
		check_answer(&path, packet, packet_length);
	}
	free(frame);
	return 0;
}
