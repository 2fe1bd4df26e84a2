// SPDX-License-Identifier: Apache-2.0
/* What the broker does with the XDP program: one program, on the configured interface. */
#include "broker.h"

#include <net/if.h>

#include <linux/if_link.h>

#include "loader.h"

enum {
	PORT_FLAGS = ACCORD_PORT_STEERED | ACCORD_PORT_SUPPRESS,
};

int accord_broker_knows(struct accord_broker *broker, int32_t interface)
{
	int named = broker->interface ? (int)if_nametoindex(broker->interface) : 0;

	if (named)
		broker->known = named;
	return interface > 0 && interface == broker->known;
}

int broker_load(struct turn *turn)
{
	struct accord_broker *broker = turn->broker;
	int result;

	if (!broker_allows_rung(turn, BROKER_XDP_RUNGS) || !broker->interface)
		return broker_refuse(turn, "the configuration wants no XDP program");
	accord_program_close(broker->program);
	broker->program = broker->spare;
	broker->spare = NULL;
	if (!broker->program) {
		result = accord_program_open(broker->object_path, &broker->program, &turn->reply.failure);
		if (result)
			return result;
	}
	turn->answer.id = accord_program_id(broker->program);
	turn->answer_length = sizeof(turn->answer.id);
	turn->fd = accord_program_settings_fd(broker->program);
	turn->lasts = 1;
	return 0;
}

int broker_attach(struct turn *turn)
{
	uint32_t mode = turn->request.mode;

	if (!turn->broker->program)
		return broker_refuse(turn, "no program is loaded");
	if (!(mode == XDP_FLAGS_DRV_MODE && broker_allows_rung(turn, 1 << ACCORD_RUNG_XDP_NATIVE)) &&
	    !(mode == XDP_FLAGS_SKB_MODE && broker_allows_rung(turn, 1 << ACCORD_RUNG_XDP_GENERIC)))
		return broker_refuse(turn, "not a mode of the configuration");
	if (!accord_broker_knows(turn->broker, (int)turn->request.number))
		return broker_refuse(turn, "not the configured interface");
	return accord_program_attach(turn->broker->program, (int)turn->request.number, mode, &turn->reply.failure);
}

int broker_unload(struct turn *turn)
{
	accord_program_close(turn->broker->program);
	turn->broker->program = NULL;
	return 0;
}

int broker_attached(struct turn *turn)
{
	return turn->broker->program ? accord_program_attached(turn->broker->program) : 0;
}

int broker_heard(struct turn *turn)
{
	if (!turn->broker->program)
		return broker_refuse(turn, "no program is loaded");
	turn->fd = accord_program_heard_fd(turn->broker->program);
	turn->lasts = 1;
	return 0;
}

int broker_steer(struct turn *turn)
{
	if (!turn->broker->program)
		return broker_refuse(turn, "no program is loaded");
	if (!turn->request.number || turn->request.number >= BROKER_PORTS || turn->request.mode & ~PORT_FLAGS)
		return broker_refuse(turn, "no such port, or nothing that is done with one");
	return accord_program_steer(turn->broker->program, (uint16_t)turn->request.number, turn->request.mode);
}

int broker_join(struct turn *turn)
{
	if (!turn->broker->program)
		return broker_refuse(turn, "no program is loaded");
	return accord_program_join(turn->broker->program, turn->request.number, turn->message->fds[0]);
}

int broker_counters(struct turn *turn)
{
	if (!turn->broker->program)
		return broker_refuse(turn, "no program is loaded");
	turn->answer_length = sizeof(turn->answer.counters);
	return accord_program_counters(turn->broker->program, turn->answer.counters);
}
