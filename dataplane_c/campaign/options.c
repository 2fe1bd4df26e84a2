/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>

static const char usage[] =
	"usage: xdp-campaign --object FILE [--packets N | --seconds S] [--seed N] [--first N] [--json]\n"
	"Random packets through the XDP program; those of others have to pass byte for byte. Needs root.\n"
	"  --object FILE  the BPF object, accord_xdp.bpf.o\n"
	"  --packets N    of each family, IPv4 and IPv6 (default 100000)\n"
	"  --seconds S    for each family, instead of a number\n"
	"  --seed N       other packets (default 1)\n"
	"  --first N      number of the first packet, to run a failure again\n"
	"  --json         one JSON object on the standard output\n";

static int number_argument(const char *text, uint64_t *number)
{
	char *end;

	errno = 0;
	*number = strtoull(text, &end, 10);
	if (!errno && end != text && !*end && text[0] != '-')
		return 0;
	fprintf(stderr, "xdp campaign: %s is no number\n", text);
	return -1;
}

int options_read(int count, char **arguments, struct options *options)
{
	static const struct option words[] = {
		{"object", required_argument, NULL, 'o'},  {"packets", required_argument, NULL, 'p'},
		{"seconds", required_argument, NULL, 's'}, {"seed", required_argument, NULL, 'r'},
		{"first", required_argument, NULL, 'f'},   {"json", no_argument, NULL, 'j'},
		{"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
	};
	int option, bad = 0;

	*options = (struct options){.seed = 1, .packets = 100000};
	while ((option = getopt_long(count, arguments, "", words, NULL)) != -1) {
		switch (option) {
		case 'o':
			options->object = optarg;
			break;
		case 'p':
			bad |= number_argument(optarg, &options->packets);
			break;
		case 's':
			bad |= number_argument(optarg, &options->seconds);
			break;
		case 'r':
			bad |= number_argument(optarg, &options->seed);
			break;
		case 'f':
			bad |= number_argument(optarg, &options->first);
			break;
		case 'j':
			options->json = 1;
			break;
		case 'h':
			fputs(usage, stdout);
			return 1;
		default:
			bad = 1;
		}
	}
	if (bad || !options->object || optind != count) {
		fputs(usage, stderr);
		return -1;
	}
	return 0;
}
