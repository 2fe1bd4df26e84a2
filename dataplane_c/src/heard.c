/* SPDX-License-Identifier: Apache-2.0 */
#include "heard.h"

#include <string.h>

uint32_t accord_heard_slot(const uint8_t *transaction)
{
	uint32_t words[ACCORD_TRANSACTION_BYTES / 4];

	memcpy(words, transaction, sizeof(words));
	return accord_heard_index(words);
}

/* What is read between two looks at the same state belongs to it (ebpf/heard.h). */
uint8_t accord_heard_syn(const struct accord_heard *table, const uint8_t *transaction)
{
	const struct accord_heard *slot = &table[accord_heard_slot(transaction)];
	uint64_t state = __atomic_load_n(&slot->state, __ATOMIC_ACQUIRE);
	int same = !memcmp(slot->transaction, transaction, sizeof(slot->transaction));

	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	/* The flags may have been added to meanwhile, by another packet of the same transaction. */
	if (!same || state & ACCORD_HEARD_BUSY ||
	    (__atomic_load_n(&slot->state, __ATOMIC_RELAXED) ^ state) & ~(uint64_t)ACCORD_HEARD_FLAGS)
		return ACCORD_SYN_UNKNOWN;
	if (state & ACCORD_HEARD_SYN)
		return ACCORD_SYN_FIRST;
	return state & ACCORD_HEARD_PROPOSAL ? ACCORD_SYN_NOT_FIRST : ACCORD_SYN_UNKNOWN;
}
