// SPDX-License-Identifier: Apache-2.0
/* Names, texts and culprits of enum accord_reason, all made from the one table in wire.h. */
#include "core.h"

struct reason_row {
	const char *name;
	const char *text;
	uint32_t party;
};

static const struct reason_row reasons[ACCORD_REASON_LIMIT] = {
#define REASON_ROW(name, value, party, text) [value] = {#name, text, ACCORD_PARTY_##party},
	ACCORD_REASONS(REASON_ROW)
#undef REASON_ROW
};

const char *accord_reason_name(uint32_t reason)
{
	return reason < ACCORD_REASON_LIMIT ? reasons[reason].name : NULL;
}

const char *accord_reason_text(uint32_t reason)
{
	return reason < ACCORD_REASON_LIMIT ? reasons[reason].text : NULL;
}

uint32_t accord_reason_party(uint32_t reason)
{
	return reason < ACCORD_REASON_LIMIT ? reasons[reason].party : ACCORD_PARTY_NONE;
}
