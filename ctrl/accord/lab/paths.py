# SPDX-License-Identifier: Apache-2.0
"""Kinds of path between two hosts, as middleboxes make them: what each does, and the router that does it.

A path is a router in a namespace of its own, with rules out of netfilter (iptables-restore(8)), and what the link does
beside it. docs/LAB.md has the table; tests/lab/test_paths.py shows for each that it does what is said here, and
nothing else. What a middlebox of the Internet does to options and to flows that it has not seen begin is in RFC 6994
and in Honda et al., "Is it Still Possible to Extend TCP?" (IMC 2011).
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from accord.lab.namespace import Namespace
from accord.wire.constants import Reason
from accord.wire.errors import HostError, UserError

# The option of PROTOCOL.md, section 10, and every other experiment's (RFC 6994).
_OPTION = 254
_LOOSE = "netfilter/nf_conntrack_tcp_loose"
_TIME_WAIT = "netfilter/nf_conntrack_tcp_timeout_time_wait"


@dataclass(frozen=True, slots=True)
class PathKind:
    """One kind of path."""

    name: str
    """As ``accord lab up --path`` takes it."""
    summary: str
    near: str = "server"
    """Which end of the link the router is at: ``client`` or ``server``."""
    clients: int = 1
    both: bool = False
    """Each host is behind a router of its own that does this; a third host is on the network between the two."""
    rules: str = ""
    """For iptables-restore and ip6tables-restore, in the router; the interfaces are those of ``topology``."""
    rules4: str = ""
    """Further ones, for IPv4 alone."""
    rules6: str = ""
    sysctl: Mapping[str, int] = field(default_factory=dict)
    """Of the router, below /proc/sys/net; set after the rules, since some exist only then."""
    host_sysctl: Mapping[str, int] = field(default_factory=dict)
    """Of the hosts."""
    link: Mapping[str, Any] = field(default_factory=dict)
    """Link settings (``LinkSettings.changed``) that belong to the path."""
    jitter: float = 0.0
    """Of the link, as a part of each way's delay."""

    def settings(self, delay: float) -> dict[str, Any]:
        """The link's settings, given the shorter way's delay in seconds."""
        return {**self.link, **({"jitter": self.jitter * delay} if self.jitter else {})}

    def apply(self, router: Namespace, hosts: Sequence[Namespace]) -> None:
        """Put rules and settings in force. Raises ``HostError`` with what the kernel lacks."""
        _restore(router, "iptables-restore", self.rules + self.rules4)
        if pathlib.Path("/proc/net/if_inet6").exists():
            _restore(router, "ip6tables-restore", self.rules + self.rules6)
        router.call(_set, self.sysctl)
        for host in hosts:
            host.call(_set, self.host_sysctl)


def _restore(router: Namespace, program: str, rules: str) -> None:
    if not rules:
        return
    try:
        done = router.run([program], input=rules, capture_output=True, text=True)
    except FileNotFoundError:
        raise HostError(
            Reason.NO_KERNEL_SUPPORT, f"{program} is not installed", "install it with: apt-get install iptables"
        ) from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())
        raise HostError(Reason.NO_KERNEL_SUPPORT, f"this kernel does not take the path's rules: {said}")


def _set(values: Mapping[str, int]) -> None:
    """Of the calling thread's namespace."""
    for name, value in values.items():
        try:
            pathlib.Path("/proc/sys/net", name).write_text(f"{value}\n")
        except OSError as refusal:
            raise HostError(Reason.NO_KERNEL_SUPPORT, f"net/{name}: {refusal.strerror}") from refusal


def _filter(*rules: str) -> str:
    return "\n".join(["*filter", *(f"-A FORWARD {rule}" for rule in rules), "COMMIT", ""])


# Known on both sides of the NAT: conntrack's own choice of source port, kept where it is free.
_MASQUERADE = "*nat\n-A POSTROUTING -o server-side -j MASQUERADE\nCOMMIT\n"
# iptables-extensions(8), SYNPROXY: the client's handshake is the proxy's; the server sees another SYN, without
# options that the proxy does not know, once the client has proven its address.
_SYNPROXY = "*raw\n-A PREROUTING -i client-side -p tcp --syn -j CT --notrack\nCOMMIT\n" + _filter(
    "-p tcp -m conntrack --ctstate INVALID,UNTRACKED -j SYNPROXY --sack-perm --mss {mss}",
    "-p tcp -m conntrack --ctstate INVALID -j DROP",
)

PATHS: Mapping[str, PathKind] = {
    path.name: path
    for path in (
        PathKind("router", "a plain router"),
        PathKind("nat", "a masquerading NAT before the client", near="client", rules=_MASQUERADE),
        PathKind("nat-two", "two clients behind one masquerading NAT", near="client", clients=2, rules=_MASQUERADE),
        PathKind(
            "strict",
            "a firewall whose connection tracking wants to have seen each TCP connection's SYN",
            rules=_filter("-m conntrack --ctstate INVALID -j DROP"),
            sysctl={_LOOSE: 0},
        ),
        PathKind(
            "new-needs-syn",
            "a firewall that drops a new TCP connection's first segment unless it is a SYN",
            rules=_filter("-p tcp ! --syn -m conntrack --ctstate NEW -j DROP"),
        ),
        PathKind(
            "option-stripped",
            "a middlebox that overwrites TCP option 254 by NOPs",
            rules=(
                f"*mangle\n-A FORWARD -p tcp --tcp-flags SYN SYN -j TCPOPTSTRIP --strip-options {_OPTION}\nCOMMIT\n"
            ),
        ),
        PathKind(
            "option-dropped",
            "a firewall that drops SYNs with TCP option 254",
            rules=_filter(f"-p tcp --tcp-flags SYN SYN --tcp-option {_OPTION} -j DROP"),
        ),
        PathKind("udp-dropped", "a firewall that drops UDP", rules=_filter("-p udp -j DROP")),
        PathKind(
            "udp-600",
            "a firewall that drops UDP in IP packets of more than 600 bytes",
            rules=_filter("-p udp -m length --length 601:65535 -j DROP"),
        ),
        PathKind("direct-dropped", "a firewall that drops IP protocol 253", rules=_filter("-p 253 -j DROP")),
        PathKind(
            "synproxy",
            "a SYN proxy before the server",
            rules4=_SYNPROXY.format(mss=1460),
            rules6=_SYNPROXY.format(mss=1440),
            # It leaves the ACK of a port's next connection to what is remembered of the last one, for 120 s: then that
            # connection fails, whoever makes it. Hosts that make thousands come upon their ports again.
            sysctl={_LOOSE: 0, _TIME_WAIT: 1, "ipv4/tcp_syncookies": 1},
        ),
        PathKind(
            "mtu-hole",
            "a link that loses packets over 1400 bytes without a word; the hosts probe (RFC 4821)",
            host_sysctl={"ipv4/tcp_mtu_probing": 1},
            link={"mtu": 1400},
        ),
        PathKind("loss", "a link that loses one packet in 20, either way", link={"loss": 0.05}),
        PathKind("reorder", "a link on which packets overtake each other", jitter=0.2),
    )
}


NAT_BOTH = PathKind(
    "nat-both",
    "a masquerading NAT before each host, and a rendezvous host that both can reach",
    near="client",
    # A NAT that answered what nobody asked for would remember it, and then map the port that is taken to another.
    rules=_MASQUERADE + "*filter\n-A INPUT -i server-side -p udp -j DROP\nCOMMIT\n",
    both=True,
)
EVERY_PATH: Mapping[str, PathKind] = {**PATHS, NAT_BOTH.name: NAT_BOTH}
"""With those on which the client cannot reach the server by itself."""


def path_named(name: str) -> PathKind:
    """Raises ``UserError`` (``BAD_CONFIG``) for a name that there is not."""
    if name not in EVERY_PATH:
        raise UserError(Reason.BAD_CONFIG, f"no path is called {name!r}", f"allowed: {', '.join(EVERY_PATH)}")
    return EVERY_PATH[name]
