# SPDX-License-Identifier: Apache-2.0
"""The attach mode: what each choice comes to, on which driver, and the sentence that goes with it."""

from __future__ import annotations

import pytest

from accord.datapath import attach, probe_interface
from accord.datapath.attach import PRICES, consequence, plan
from accord.datapath.ethtool import driver
from accord.datapath.port import Rung
from accord.wire.constants import Reason
from accord.wire.errors import HostError, UserError
from tests.datapath.netns import Host

NATIVE, GENERIC, PACKET, UDP = Rung
EVERYTHING = 0x7F  # enum netdev_xdp_act of linux/netdev.h
DRIVERS = ("veth", "ixgbe", "virtio_net", "a driver of tomorrow")


def on(
    driver: str, monkeypatch: pytest.MonkeyPatch, back_end: str, mode: str, features: int | None = EVERYTHING
) -> attach.Plan:
    """The plan for the loopback interface, were it of that driver."""
    monkeypatch.setattr(attach, "driver", lambda _: driver)
    monkeypatch.setattr(probe_interface, "xdp_features", lambda _: features)
    return plan(back_end, mode, "lo")


@pytest.mark.parametrize(
    ("back_end", "mode", "rungs"),
    [
        ("auto", "native", (NATIVE, PACKET, UDP)),
        ("auto", "generic", (GENERIC, PACKET, UDP)),
        ("auto", "none", (PACKET, UDP)),
        ("af_xdp", "native", (NATIVE,)),
        ("af_xdp", "generic", (GENERIC,)),
        ("af_packet", "auto", (PACKET,)),
        ("af_packet", "none", (PACKET,)),
        ("udp", "auto", (UDP,)),
        ("udp", "none", (UDP,)),
    ],
)
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_mode_that_is_named_is_tried_on_every_driver_and_never_replaced_by_the_other(
    monkeypatch: pytest.MonkeyPatch, driver: str, back_end: str, mode: str, rungs: tuple[Rung, ...]
) -> None:
    found = on(driver, monkeypatch, back_end, mode)
    assert found.rungs == rungs
    assert consequence(rungs[0], driver) in found.why


@pytest.mark.parametrize(("back_end", "below"), [("auto", (PACKET, UDP)), ("af_xdp", ())])
@pytest.mark.parametrize("driver", DRIVERS)
def test_auto_takes_native_only_where_no_price_is_known_and_says_the_price(
    monkeypatch: pytest.MonkeyPatch, driver: str, back_end: str, below: tuple[Rung, ...]
) -> None:
    found = on(driver, monkeypatch, back_end, "auto")
    if driver in PRICES:
        assert found.rungs == (GENERIC, *below)
        assert PRICES[driver] in found.why
        assert "--attach native" in found.why
    else:
        assert found.rungs == (NATIVE, GENERIC, *below)
        assert driver in found.why


@pytest.mark.parametrize(("features", "words"), [(0, "no XDP"), (0x1, "XDP without redirect")])
@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_that_cannot_redirect_is_given_no_native_program_by_any_mode(
    monkeypatch: pytest.MonkeyPatch, driver: str, features: int, words: str
) -> None:
    for mode, rungs in (("auto", (GENERIC, PACKET, UDP)), ("native", (PACKET, UDP))):
        found = on(driver, monkeypatch, "auto", mode, features)
        assert found.rungs == rungs
        assert f"driver {driver} declares {words}" in found.why or (mode == "auto" and PRICES[driver] in found.why)
    with pytest.raises(HostError, match=words) as raised:
        on(driver, monkeypatch, "af_xdp", "native", features)
    assert raised.value.reason is Reason.NO_KERNEL_SUPPORT


def test_a_kernel_that_does_not_tell_is_asked_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    assert on("a driver of tomorrow", monkeypatch, "auto", "auto", None).rungs[0] is NATIVE


@pytest.mark.root
def test_the_loopback_interface_declares_no_native_xdp_and_is_not_tried() -> None:
    if probe_interface.xdp_features(1) is None:
        pytest.skip("the kernel does not tell (Linux 6.3 does)")
    assert plan("auto", "auto", "lo").rungs == (GENERIC, PACKET, UDP)


@pytest.mark.parametrize(
    ("back_end", "mode"), [("af_xdp", "none"), ("af_packet", "native"), ("udp", "generic"), ("af_packet", "generic")]
)
def test_a_back_end_that_contradicts_the_mode_is_the_users_fault(back_end: str, mode: str) -> None:
    with pytest.raises(UserError, match=f"{back_end} with attach mode {mode}") as raised:
        plan(back_end, mode, None)
    assert raised.value.reason is Reason.BAD_CONFIG


def test_an_interface_that_is_not_there_is_the_users_fault() -> None:
    with pytest.raises(UserError) as raised:
        plan("auto", "auto", "no-such-if0")
    assert raised.value.reason is Reason.NO_INTERFACE


def test_each_rung_has_its_own_consequence_and_the_ones_of_native_name_what_suffers() -> None:
    said = {rung: consequence(rung, "veth") for rung in Rung}
    assert len(set(said.values())) == 3  # nothing is attached on either of the two lower ones
    assert "4.7 Gbit/s" in said[NATIVE]
    for name, price in PRICES.items():
        assert "TSO" in price or "link" in price or "TCP" in price, name


@pytest.mark.root
def test_the_driver_of_an_interface_is_asked_in_its_own_namespace(far: Host) -> None:
    assert far.run(lambda: driver(far.interface)) == "veth"
    assert far.run(lambda: plan("auto", "auto", far.interface)).rungs == (GENERIC, PACKET, UDP)
    assert driver("no-such-if0") == "unknown"
