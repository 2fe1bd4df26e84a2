/* SPDX-License-Identifier: Apache-2.0 */
/* The command line of the campaign. */
#ifndef ACCORD_CAMPAIGN_OPTIONS_H
#define ACCORD_CAMPAIGN_OPTIONS_H

#include <stdint.h>

/* What the command line says. */
struct options {
	const char *object; /* the BPF object's path */
	uint64_t seed;
	uint64_t first;   /* number of the first packet */
	uint64_t packets; /* of each family */
	uint64_t seconds; /* for each family; 0: as many as packets says */
	int json;
};

/* Returns 0, 1 when the help was asked for and printed, or -1 when it was printed because the words are wrong. */
int options_read(int count, char **arguments, struct options *options);

#endif
