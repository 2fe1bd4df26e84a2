// SPDX-License-Identifier: Apache-2.0
/* What the broker does for connections that the port's own listener is given: on the configured interface and ports. */
#include "birth_program.h"
#include "broker.h"
#include "failure.h"

int broker_births(struct turn *turn)
{
	struct accord_broker *broker = turn->broker;

	if (!broker->births_path)
		return broker_refuse(turn, "the configuration has no such connections");
	if (broker->births)
		return 0;
	return accord_birth_program_open(broker->births_path, broker->interface, &broker->births, &turn->reply.failure);
}

int broker_listening(struct turn *turn)
{
	uint32_t port = turn->request.number;

	if (!turn->broker->births)
		return broker_refuse(turn, "no TC program is attached");
	if (port >= BROKER_PORTS || !broker_allows_port(turn, (uint16_t)port))
		return broker_refuse(turn, "not a port of the configuration");
	return accord_birth_listens((uint16_t)port, &turn->reply.failure);
}

static int is_expectable(const struct turn *turn, const struct accord_tcp_state *state)
{
	return turn->broker->births && broker_is_sane(state) && state->remote_port &&
	       broker_allows_port(turn, state->local_port);
}

int broker_birth(struct turn *turn)
{
	const struct accord_tcp_state *state = turn->data;

	if (!is_expectable(turn, state))
		return broker_refuse(turn, "no such connection, or not on a port of the configuration");
	return accord_birth_program_expect(turn->broker->births, state, &turn->reply.failure);
}

int broker_birth_end(struct turn *turn)
{
	const struct accord_tcp_state *state = turn->data;

	if (!is_expectable(turn, state) || turn->request.mode & ~(uint32_t)(ACCORD_BIRTH_PATIENT | ACCORD_BIRTH_ROUSE))
		return broker_refuse(turn, "no such connection, or not on a port of the configuration");
	turn->answer_length = sizeof(turn->answer.birth);
	return accord_birth_program_end(turn->broker->births, state, turn->request.mode, &turn->answer.birth,
	                                &turn->reply.failure);
}
