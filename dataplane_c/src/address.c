/* SPDX-License-Identifier: Apache-2.0 */
#include "address.h"

#include <arpa/inet.h>
#include <string.h>

static void set_ipv6(uint8_t address[16], uint8_t *family, const struct in6_addr *from)
{
	memset(address, 0, 16);
	if (IN6_IS_ADDR_V4MAPPED(from)) {
		*family = 4;
		memcpy(address, from->s6_addr + 12, 4);
	} else {
		*family = 6;
		memcpy(address, from->s6_addr, 16);
	}
}

static void get_ipv6(struct in6_addr *to, const uint8_t address[16], uint8_t family)
{
	if (family == 6) {
		memcpy(to->s6_addr, address, 16);
		return;
	}
	memset(to->s6_addr, 0, 10);
	to->s6_addr[10] = to->s6_addr[11] = 0xff;
	memcpy(to->s6_addr + 12, address, 4);
}

int accord_address_remote(struct accord_path *path, const struct sockaddr_storage *from)
{
	struct sockaddr_in6 ipv6;
	struct sockaddr_in ipv4;

	switch (from->ss_family) {
	case AF_INET:
		memcpy(&ipv4, from, sizeof(ipv4));
		path->family = 4;
		path->remote_port = ntohs(ipv4.sin_port);
		memcpy(path->remote, &ipv4.sin_addr, 4);
		return 0;
	case AF_INET6:
		memcpy(&ipv6, from, sizeof(ipv6));
		path->remote_port = ntohs(ipv6.sin6_port);
		path->scope = ipv6.sin6_scope_id;
		set_ipv6(path->remote, &path->family, &ipv6.sin6_addr);
		return 0;
	default:
		return -ACCORD_REASON_NOT_IP;
	}
}

socklen_t accord_address_to(const struct accord_path *path, sa_family_t family, struct sockaddr_storage *to)
{
	struct sockaddr_in6 ipv6 = {.sin6_family = AF_INET6};
	struct sockaddr_in ipv4 = {.sin_family = AF_INET};

	if (family == AF_INET6) {
		ipv6.sin6_port = htons(path->remote_port);
		ipv6.sin6_scope_id = path->scope;
		get_ipv6(&ipv6.sin6_addr, path->remote, path->family);
		memcpy(to, &ipv6, sizeof(ipv6));
		return sizeof(ipv6);
	}
	if (path->family != 4)
		return 0;
	ipv4.sin_port = htons(path->remote_port);
	memcpy(&ipv4.sin_addr, path->remote, 4);
	memcpy(to, &ipv4, sizeof(ipv4));
	return sizeof(ipv4);
}

void accord_address_local(struct accord_path *path, struct msghdr *message, int *interface)
{
	for (struct cmsghdr *each = CMSG_FIRSTHDR(message); each; each = CMSG_NXTHDR(message, each)) {
		if (each->cmsg_level == IPPROTO_IP && each->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo info;

			memcpy(&info, CMSG_DATA(each), sizeof(info));
			/* Not ipi_addr: a datagram to a group or a broadcast address is answered from our own. But the kernel
			 * notes ours when a datagram enters the socket, and only if IP_PKTINFO was on already. */
			if (info.ipi_spec_dst.s_addr)
				memcpy(path->local, &info.ipi_spec_dst, 4);
			else if (!IN_MULTICAST(ntohl(info.ipi_addr.s_addr)) && info.ipi_addr.s_addr != htonl(INADDR_BROADCAST))
				memcpy(path->local, &info.ipi_addr, 4);
			*interface = info.ipi_ifindex;
		} else if (each->cmsg_level == IPPROTO_IPV6 && each->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo info;
			uint8_t family;

			memcpy(&info, CMSG_DATA(each), sizeof(info));
			if (!IN6_IS_ADDR_MULTICAST(&info.ipi6_addr))
				set_ipv6(path->local, &family, &info.ipi6_addr);
			*interface = (int)info.ipi6_ifindex;
		}
	}
}

static void add_control(struct msghdr *message, void *control, int level, int type, const void *data, size_t bytes)
{
	struct cmsghdr *header;

	memset(control, 0, CMSG_SPACE(bytes));
	message->msg_control = control;
	message->msg_controllen = CMSG_SPACE(bytes);
	header = CMSG_FIRSTHDR(message);
	header->cmsg_level = level;
	header->cmsg_type = type;
	header->cmsg_len = CMSG_LEN(bytes);
	memcpy(CMSG_DATA(header), data, bytes);
}

void accord_address_from(const struct accord_path *path, sa_family_t family, struct msghdr *message, void *control)
{
	static const uint8_t any[16];

	if (!memcmp(path->local, any, sizeof(any)))
		return; /* the kernel chooses */
	if (family == AF_INET6) {
		struct in6_pktinfo info = {.ipi6_ifindex = path->scope};

		get_ipv6(&info.ipi6_addr, path->local, path->family);
		add_control(message, control, IPPROTO_IPV6, IPV6_PKTINFO, &info, sizeof(info));
	} else {
		struct in_pktinfo info = {0};

		memcpy(&info.ipi_spec_dst, path->local, 4);
		add_control(message, control, IPPROTO_IP, IP_PKTINFO, &info, sizeof(info));
	}
}
