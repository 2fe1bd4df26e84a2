/* SPDX-License-Identifier: Apache-2.0 */
/* Small things that need privilege, and giving all of it up. */
#include <arpa/inet.h>
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/rtnetlink.h>
#include <netinet/in.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ask.h"
#include "failure.h"

int accord_bind(int32_t fd, const struct accord_bind *address, struct accord_failure *failure)
{
	const struct accord_request request = {.kind = ACCORD_ASK_BIND};
	struct sockaddr_in ipv4 = {.sin_family = AF_INET, .sin_port = htons(address->port)};
	struct sockaddr_in6 ipv6 = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(address->port),
		.sin6_scope_id = address->scope,
	};
	int result;

	memcpy(&ipv4.sin_addr, address->address, sizeof(ipv4.sin_addr));
	memcpy(&ipv6.sin6_addr, address->address, sizeof(ipv6.sin6_addr));
	result = address->family == 4 ? bind(fd, (const struct sockaddr *)&ipv4, sizeof(ipv4))
	                              : bind(fd, (const struct sockaddr *)&ipv6, sizeof(ipv6));
	if (!result)
		return 0;
	if (errno == EACCES && accord_privilege_asks())
		return accord_ask(request, address, sizeof(*address), fd, NULL, 0, NULL, failure);
	return accord_fail(failure, ACCORD_REASON_CANNOT_INSTALL, errno, "bind");
}

int accord_link_bell(struct accord_failure *failure)
{
	const struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK};
	int fd, result;

	if (accord_privilege_asks()) {
		result = accord_ask((struct accord_request){.kind = ACCORD_ASK_BELL}, NULL, 0, -1, NULL, 0, &fd, failure);
		return result < 0 ? result : fd;
	}
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "socket(AF_NETLINK)");
	if (!bind(fd, (const struct sockaddr *)&address, sizeof(address)))
		return fd;
	result = accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, errno, "bind of AF_NETLINK");
	close(fd);
	return result;
}

/* ---- giving up ---- */

static int set_capabilities(const struct __user_cap_data_struct *sets)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};

	return (int)syscall(SYS_capset, &header, sets);
}

/* What this process does not have it cannot keep, and asking for it would fail. */
static int may_lock_memory(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {{0}};

	return !syscall(SYS_capget, &header, sets) &&
	       sets[CAP_TO_INDEX(CAP_IPC_LOCK)].permitted & CAP_TO_MASK(CAP_IPC_LOCK);
}

static int change_user(uint32_t user, uint32_t group)
{
	if (user == getuid() && user == geteuid())
		return 0;
	return setgroups(0, NULL) || setresgid(group, group, group) || setresuid(user, user, user);
}

/* Without CAP_SETPCAP they cannot be dropped, and with no_new_privs they mean nothing. */
static void drop_bounding_set(void)
{
	for (unsigned long capability = 0; prctl(PR_CAPBSET_READ, capability, 0, 0, 0) >= 0; capability++)
		prctl(PR_CAPBSET_DROP, capability, 0, 0, 0);
}

int accord_privilege_drop(uint32_t user, uint32_t group, uint32_t keep_memlock, struct accord_failure *failure)
{
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = {{0}};
	const char *call = "PR_SET_KEEPCAPS";

	keep_memlock = keep_memlock && may_lock_memory();
	if (keep_memlock) {
		sets[CAP_TO_INDEX(CAP_IPC_LOCK)].permitted = CAP_TO_MASK(CAP_IPC_LOCK);
		sets[CAP_TO_INDEX(CAP_IPC_LOCK)].effective = CAP_TO_MASK(CAP_IPC_LOCK);
	}
	drop_bounding_set();
	if (prctl(PR_SET_KEEPCAPS, keep_memlock != 0, 0, 0, 0))
		goto failed;
	call = "setresuid";
	if (change_user(user, group))
		goto failed;
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); /* kernels that do not know it have none */
	call = "capset";
	if (set_capabilities(sets))
		goto failed;
	call = "PR_SET_NO_NEW_PRIVS";
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		goto failed;
	call = "PR_SET_DUMPABLE";
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0))
		goto failed;
	/* After the change of user, which would undo it. */
	call = "PR_SET_PDEATHSIG";
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0))
		goto failed;
	return 0;
failed:
	return accord_fail(failure, ACCORD_REASON_NO_PRIVILEGE, errno, "giving up privileges: %s", call);
}
