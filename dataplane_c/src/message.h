/* SPDX-License-Identifier: Apache-2.0 */
/* Messages into packets: a message is the node descriptors that one side sends as one step. */
#ifndef ACCORD_MESSAGE_H
#define ACCORD_MESSAGE_H

#include <stdint.h>

#include "slab.h"
#include "transaction.h"

/*
 * Queue a message: nodes in the given order, greedily, in packets of up to ACCORD_MIN_MTU_PACKET bytes.
 * Returns enum accord_reason; on anything but OK nothing was queued.
 */
uint32_t message_queue(struct transaction *transaction, struct slab *slab, uint64_t now, uint8_t step,
                       const struct accord_node_out *nodes, uint32_t count, uint32_t packets_min);

#endif /* ACCORD_MESSAGE_H */
