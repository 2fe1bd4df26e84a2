// SPDX-License-Identifier: Apache-2.0
/*
 * Keeps every processor but the first free of other work while something is measured there: processors that share
 * a core share its caches and its units. Ends when its standard input does, and after MOST_MS in any case.
 */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
	MOST_MS = 900, /* within the 95 % of a second that sched(7) leaves to real-time threads */
	MEASURED_CPU = 0,
};

static void relax(void)
{
#if defined(__x86_64__)
	__builtin_ia32_pause(); /* leaves the core's units to the other processor on it */
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static void *occupy(void *argument)
{
	(void)argument;
	for (;;)
		relax();
	return NULL;
}

int main(void)
{
	const struct sched_param first = {.sched_priority = 2}, second = {.sched_priority = 1};
	struct pollfd input = {.fd = STDIN_FILENO};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int error = 0;

	/* Above the threads, to be able to end them. */
	if (sched_setscheduler(0, SCHED_FIFO, &first)) {
		perror("hush: SCHED_FIFO");
		return 1;
	}
	for (int cpu = 0; cpu < cpus && !error; cpu++) {
		pthread_attr_t attributes;
		pthread_t thread;
		cpu_set_t set;

		if (cpu == MEASURED_CPU)
			continue;
		CPU_ZERO(&set);
		CPU_SET(cpu, &set);
		pthread_attr_init(&attributes);
		pthread_attr_setaffinity_np(&attributes, sizeof(set), &set);
		pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
		pthread_attr_setschedpolicy(&attributes, SCHED_FIFO);
		pthread_attr_setschedparam(&attributes, &second);
		error = pthread_create(&thread, &attributes, occupy, NULL);
		pthread_attr_destroy(&attributes);
	}
	if (error) {
		fprintf(stderr, "hush: %s\n", strerror(error));
		return 1;
	}
	puts("quiet");
	fflush(stdout);
	poll(&input, 1, MOST_MS);
	return 0;
}
