/* SPDX-License-Identifier: Apache-2.0 */
#include "locals.h"

#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

enum {
	MOST_IPV4 = 1024, /* addresses of one host */
};

static int compare(const void *one, const void *other)
{
	return memcmp(one, other, sizeof(*((struct accord_locals *)0)->addresses));
}

/* Adds one socket address; other families are ignored. Returns 0 when memory is short. */
static int add_local(struct accord_locals *locals, const struct sockaddr *address)
{
	uint8_t key[17] = {0};

	if (address->sa_family == AF_INET) {
		key[0] = 4;
		memcpy(key + 1, &((const struct sockaddr_in *)(const void *)address)->sin_addr, 4);
	} else if (address->sa_family == AF_INET6) {
		key[0] = 6;
		memcpy(key + 1, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, 16);
	} else {
		return 1;
	}
	if (locals->count == locals->room) {
		uint32_t room = locals->room ? 2 * locals->room : 16;
		void *more = realloc(locals->addresses, room * sizeof(*locals->addresses));

		if (!more)
			return 0;
		locals->addresses = more;
		locals->room = room;
	}
	memcpy(locals->addresses[locals->count++], key, sizeof(key));
	return 1;
}

/* Not by getifaddrs(): that makes a netlink socket each time, which our seccomp filter does not allow. */
static int add_ipv4(struct accord_locals *locals, int asking)
{
	struct ifreq found[MOST_IPV4] = {0};
	struct ifconf ask = {.ifc_len = sizeof(found), .ifc_req = found};

	if (ioctl(asking, SIOCGIFCONF, &ask))
		return 0;
	for (size_t i = 0; i < (size_t)ask.ifc_len / sizeof(*found); i++)
		if (!add_local(locals, &found[i].ifr_addr))
			return 0;
	return 1;
}

/* Each line of it begins with 32 hexadecimal digits. Not there: the kernel has no IPv6. */
static void add_ipv6(struct accord_locals *locals)
{
	struct sockaddr_in6 address = {.sin6_family = AF_INET6};
	FILE *file = fopen("/proc/thread-self/net/if_inet6", "re");
	char line[128];

	while (file && fgets(line, sizeof(line), file)) {
		if (strlen(line) < 2 * sizeof(address.sin6_addr))
			break;
		for (size_t i = 0; i < sizeof(address.sin6_addr); i++) {
			const char digits[] = {line[2 * i], line[2 * i + 1], '\0'};

			address.sin6_addr.s6_addr[i] = (uint8_t)strtoul(digits, NULL, 16);
		}
		if (!add_local(locals, (const struct sockaddr *)&address))
			break;
	}
	if (file)
		fclose(file);
}

void accord_locals_refresh(struct accord_locals *locals, int asking)
{
	uint32_t before = locals->count;

	locals->count = 0;
	if (!add_ipv4(locals, asking)) {
		locals->count = before; /* the old ones are better than none */
		return;
	}
	add_ipv6(locals);
	if (locals->count)
		qsort(locals->addresses, locals->count, sizeof(*locals->addresses), compare);
}

int accord_locals_contain(const struct accord_locals *locals, const struct accord_path *path)
{
	uint8_t key[17] = {path->family};

	if (!locals->count)
		return 0;
	memcpy(key + 1, path->local, sizeof(path->local));
	return bsearch(key, locals->addresses, locals->count, sizeof(key), compare) != NULL;
}

void accord_locals_free(struct accord_locals *locals)
{
	free(locals->addresses);
	memset(locals, 0, sizeof(*locals));
}
