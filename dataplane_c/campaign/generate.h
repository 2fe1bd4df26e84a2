/* SPDX-License-Identifier: Apache-2.0 */
/* Random frames that look like traffic: by the layers' own rules for the most part, and against them. */
#ifndef ACCORD_CAMPAIGN_GENERATE_H
#define ACCORD_CAMPAIGN_GENERATE_H

#include <stdint.h>

#include "oracle.h"

enum {
	GENERATE_MIN = 14,   /* bytes; the kernel runs a program on nothing shorter */
	GENERATE_MAX = 2500, /* bytes; one page is the most that it takes */
};

/* The frame of this seed, family (4 or 6) and number: always the same one. Returns its length. */
uint32_t generate_frame(uint64_t seed, int family, uint64_t number, const struct host *host,
                        uint8_t frame[GENERATE_MAX]);

#endif
