// SPDX-License-Identifier: Apache-2.0
#include "load.h"

#include <string.h>

#include "craft.h"

const uint32_t load_protocols[LOAD_CHUNKS - 1] = {ACCORD_PROTOCOL_TCP, ACCORD_PROTOCOL_TLS13};

struct accord_path load_path(void)
{
	return (struct accord_path){
		.family = 4,
		.context = ACCORD_PROTOCOL_UDP,
		.local_port = 443,
		.remote_port = 50000,
		.socket = ACCORD_PATH_NO_SOCKET,
		.local = {192, 0, 2, 2},
		.remote = {192, 0, 2, 1},
	};
}

uint32_t load_packet(uint8_t *bytes, uint32_t id, uint32_t index, uint32_t packets, bool small)
{
	static const uint16_t lengths[LOAD_CHUNKS] = {LOAD_FIRST_CHUNK, LOAD_OTHER_CHUNK, LOAD_LAST_CHUNK};
	const uint32_t protocols[LOAD_CHUNKS] = {ACCORD_PROTOCOL_UDP, load_protocols[0], load_protocols[1]};
	uint8_t transaction[ACCORD_TRANSACTION_BYTES] = {0, 0, 1, 0, 0, 0, 2, 0};
	uint8_t flags = (uint8_t)((index ? 0 : ACCORD_CHUNK_FIRST) | (index + 1 < packets ? 0 : ACCORD_CHUNK_LAST));
	struct craft craft;

	for (int i = 0; i < 4; i++)
		transaction[8 + i] = (uint8_t)(id >> (24 - 8 * i));
	craft_header(&craft, transaction, ACCORD_STEP_PROPOSAL, index + 1 < packets ? 0 : ACCORD_FLAG_END, index);
	for (uint8_t node = 0; node < LOAD_CHUNKS; node++) {
		uint8_t data[LOAD_FIRST_CHUNK];
		uint32_t length = small ? LOAD_SMALL_CHUNK : lengths[node];

		/* A descriptor begins with four zeros: no children, no TLVs. The rest is payload. */
		memset(data, 0, 4);
		for (uint32_t i = 4; i < length; i++)
			data[i] = (uint8_t)(i * 37 + node);
		craft_chunk(&craft, node, flags, protocols[node], data, length);
	}
	craft_seal(&craft);
	memcpy(bytes, craft.bytes, craft.length);
	return craft.length;
}
