/* SPDX-License-Identifier: Apache-2.0 */
/*
 * accord-link: a link with delay, jitter, loss, duplication, reordering and a rate between two network
 * interfaces of its own namespace, for kernels without netem. Started by `accord lab`:
 *
 *   accord-link [--seed N] [--frames N] [--die-with FD] --control PATH --up IF --down IF [up.loss=0.1 ...]
 *
 * --up is the interface towards the client, where what goes up comes in; --down the one towards the server.
 * Prints "ready" once frames flow. Ends at SIGTERM or SIGINT, or when the file descriptor given with
 * --die-with (a pidfd of the owner, or the read end of a pipe) becomes readable.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "control.h"
#include "link.h"

enum exit_code {
	EXIT_OK,
	EXIT_HOST = 1, /* the kernel refused something */
	EXIT_USAGE = 2,
};

struct options {
	const char *control;
	const char *interfaces[LINK_DIRECTIONS];
	uint64_t seed;
	uint32_t frames;
	int die_with;
	struct model_settings settings[LINK_DIRECTIONS];
};

static int usage(const char *what, const char *wrong)
{
	fprintf(stderr,
	        "accord-link: %s %s\n"
	        "usage: accord-link [--seed N] [--frames N] [--die-with FD] --control PATH --up IF --down IF"
	        " [up.NAME=VALUE | down.NAME=VALUE ...]\n"
	        "names: delay_ns jitter_ns loss duplicate reorder rate_bps mtu limit\n",
	        what, wrong);
	return EXIT_USAGE;
}

static int parse(int argc, char **argv, struct options *options)
{
	static const struct option names[] = {
		{"control", required_argument, NULL, 'c'},
		{"up", required_argument, NULL, 'u'},
		{"down", required_argument, NULL, 'd'},
		{"seed", required_argument, NULL, 's'},
		{"frames", required_argument, NULL, 'f'},
		{"die-with", required_argument, NULL, 'w'},
		{NULL, 0, NULL, 0},
	};
	const uint32_t most_frames = 1 << 22;
	int name;

	*options = (struct options){.frames = 65536, .die_with = -1};
	options->settings[LINK_UP].limit = options->settings[LINK_DOWN].limit = 20000;
	while ((name = getopt_long(argc, argv, "", names, NULL)) != -1) {
		if (name == 'c')
			options->control = optarg;
		else if (name == 'u')
			options->interfaces[LINK_UP] = optarg;
		else if (name == 'd')
			options->interfaces[LINK_DOWN] = optarg;
		else if (name == 's')
			options->seed = strtoull(optarg, NULL, 10);
		else if (name == 'f')
			options->frames = (uint32_t)strtoul(optarg, NULL, 10);
		else if (name == 'w')
			options->die_with = (int)strtol(optarg, NULL, 10);
		else
			return usage("this", "is no option");
	}
	if (!options->control || !options->interfaces[LINK_UP] || !options->interfaces[LINK_DOWN])
		return usage("--control, --up and --down", "are needed");
	if (options->frames == 0 || options->frames > most_frames)
		return usage("--frames", "is not between 1 and 4194304");
	for (; optind < argc; optind++) {
		const char *wrong = control_assign(options->settings, argv[optind]);

		if (wrong)
			return usage(argv[optind], wrong);
	}
	for (int i = 0; i < LINK_DIRECTIONS; i++)
		if (options->settings[i].jitter_ns > options->settings[i].delay_ns)
			return usage(i ? "down.jitter_ns" : "up.jitter_ns", "is more than the delay");
	return EXIT_OK;
}

/*
 * A frame's delay is as exact as our wake-up is prompt. A normal task, however nice, waits for the end of
 * a busy one's slice, which a tick of 4 ms finds; and its timers fire up to 50 us late so that the kernel
 * can group them (PR_SET_TIMERSLACK). So the lowest real-time priority: a link sleeps nearly always, and
 * what a flooded one takes is bounded by the kernel (sched_rt_runtime_us, or the deadline server that
 * came after it). All best effort: without the privilege the link works, less exactly.
 */
static void be_prompt(void)
{
	const struct sched_param lowest = {.sched_priority = 1};

	prctl(PR_SET_TIMERSLACK, 1UL, 0, 0, 0);
	if (sched_setscheduler(0, SCHED_RR, &lowest) < 0)
		setpriority(PRIO_PROCESS, 0, -20);
}

static int catch_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGINT);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

enum watched {
	WATCH_UP,
	WATCH_DOWN,
	WATCH_LISTENER,
	WATCH_CLIENT,
	WATCH_OWNER,
	WATCH_SIGNALS,
	WATCHED
};

static int wait_for(struct pollfd *watched, uint64_t next)
{
	struct timespec timeout = {0};
	uint64_t now = link_now();

	if (next > now) {
		timeout.tv_sec = (time_t)((next - now) / 1000000000);
		timeout.tv_nsec = (long)((next - now) % 1000000000);
	}
	return ppoll(watched, WATCHED, next == UINT64_MAX ? NULL : &timeout, NULL);
}

static void run(struct link *link, struct control *control, int owner, int signals)
{
	struct pollfd watched[WATCHED];

	for (int i = 0; i < WATCHED; i++)
		watched[i] = (struct pollfd){.fd = -1, .events = POLLIN};
	watched[WATCH_UP].fd = link->ends[LINK_UP].fd;
	watched[WATCH_DOWN].fd = link->ends[LINK_DOWN].fd;
	watched[WATCH_OWNER].fd = owner;
	watched[WATCH_SIGNALS].fd = signals;
	for (;;) {
		/* A negative descriptor is not watched: one client at a time, the next waits in the backlog. */
		watched[WATCH_LISTENER].fd = control->client < 0 ? control->listener : -1;
		watched[WATCH_CLIENT].fd = control->client;
		if (wait_for(watched, schedule_next(&link->schedule)) < 0 && errno != EINTR)
			return;
		if (watched[WATCH_OWNER].revents || watched[WATCH_SIGNALS].revents)
			return;
		if (watched[WATCH_CLIENT].revents)
			control_serve(control, link);
		if (watched[WATCH_LISTENER].revents)
			control_accept(control);
		if (watched[WATCH_UP].revents)
			link_receive(link, LINK_UP);
		if (watched[WATCH_DOWN].revents)
			link_receive(link, LINK_DOWN);
		link_release(link);
	}
}

static int fail(const char *what, const char *name)
{
	fprintf(stderr, "accord-link: %s: %s: %s\n", name, what, strerror(errno));
	return EXIT_HOST;
}

static int start(struct link *link, struct control *control, const struct options *options)
{
	const char *failed;
	uint32_t largest = 0;
	uint32_t buffer_bytes = 2048;

	for (unsigned i = 0; i < LINK_DIRECTIONS; i++) {
		failed = wire_end_open(&link->ends[i], options->interfaces[i]);
		if (failed)
			return fail(failed, options->interfaces[i]);
		largest = link->ends[i].mtu > largest ? link->ends[i].mtu : largest;
		model_init(&link->models[i], options->seed, i);
		link->models[i].settings = options->settings[i];
	}
	while (buffer_bytes < largest + WIRE_END_HEADROOM + WIRE_END_LINK_HEADER)
		buffer_bytes *= 2;
	if (!schedule_init(&link->schedule, options->frames, WIRE_END_BATCH, buffer_bytes))
		return fail("memory for the frames", "--frames");
	failed = control_open(control, options->control);
	return failed ? fail(failed, options->control) : EXIT_OK;
}

int main(int argc, char **argv)
{
	struct options options;
	struct link link = {.ends = {{.fd = -1}, {.fd = -1}}};
	struct control control = {.listener = -1, .client = -1};
	int code = parse(argc, argv, &options);
	int signals;

	if (code != EXIT_OK)
		return code;
	signals = catch_signals();
	code = start(&link, &control, &options);
	if (code == EXIT_OK) {
		be_prompt();
		puts("ready");
		fclose(stdout); /* whoever waited for the line sees the end of it */
		run(&link, &control, options.die_with, signals);
		unlink(options.control);
	}
	control_close(&control);
	schedule_free(&link.schedule);
	for (int i = 0; i < LINK_DIRECTIONS; i++)
		wire_end_close(&link.ends[i]);
	close(signals);
	return code;
}
