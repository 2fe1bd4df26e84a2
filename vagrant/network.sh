#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Run as root at each start: what Vagrant's own network settings cannot say. $1: the host's name.
set -eu
case "$1" in
client)
    ip -6 address replace fd84:1::2/64 dev eth1 nodad
    ip route replace 10.84.2.0/24 via 10.84.1.1
    ip -6 route replace fd84:2::/64 via fd84:1::1
    ;;
server)
    ip -6 address replace fd84:2::2/64 dev eth1 nodad
    ip route replace 10.84.1.0/24 via 10.84.2.1
    ip -6 route replace fd84:1::/64 via fd84:2::1
    ;;
router)
    ip -6 address replace fd84:1::1/64 dev eth1 nodad
    ip -6 address replace fd84:2::1/64 dev eth2 nodad
    command -v tcpdump >/dev/null || { apt-get -q update && apt-get -q -y install --no-install-recommends tcpdump; }
    sysctl -q -w net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1
    ;;
*)
    echo "network.sh: there is no host '$1': client, router or server" >&2
    exit 2
    ;;
esac
