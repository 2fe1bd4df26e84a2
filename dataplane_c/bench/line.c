// SPDX-License-Identifier: Apache-2.0
#include "line.h"

#include <pthread.h>
#include <sched.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum {
	LINE_BYTES = 128, /* and its neighbour, which prefetchers fetch with it */
	ROWS = 300,
	ROUNDS = 100, /* of a row: short, so that some rows are not interrupted */
};

/* Even: this side's to raise; odd: the other's. */
struct ball {
	alignas(LINE_BYTES) atomic_uint line;
	alignas(LINE_BYTES) atomic_bool up;
	int cpu;
};

static void *return_it(void *argument)
{
	struct ball *ball = argument;
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(ball->cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	atomic_store(&ball->up, true);
	for (uint32_t i = 0; i < ROWS * ROUNDS; i++) {
		while (atomic_load_explicit(&ball->line, memory_order_acquire) != 2 * i + 1)
			;
		atomic_store_explicit(&ball->line, 2 * i + 2, memory_order_release);
	}
	return NULL;
}

static double now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

double line_ns(int other_cpu)
{
	static struct ball ball;
	double shortest = 1e9;
	uint32_t i = 0;
	pthread_t thread;

	atomic_store(&ball.line, 0);
	atomic_store(&ball.up, false);
	ball.cpu = other_cpu;
	/* Not with the urgency of a measurement: it would wait on this processor for this thread to yield. */
	if (pthread_create(&thread, NULL, return_it, &ball)) {
		fprintf(stderr, "receive: no thread\n");
		exit(1);
	}
	while (!atomic_load(&ball.up))
		sched_yield();
	for (int row = 0; row < ROWS; row++) {
		double begun = now_ns(), taken;

		for (int round = 0; round < ROUNDS; round++, i++) {
			atomic_store_explicit(&ball.line, 2 * i + 1, memory_order_release);
			while (atomic_load_explicit(&ball.line, memory_order_acquire) != 2 * i + 2)
				;
		}
		taken = (now_ns() - begun) / ROUNDS;
		if (taken < shortest)
			shortest = taken;
	}
	pthread_join(thread, NULL);
	return shortest;
}
