/* SPDX-License-Identifier: Apache-2.0 */
#include "netdev.h"

#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/ethtool.h>
#include <linux/sockios.h>

#include "failure.h"

static int request(int command, const char *name, struct ifreq *ask)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), result, error;

	if (fd < 0)
		return -errno;
	snprintf(ask->ifr_name, sizeof(ask->ifr_name), "%s", name);
	result = ioctl(fd, (unsigned long)command, ask);
	error = errno;
	close(fd);
	return result < 0 ? -error : 0;
}

/* Not every driver answers the ethtool question; sysfs may show another namespace's interfaces, so comes second. */
static uint32_t receive_queues(const char *name)
{
	struct ethtool_channels channels = {.cmd = ETHTOOL_GCHANNELS};
	struct ifreq ask = {.ifr_data = (char *)&channels};
	char path[64];
	struct dirent *entry;
	uint32_t count = 0;
	DIR *directory;

	if (!request(SIOCETHTOOL, name, &ask))
		count = channels.rx_count + channels.combined_count;
	if (!count) {
		snprintf(path, sizeof(path), "/sys/class/net/%s/queues", name);
		directory = opendir(path);
		while (directory && (entry = readdir(directory)))
			count += !strncmp(entry->d_name, "rx-", 3);
		if (directory)
			closedir(directory);
	}
	if (count > ACCORD_MAX_QUEUES)
		count = ACCORD_MAX_QUEUES;
	return count ? count : 1;
}

int accord_netdev_open(const char *name, struct accord_netdev *netdev, struct accord_failure *failure)
{
	struct ifreq ask = {0};
	int result;

	memset(netdev, 0, sizeof(*netdev));
	if (strlen(name) >= sizeof(netdev->name))
		return accord_fail(failure, ACCORD_REASON_NO_INTERFACE, 0, "interface %.40s: the name is too long", name);
	snprintf(netdev->name, sizeof(netdev->name), "%s", name);
	result = request(SIOCGIFINDEX, name, &ask);
	if (result)
		return accord_fail(failure, ACCORD_REASON_NO_INTERFACE, -result, "interface %s", name);
	netdev->index = ask.ifr_ifindex;
	result = request(SIOCGIFHWADDR, name, &ask);
	if (result)
		return accord_fail(failure, ACCORD_REASON_NO_INTERFACE, -result, "interface %s", name);
	if (ask.ifr_hwaddr.sa_family != ARPHRD_ETHER && ask.ifr_hwaddr.sa_family != ARPHRD_LOOPBACK)
		return accord_fail(failure, ACCORD_REASON_NO_KERNEL_SUPPORT, 0, "interface %s is no Ethernet interface", name);
	memcpy(netdev->address, ask.ifr_hwaddr.sa_data, sizeof(netdev->address));
	result = request(SIOCGIFMTU, name, &ask);
	if (result)
		return accord_fail(failure, ACCORD_REASON_NO_INTERFACE, -result, "interface %s", name);
	netdev->mtu = (uint32_t)ask.ifr_mtu;
	netdev->queues = receive_queues(name);
	return 0;
}

void accord_netdev_refresh(struct accord_netdev *netdev, int asking)
{
	struct ifreq ask = {.ifr_ifindex = netdev->index};

	/* Renamed or not, it is the index that the program is attached to. */
	if (ioctl(asking, SIOCGIFNAME, &ask))
		return;
	memcpy(netdev->name, ask.ifr_name, sizeof(netdev->name));
	if (!ioctl(asking, SIOCGIFHWADDR, &ask))
		memcpy(netdev->address, ask.ifr_hwaddr.sa_data, sizeof(netdev->address));
}
