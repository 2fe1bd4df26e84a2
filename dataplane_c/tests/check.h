/* SPDX-License-Identifier: Apache-2.0 */
/* Tests are functions whose names are sentences; a CHECK that fails says where, and the program goes on. */
#ifndef ACCORD_CHECK_H
#define ACCORD_CHECK_H

#include <inttypes.h>
#include <stdio.h>

static unsigned check_failures;
static unsigned check_count;

#define CHECK(condition) \
	do { \
		check_count++; \
		if (!(condition)) { \
			check_failures++; \
			fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition); \
		} \
	} while (0)

/* Both sides are integers; the values are printed. */
#define CHECK_EQUAL(actual, expected) \
	do { \
		long long check_actual = (long long)(actual), check_expected = (long long)(expected); \
		check_count++; \
		if (check_actual != check_expected) { \
			check_failures++; \
			fprintf(stderr, "%s:%d: %s: %s is %lld, not %lld\n", __FILE__, __LINE__, __func__, #actual, check_actual, \
			        check_expected); \
		} \
	} while (0)

#define RUN(test) \
	do { \
		unsigned check_before = check_failures; \
		test(); \
		printf("%s %s\n", check_failures == check_before ? "ok  " : "FAIL", #test); \
	} while (0)

static inline int check_report(const char *program)
{
	printf("%s: %u checks, %u failed\n", program, check_count, check_failures);
	return check_failures ? 1 : 0;
}

#endif /* ACCORD_CHECK_H */
