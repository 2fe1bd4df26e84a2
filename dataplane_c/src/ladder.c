/* SPDX-License-Identifier: Apache-2.0 */
#include "ladder.h"

#include <string.h>

#include <linux/if_link.h>

#include "failure.h"
#include "io_packet.h"
#include "io_xdp.h"
#include "loader.h"

void accord_ladder_leave(struct accord_foothold *foothold)
{
	/* Rings first: while the program is still there, a queue without a socket passes to the kernel. */
	if (foothold->frames)
		foothold->frames->operations->close(foothold->frames);
	accord_program_close(foothold->program);
	foothold->frames = NULL;
	foothold->program = NULL;
}

/* The receive queues that get a ring were counted before the attachment. virtio_net (its virtnet_xdp_set) then receives
 * by as many more as there are processors, and shows them as channels, if the device has them. They are the queues that
 * it transmits XDP's frames by, without the lock that a ring's transmission takes: to send by such a ring while the
 * program answers by XDP_TX would be two at once in one virtqueue. And where it knows zero-copy, it does not let go of
 * a ring whose queue has gone with the program. So what comes by them goes to our UDP sockets. */
static int open_xdp(const struct accord_port_config *config, struct accord_foothold *foothold, uint32_t mode,
                    struct accord_failure *failure)
{
	struct accord_settings *settings;
	int result;

	if (!config->object_path)
		return accord_fail(failure, ACCORD_REASON_LOAD_FAILED, 0, "no BPF object was named");
	if (config->spare && *config->spare) {
		foothold->program = *config->spare;
		*config->spare = NULL;
	} else {
		result = accord_program_open(config->object_path, &foothold->program, failure);
		if (result)
			return result;
	}
	settings = accord_program_settings(foothold->program);
	settings->flags = config->any_port ? ACCORD_SETTINGS_ANY_PORT : 0;
	settings->frame_limit = accord_io_xdp_frame_limit(&foothold->netdev);
	memcpy(settings->address, foothold->netdev.address, sizeof(settings->address));
	result = accord_program_attach(foothold->program, foothold->netdev.index, mode, failure);
	if (!result)
		result = accord_io_xdp_open(&foothold->netdev, foothold->program, config->frames, &foothold->frames, failure);
	/* Last: attachment and rings wait for the kernel, on a busy host for longer than a heartbeat lasts. */
	if (!result)
		accord_program_heartbeat(foothold->program);
	return result;
}

static int step(const struct accord_port_config *config, struct accord_foothold *foothold,
                struct accord_failure *failure)
{
	int result;

	if (foothold->rung == ACCORD_RUNG_UDP) {
		if (config->interface) /* for its MTU; any interface will do, or none */
			accord_netdev_open(config->interface, &foothold->netdev, NULL);
		return 0;
	}
	if (!config->interface)
		return accord_fail(failure, ACCORD_REASON_NO_INTERFACE, 0, "no interface was named");
	result = accord_netdev_open(config->interface, &foothold->netdev, failure);
	if (result)
		return result;
	switch (foothold->rung) {
	case ACCORD_RUNG_XDP_NATIVE:
		return open_xdp(config, foothold, XDP_FLAGS_DRV_MODE, failure);
	case ACCORD_RUNG_XDP_GENERIC:
		return open_xdp(config, foothold, XDP_FLAGS_SKB_MODE, failure);
	default:
		return accord_io_packet_open(&foothold->netdev, &foothold->frames, failure);
	}
}

/* A wish, not a condition: without it all goes on, by interrupts. */
static void try_busy_polling(const struct accord_port_config *config, struct accord_port_report *report,
                             struct accord_foothold *foothold)
{
	if (!config->busy_poll_us)
		return;
	if (!foothold->program)
		accord_fail(&report->busy_poll, ACCORD_REASON_NO_KERNEL_SUPPORT, 0, "busy polling needs AF_XDP");
	else if (!accord_io_xdp_busy_poll(foothold->frames, config->busy_poll_us, &report->busy_poll))
		report->busy_poll_us = config->busy_poll_us;
}

static void describe(struct accord_port_report *report, const struct accord_foothold *foothold)
{
	report->rung = foothold->rung;
	report->queues = foothold->program ? foothold->netdev.queues : foothold->frames ? 1 : 0;
	report->program_id = foothold->program ? accord_program_id(foothold->program) : 0;
}

int accord_ladder_climb(const struct accord_port_config *config, struct accord_port_report *report,
                        struct accord_foothold *foothold)
{
	int result = -ACCORD_REASON_BAD_CONFIG; /* no rung between first and last */

	memset(report, 0, sizeof(*report));
	report->rung = ACCORD_RUNGS;
	for (uint32_t rung = config->first_rung; rung <= config->last_rung && rung < ACCORD_RUNGS; rung++) {
		struct accord_failure failure = {0};

		if (config->skip_rungs & 1u << rung)
			continue;
		memset(foothold, 0, sizeof(*foothold));
		foothold->rung = rung;
		result = step(config, foothold, &failure);
		if (!result) {
			describe(report, foothold);
			try_busy_polling(config, report, foothold);
			return 0;
		}
		accord_ladder_leave(foothold);
		report->reason[rung] = failure.reason;
		report->error[rung] = failure.error;
		memcpy(report->detail[rung], failure.detail, sizeof(failure.detail));
	}
	return result;
}
