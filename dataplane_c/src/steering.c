/* SPDX-License-Identifier: Apache-2.0 */
#include "steering.h"

#include <stdbool.h>

static bool bit(const uint8_t *bits, uint16_t number)
{
	return bits[number / 8] >> number % 8 & 1;
}

static void set_bit(uint8_t *bits, uint16_t number, uint32_t on)
{
	uint8_t mask = (uint8_t)(1u << number % 8), *byte = &bits[number / 8];

	*byte = (uint8_t)(on ? *byte | mask : *byte & ~mask);
}

int accord_steering_wants(const struct accord_steering *steering, const struct accord_sockets *sockets, uint16_t number)
{
	return accord_sockets_use(sockets, number) || bit(steering->shared, number);
}

void accord_steering_expose(struct accord_steering *steering, uint16_t number, uint32_t exposed)
{
	set_bit(steering->exposed, number, exposed);
}

void accord_steering_share(struct accord_steering *steering, uint16_t number, uint32_t shared)
{
	set_bit(steering->shared, number, shared);
}

int accord_steering_apply(const struct accord_steering *steering, const struct accord_sockets *sockets,
                          struct accord_program *program, uint16_t number)
{
	uint32_t flags = 0;

	if (!program)
		return 0;
	if (accord_steering_wants(steering, sockets, number))
		flags = ACCORD_PORT_STEERED | (bit(steering->exposed, number) ? ACCORD_PORT_SUPPRESS : 0);
	return accord_program_steer(program, number, flags);
}

uint32_t accord_steering_apply_all(const struct accord_steering *steering, const struct accord_sockets *sockets,
                                   struct accord_program *program)
{
	uint32_t refused = 0;

	for (uint32_t number = 1; number < ACCORD_UDP_PORTS; number++)
		if (accord_steering_wants(steering, sockets, (uint16_t)number) &&
		    accord_steering_apply(steering, sockets, program, (uint16_t)number))
			refused++;
	return refused;
}
