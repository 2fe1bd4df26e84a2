/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Invariant: what the oracle calls ours is redirected, a SYN that it calls superfluous is dropped, all else passes, and
 * not one byte of any frame changes; each is counted once.
 *
 * The XDP program over random frames of both families (BPF_PROG_TEST_RUN), in a network namespace of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/bpf.h>

#include "core.h"
#include "generate.h"
#include "options.h"
#include "oracle.h"

enum {
	BATCH = 4096, /* frames between two looks at the clock and the counters */
	OUTPUT_BYTES = 4096,
};

struct tally {
	uint64_t packets, ours, superfluous, bytes;
	uint64_t reasons[ACCORD_REASON_LIMIT];
};

struct campaign {
	struct options options;
	struct accord_program *program;
	struct host host;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int failed(const char *what)
{
	fprintf(stderr, "xdp campaign: %s: %s\n", what, strerror(errno));
	return -1;
}

/* A host that forwards nothing, whatever this one does; it ends with the process. */
static int leave_this_host(void)
{
	int fd;

	if (unshare(CLONE_NEWNET))
		return failed("a network namespace (this needs root)");
	fd = open("/proc/sys/net/ipv4/ip_forward", O_WRONLY | O_CLOEXEC);
	if (fd >= 0) {
		if (write(fd, "0", 1) != 1)
			failed("switching forwarding off");
		close(fd);
	}
	return 0;
}

static int prepare(struct campaign *campaign)
{
	const uint8_t address[] = {0x02, 0, 0, 0, 0, 0x02};
	struct accord_failure failure = {0};
	struct accord_settings *settings;
	int queue;

	if (accord_program_open(campaign->options.object, &campaign->program, &failure)) {
		fprintf(stderr, "xdp campaign: %s\n", failure.detail);
		return -1;
	}
	memcpy(campaign->host.address, address, sizeof(address));
	memcpy(campaign->host.transaction, "transaction.", sizeof(campaign->host.transaction));
	for (uint32_t i = 0; i < sizeof(campaign->host.ends6); i++)
		campaign->host.ends6[i] = (uint8_t)(0x20 + i);
	memcpy(campaign->host.ends4, campaign->host.ends6, sizeof(campaign->host.ends4));
	campaign->host.frame_limit = 1792;
	campaign->host.ports[0] = 443;
	campaign->host.ports[1] = 4433;
	settings = accord_program_settings(campaign->program);
	memcpy(settings->address, address, sizeof(address));
	settings->frame_limit = campaign->host.frame_limit;
	settings->heartbeat_ns = UINT64_MAX >> 2; /* a sign of life from long after the end of this run */
	queue = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (queue < 0)
		return failed("an AF_XDP socket");
	for (size_t i = 0; i < sizeof(campaign->host.ports) / sizeof(*campaign->host.ports); i++)
		if (accord_program_steer(campaign->program, campaign->host.ports[i],
		                         ACCORD_PORT_STEERED | ACCORD_PORT_SUPPRESS))
			return failed("the map ports");
	return accord_program_join(campaign->program, 0, queue) ? failed("the map xsks") : 0;
}

static void print_frame(const char *name, const uint8_t *frame, uint32_t length)
{
	fprintf(stderr, "%s, %u bytes: ", name, length);
	for (uint32_t i = 0; i < length; i++)
		fprintf(stderr, "%02x", frame[i]);
	fputc('\n', stderr);
}

/* As if the program had seen the proposal a moment ago, whatever became of the slot. */
static int hear_proposal(const struct campaign *campaign, int family)
{
	const struct host *host = &campaign->host;
	struct accord_heard entry = {.family = (uint8_t)family};
	struct timespec time;

	clock_gettime(CLOCK_BOOTTIME, &time);
	entry.state = (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
	entry.state = (entry.state & ~(uint64_t)ACCORD_HEARD_FLAGS) | ACCORD_HEARD_PROPOSAL;
	memcpy(entry.transaction, host->transaction, sizeof(entry.transaction));
	memcpy(entry.source, family == 4 ? host->ends4 : host->ends6, family == 4 ? 4 : 16);
	memcpy(entry.destination, family == 4 ? host->ends4 + 4 : host->ends6 + 16, family == 4 ? 4 : 16);
	return accord_program_hear(campaign->program, accord_heard_slot(host->transaction), &entry);
}

static int run_frame(struct campaign *campaign, int family, uint64_t number, struct tally *tally)
{
	uint8_t frame[GENERATE_MAX], output[OUTPUT_BYTES];
	uint32_t output_length = sizeof(output), verdict, duration, length, expected;
	int ours, superfluous, result;

	length = generate_frame(campaign->options.seed, family, number, &campaign->host, frame);
	ours = oracle_is_ours(&campaign->host, frame, length);
	superfluous = oracle_is_superfluous(&campaign->host, frame, length);
	expected = ours ? XDP_REDIRECT : superfluous ? XDP_DROP : XDP_PASS;
	if (hear_proposal(campaign, family))
		return failed("the map heard");
	result = accord_program_test_run(campaign->program, frame, length, 1, output, &output_length, &verdict, &duration);
	if (result) {
		fprintf(stderr, "xdp campaign: the kernel does not run a frame of %u bytes: %s\n", length,
		        accord_reason_name((uint32_t)-result));
		return -1;
	}
	tally->packets++;
	tally->ours += ours != 0;
	tally->superfluous += superfluous != 0;
	tally->bytes += length;
	if (verdict == expected && output_length == length && !memcmp(frame, output, length))
		return 0;
	fprintf(stderr, "xdp campaign: IPv%d frame %" PRIu64 " of seed %" PRIu64 " is %s: verdict %u, not %u%s\n", family,
	        number, campaign->options.seed,
	        ours          ? "ours"
	        : superfluous ? "superfluous"
	                      : "foreign",
	        verdict, expected, output_length != length || memcmp(frame, output, length) ? ", and changed" : "");
	print_frame("in", frame, length);
	print_frame("out", output, output_length);
	fprintf(stderr, "again: --seed %" PRIu64 " --first %" PRIu64 " --packets 1\n", campaign->options.seed, number);
	return -1;
}

/* Each frame counted once, ours as steered, the superfluous as suppressed. */
static int check_counters(struct campaign *campaign, const uint64_t *before, struct tally *tally,
                          const struct tally *then)
{
	const uint64_t packets = tally->packets - then->packets, ours = tally->ours - then->ours;
	const uint64_t superfluous = tally->superfluous - then->superfluous;
	uint64_t after[ACCORD_REASON_LIMIT], sum = 0;

	if (accord_program_counters(campaign->program, after))
		return failed("the map counters");
	for (uint32_t reason = 0; reason < ACCORD_REASON_LIMIT; reason++) {
		tally->reasons[reason] += after[reason] - before[reason];
		sum += after[reason] - before[reason];
	}
	if (sum == packets && after[ACCORD_REASON_STEERED] - before[ACCORD_REASON_STEERED] == ours &&
	    after[ACCORD_REASON_SYN_SUPPRESSED] - before[ACCORD_REASON_SYN_SUPPRESSED] == superfluous)
		return 0;
	fprintf(stderr,
	        "xdp campaign: %" PRIu64 " frames, %" PRIu64 " of them ours, %" PRIu64
	        " superfluous, raised the counters by %" PRIu64 ", %" PRIu64 " and %" PRIu64 "\n",
	        packets, ours, superfluous, sum, after[ACCORD_REASON_STEERED] - before[ACCORD_REASON_STEERED],
	        after[ACCORD_REASON_SYN_SUPPRESSED] - before[ACCORD_REASON_SYN_SUPPRESSED]);
	return -1;
}

static int run_batch(struct campaign *campaign, int family, uint64_t number, uint64_t count, struct tally *tally)
{
	struct accord_settings *settings = accord_program_settings(campaign->program);
	const struct tally then = *tally;
	uint64_t before[ACCORD_REASON_LIMIT];

	/* Every other batch takes all ports; the number alone decides, so that one frame can be run again. */
	campaign->host.any_port = number / BATCH % 2 != 0;
	settings->flags = ACCORD_SETTINGS_SUPPRESS | (campaign->host.any_port ? ACCORD_SETTINGS_ANY_PORT : 0);
	if (accord_program_counters(campaign->program, before))
		return failed("the map counters");
	for (uint64_t i = 0; i < count; i++)
		if (run_frame(campaign, family, number + i, tally))
			return -1;
	return check_counters(campaign, before, tally, &then);
}

static void report_progress(const struct campaign *campaign, int family, const struct tally *tally, double spent,
                            double *next)
{
	int terminal = isatty(STDERR_FILENO);

	if (spent < *next)
		return;
	*next = spent + (terminal ? 0.5 : 10);
	fprintf(stderr, "%sIPv%d: %" PRIu64, terminal ? "\r" : "", family, tally->packets);
	if (campaign->options.seconds == 0)
		fprintf(stderr, " of %" PRIu64, campaign->options.packets);
	fprintf(stderr, " packets, %.0f/s, %" PRIu64 " ours%s", spent > 0 ? (double)tally->packets / spent : 0, tally->ours,
	        terminal ? "   " : "\n");
}

static int run_family(struct campaign *campaign, int family, struct tally *tally)
{
	double start = now(), next = 0, spent = 0;
	uint64_t number = campaign->options.first;
	int result = 0;

	while (!result && !interrupted) {
		/* Up to the end of the batch that this number lies in. */
		uint64_t count = BATCH - number % BATCH, left = campaign->options.packets - tally->packets;

		if (campaign->options.seconds > 0 ? spent >= (double)campaign->options.seconds : !left)
			break;
		if (campaign->options.seconds == 0 && count > left)
			count = left;
		result = run_batch(campaign, family, number, count, tally);
		number += count;
		spent = now() - start;
		if (!result)
			report_progress(campaign, family, tally, spent, &next);
	}
	if (isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	return result;
}

static void print_tally(const struct campaign *campaign, int family, const struct tally *tally, double spent)
{
	const char *separator = "";

	if (campaign->options.json)
		printf("\"ipv%d\": {\"packets\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"ours\": %" PRIu64
		       ", \"superfluous\": %" PRIu64 ", \"seconds\": %.1f, \"reasons\": {",
		       family, tally->packets, tally->bytes, tally->ours, tally->superfluous, spent);
	else
		printf("IPv%d: %" PRIu64 " packets in %.1f s, %" PRIu64 " ours, %" PRIu64 " SYNs superfluous, %" PRIu64
		       " of others passed as they were. By reason:",
		       family, tally->packets, spent, tally->ours, tally->superfluous,
		       tally->packets - tally->ours - tally->superfluous);
	for (uint32_t reason = 0; reason < ACCORD_REASON_LIMIT; reason++) {
		if (!tally->reasons[reason])
			continue;
		printf(campaign->options.json ? "%s\"%s\": %" PRIu64 : "%s %s %" PRIu64, separator, accord_reason_name(reason),
		       tally->reasons[reason]);
		separator = campaign->options.json ? ", " : ",";
	}
	fputs(campaign->options.json ? "}}" : "\n", stdout);
}

static int run(struct campaign *campaign)
{
	int result = 0;

	if (campaign->options.json)
		printf("{\"seed\": %" PRIu64 ", ", campaign->options.seed);
	else
		printf("seed %" PRIu64 "\n", campaign->options.seed);
	for (int family = 4; family <= 6 && !result && !interrupted; family += 2) {
		struct tally tally = {0};
		double start = now();

		result = run_family(campaign, family, &tally);
		print_tally(campaign, family, &tally, now() - start);
		fputs(campaign->options.json ? ", " : "", stdout);
	}
	if (campaign->options.json)
		printf("\"ok\": %s}\n", result ? "false" : "true");
	if (result)
		return 1;
	return interrupted ? 130 : 0;
}

int main(int count, char **arguments)
{
	const struct sigaction action = {.sa_handler = on_signal};
	struct campaign campaign = {0};
	int result = options_read(count, arguments, &campaign.options);

	if (result)
		return result < 0 ? 2 : 0;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	if (leave_this_host())
		return 1;
	result = prepare(&campaign) ? 1 : run(&campaign);
	accord_program_close(campaign.program);
	return result;
}
