/* SPDX-License-Identifier: Apache-2.0 */
#include "locals.h"

#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

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

void accord_locals_refresh(struct accord_locals *locals)
{
	struct ifaddrs *all;

	if (getifaddrs(&all))
		return; /* the old ones are better than none */
	locals->count = 0;
	for (const struct ifaddrs *each = all; each; each = each->ifa_next)
		if (each->ifa_addr && !add_local(locals, each->ifa_addr))
			break;
	freeifaddrs(all);
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
