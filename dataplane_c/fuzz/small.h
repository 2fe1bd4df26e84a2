/* SPDX-License-Identifier: Apache-2.0 */
/* An engine of which every limit is soon reached: what happens there is what is looked for. */
#ifndef ACCORD_FUZZ_SMALL_H
#define ACCORD_FUZZ_SMALL_H

#include "core.h"

static inline struct accord_engine_config small_config(uint32_t strangers_per_second)
{
	return (struct accord_engine_config){
		.transactions = 4,
		.unproven = 2,
		.buffers = 24,
		.buffer_bytes = 1200,
		.events = 160,
		.seed = 1,
		.strangers_per_second = strangers_per_second,
	};
}

#endif /* ACCORD_FUZZ_SMALL_H */
