# SPDX-License-Identifier: Apache-2.0
"""RFC 9002, appendices A and B, in Python, for one packet number space and in packets: the oracle of the C engine.

Names are the appendices'. Time is microseconds. What docs/PROTOCOL.md, section 4.3, lists as departures is marked here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

K_PACKET_THRESHOLD = 3
K_GRANULARITY = 1000
K_INITIAL_RTT = 333_000
K_INITIAL_WINDOW = 10
K_MINIMUM_WINDOW = 2
K_PERSISTENT_CONGESTION_THRESHOLD = 3
MAX_ACK_DELAY = 25_000
MAX_PTO = 1_000_000
"""Departure: a probe time-out does not grow beyond this by backing off."""
MAX_WINDOW = 256
"""Departure: there are no more packets than this."""


@dataclass(slots=True)
class Sent:
    """A transmission."""

    number: int
    tsn: int
    time_sent: int
    in_flight: bool = True
    first: bool = True
    """The TSN had not been sent before."""


@dataclass
class Sender:
    """One sender. ``on_packet_sent``, ``on_ack_received`` and ``on_timeout`` are told what happens."""

    sent_packets: dict[int, Sent] = field(default_factory=dict)
    lost: list[Sent] = field(default_factory=list)
    """Declared lost and not sent again."""
    next_number: int = 0
    largest_acked: int = -1
    latest_rtt: int = 0
    smoothed_rtt: int = 0
    rttvar: int = 0
    min_rtt: int = 0
    first_rtt_sample: int = 0
    pto_count: int = 0
    loss_time: int = 0
    timer_base: int = 0
    congestion_window: int = K_INITIAL_WINDOW
    ssthresh: int = 1 << 32
    recovery_start: int = 0
    credit: int = 0
    first_acked: int = 0
    """When the first of the transmissions left that are being acknowledged; 0: not clear, or none are."""
    missing: Sent | None = None
    """What the peer has said that it has not."""

    # ---- A.5 ----

    def on_packet_sent(self, tsn: int, now: int) -> None:
        earlier = [sent for sent in self.sent_packets.values() if sent.tsn == tsn]
        again = bool(earlier) or any(sent.tsn == tsn for sent in self.lost)
        # Departure: a packet is in flight once, whatever number of transmissions it has had.
        for sent in earlier:
            sent.in_flight = False
        self.lost = [sent for sent in self.lost if sent.tsn != tsn]
        self.sent_packets[self.next_number] = Sent(self.next_number, tsn, now, first=not again)
        self.next_number += 1
        self.timer_base = now

    @property
    def bytes_in_flight(self) -> int:
        return sum(sent.in_flight for sent in self.sent_packets.values())

    # ---- A.7 ----

    def on_ack_received(self, acked: list[int], now: int, limited: bool) -> None:
        """``acked``: numbers of transmissions, newly acknowledged.

        Departure: the acknowledgement names a TSN. It is taken for that of the latest transmission, unless that left
        less than the shortest round trip ago.
        """
        newly = [self.sent_packets.pop(number) for number in sorted(acked)]
        late = {sent.tsn for sent in newly}
        latest = newly[-1]
        certain = [sent for sent in newly if sent.first or now - sent.time_sent >= self.min_rtt]
        if latest.number > self.largest_acked and latest.first:  # Departure: Karn
            self.update_rtt(now - latest.time_sent, now)
        self.largest_acked = max([self.largest_acked, *(sent.number for sent in certain)])
        if len(certain) < len(newly):  # earlier transmissions of those came: they are not lost
            earlier = late - {sent.tsn for sent in certain}
            for number in [n for n, sent in self.sent_packets.items() if sent.tsn in earlier]:
                del self.sent_packets[number]
        self.pto_count = 0
        self.timer_base = now  # section 6.2.1
        in_flight = [sent for sent in newly if sent.in_flight]
        self.first_acked = min(sent.time_sent for sent in in_flight) if len(certain) == len(newly) and in_flight else 0
        self.detect_and_remove_lost_packets(now)
        self.first_acked = 0
        # What was declared lost and came all the same, and earlier transmissions of what came, are not lost data.
        self.lost = [sent for sent in self.lost if sent.tsn not in late]
        for number in [n for n, sent in self.sent_packets.items() if sent.tsn in late]:
            del self.sent_packets[number]
        if limited:
            self.on_packets_acked([sent for sent in newly if sent.in_flight], now)

    def on_ack_ended(self, tsn: int) -> None:
        """An acknowledgement's range ended before it (section 6.2.3, which leaves open how that is noticed)."""
        sent = [sent for sent in self.sent_packets.values() if sent.tsn == tsn and sent.in_flight]
        if sent:
            self.missing = sent[-1]

    def update_rtt(self, sample: int, now: int) -> None:
        self.latest_rtt = sample
        if not self.first_rtt_sample:
            self.min_rtt = self.smoothed_rtt = sample
            self.rttvar = sample // 2
            self.first_rtt_sample = now
            return
        self.min_rtt = min(self.min_rtt, sample)
        self.rttvar = (3 * self.rttvar + abs(self.smoothed_rtt - sample)) // 4
        self.smoothed_rtt = (7 * self.smoothed_rtt + sample) // 8

    # ---- A.8 ----

    def pto(self) -> int:
        if not self.smoothed_rtt:
            return K_INITIAL_RTT + max(4 * (K_INITIAL_RTT // 2), K_GRANULARITY) + MAX_ACK_DELAY
        return self.smoothed_rtt + max(4 * self.rttvar, K_GRANULARITY) + MAX_ACK_DELAY

    def timeout_at(self) -> int | None:
        """When the loss detection timer is set to."""
        if self.loss_time:
            return self.loss_time
        if not self.bytes_in_flight:
            return None
        interval = self.pto() << min(self.pto_count, 8)
        if interval > MAX_PTO:
            interval = max(self.pto(), MAX_PTO)
        early = self.early_at()
        return self.timer_base + interval if early is None else min(self.timer_base + interval, early)

    def early_at(self) -> int | None:
        """Section 6.2.3, a limited number of times: only the first time-out in a row."""
        missing = self.missing
        if missing is None or not missing.in_flight or missing.number not in self.sent_packets or self.pto_count:
            return None
        return missing.time_sent + self.loss_delay() + MAX_ACK_DELAY

    # ---- A.9 ----

    def on_timeout(self, now: int) -> int:
        """The least number of probes that are to be sent; 1: of ``missing``."""
        if self.loss_time:
            self.detect_and_remove_lost_packets(now)
            return 0
        early, late = self.early_at(), self.timer_base + (self.pto() << self.pto_count)
        self.pto_count += 1
        self.timer_base = now
        return 1 if early is not None and early <= now < late else 2

    # ---- A.10 ----

    def loss_delay(self) -> int:
        rtt = max(self.latest_rtt, self.smoothed_rtt)
        return max(rtt + rtt // 8, K_GRANULARITY)

    def detect_and_remove_lost_packets(self, now: int) -> None:
        self.loss_time = 0
        delay = self.loss_delay()
        found = []
        for number, sent in sorted(self.sent_packets.items()):
            if number > self.largest_acked:
                continue
            if sent.time_sent + delay <= now or self.largest_acked >= number + K_PACKET_THRESHOLD:
                found.append(self.sent_packets.pop(number))
            elif sent.in_flight and (not self.loss_time or sent.time_sent + delay < self.loss_time):
                self.loss_time = sent.time_sent + delay
        if found:
            self.lost += [sent for sent in found if sent.in_flight]
            self.on_packets_lost(found, now)

    # ---- B.5, B.6, B.7, B.8 ----

    def in_recovery(self, time_sent: int) -> bool:
        return time_sent <= self.recovery_start

    def on_packets_acked(self, acked: list[Sent], now: int) -> None:
        packets = sum(not self.in_recovery(sent.time_sent) for sent in acked)
        if self.congestion_window < self.ssthresh:
            slow = min(packets, self.ssthresh - self.congestion_window)
            self.congestion_window += slow
            packets -= slow
        self.credit += packets
        while self.credit >= self.congestion_window and packets:
            self.credit -= self.congestion_window
            self.congestion_window += 1
        self.congestion_window = min(self.congestion_window, MAX_WINDOW)

    def on_packets_lost(self, lost: list[Sent], now: int) -> None:
        if not self.in_recovery(max(sent.time_sent for sent in lost)):
            self.recovery_start = now
            self.ssthresh = self.congestion_window = max(self.congestion_window // 2, K_MINIMUM_WINDOW)
            self.credit = 0
        # Departure: of what left before all that was acknowledged with it, and only if it is clear what that was.
        since = [sent for sent in lost if self.first_acked > sent.time_sent > self.first_rtt_sample > 0]
        if since and self.in_persistent_congestion(since):
            self.congestion_window = K_MINIMUM_WINDOW
            self.recovery_start = 0

    def in_persistent_congestion(self, lost: list[Sent]) -> bool:
        """Nothing between them was acknowledged: whoever drives this acknowledges transmissions in order."""
        times = [sent.time_sent for sent in lost]
        return max(times) - min(times) > self.pto() * K_PERSISTENT_CONGESTION_THRESHOLD
