# SPDX-License-Identifier: Apache-2.0
"""The suite between two machines and a router with netem, on one kernel. Started by `./build.py vm test`.

All is done over ssh with what is installed there, as an operator would. A row per case: *pass* when what was promised
happened; *fail* with what happened else; *absent* when the kernel has not what the case needs, in its own words.
"""

from __future__ import annotations

import contextlib
import fnmatch
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.box import ASCII
from rich.console import Console
from rich.table import Table

from accord.cli.demo import CASES as DEMO
from vagrant import demo_cases, host_cases, kernel_cases, round_trips, service_cases
from vagrant.machines import (
    FLOOR_MS,
    HOSTS,
    PATIENCE,
    SERVER_HOST,
    Absent,
    Failed,
    Link,
    check_identity,
    end_all,
    measure_rtt,
    shape,
    start_both,
    start_server,
    unshape,
)

Row = dict[str, Any]
BULK_BYTES: Final = 100_000_000
BULK_RTT: Final = 20.0
WEATHER_RTT: Final = 100.0
SMOKE: Final = ("native-xdp", "today-tls-tcp", "accord-*", "no-accord-peer", "kernel-*", "wireguard")
SMOKE_BYTES: Final = 2_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked of a run."""

    rtts: tuple[float, ...]
    netem: str
    family: int
    repeats: int
    bytes: int
    names: tuple[str, ...]
    weather: bool
    results: Path

    def wants(self, name: str) -> bool:
        """Whether a case is to run; patterns as a shell's."""
        return not self.names or any(fnmatch.fnmatchcase(name, pattern) for pattern in self.names)


def attempt(row: Row, case: Callable[[], Row]) -> Row:
    """``row`` with how the case ended and its columns."""
    begin = time.monotonic()
    try:
        columns = case()
    except Absent as absent:
        ended: Row = {"result": "absent", "reason": str(absent)}
    except (Failed, KeyError, IndexError, ValueError) as failure:
        what = str(failure) if isinstance(failure, Failed) else f"{type(failure).__name__}: {failure}"
        ended = {"result": "fail", "reason": what}
    else:
        ended = {"result": "pass", "reason": "", **columns}
    return {**row, **ended, "took_s": round(time.monotonic() - begin, 1)}


class Suite:
    """One run. ``rows`` grows as it goes, so that what was seen is not lost with what was not."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._console = console
        self._findings: dict[str, dict[str, Any]] = {}
        self.rows: list[Row] = []
        self.kernel = ""

    def run(self) -> None:
        """Every row. Whatever was set up in the machines for it is ended again. Raises ``Failed`` before the first."""
        self.kernel = check_identity()["client"]
        with ThreadPoolExecutor(len(HOSTS)) as threads:
            reports = list(threads.map(lambda host: host.run("accord doctor --iface eth1 --json", timeout=180), HOSTS))
        for host, report in zip(HOSTS, reports, strict=True):
            (self._plan.results / f"doctor-{host.name}.json").write_text(report)
        self._findings = {each["name"]: each for each in json.loads(report)["findings"]}
        unshape()  # what a run that was killed may have left
        bare = measure_rtt(Link(0, "", self._plan.family).server)
        self._console.print(f"between the hosts: {bare:.1f} ms without netem")
        if bare > FLOOR_MS * PATIENCE:
            raise Failed(f"a round trip without netem takes {bare:.1f} ms: is the machine busy?")
        try:
            start_server()
            self._demo()
            self.rows += round_trips.rows(self.rows)
            self._host(("queues",))
            self._host((*host_cases.NEEDS_DAEMONS, "mode-unmodified-client", "suppression", "fallback", "tracing"))
            self._kernel()
            for name, case in service_cases.CASES.items():
                self._add(name, lambda case=case: case(self._findings))  # type: ignore[misc]
        finally:
            for host in HOSTS:
                with contextlib.suppress(Failed):
                    (self._plan.results / f"{host.name}-vm-daemon.log").write_text(host.log("vm-daemon"))
            end_all()

    def _add(self, name: str, case: Callable[[], Row], **columns: Any) -> bool:
        """Run a case that is wanted; whether it passed, or was not."""
        if not self._plan.wants(name):
            return True
        words = " ".join(
            [name, *(f"{value:g} ms" if key == "rtt_ms" else str(value) for key, value in columns.items())]
        )
        row = attempt({"case": name, **columns}, case)
        self._console.print(f"{words}: {row['result']} {row['reason'][:300]}", markup=False, highlight=False)
        self.rows.append(row)
        return bool(row["result"] == "pass")

    @contextlib.contextmanager
    def _shaped(self, link: Link) -> Iterator[float]:
        """The link as it is asked for; the round trip that it has, milliseconds."""
        shape(link.netem)
        try:
            measured = measure_rtt(link.server)
            within = link.rtt - (FLOOR_MS + 20 if link.more else 0) <= measured <= link.rtt + FLOOR_MS * PATIENCE
            if not within and "rate" not in link.more:
                raise Failed(f"netem was to make a round trip of {link.rtt:g} ms, and it takes {measured:.1f} ms")
            yield measured
        finally:
            unshape()

    # ---- the demo's cases ----

    def _demo(self) -> None:
        plan = self._plan
        wanted = [case for case in DEMO if plan.wants(case.name)]
        if not wanted and not plan.wants("native-xdp"):
            return
        if not self._add("native-xdp", lambda: host_cases.native_xdp(self._findings)) or not plan.wants("native-xdp"):
            try:
                start_both()
            except Failed as failure:
                self._lost([case.name for case in wanted], {}, failure)
                return
        links = [Link(rtt, plan.netem, plan.family) for rtt in plan.rtts]
        for link in links:
            self._at(link, [case for case in wanted if case.daemon_at_server], plan.repeats)
        if plan.weather:
            for name, words in demo_cases.WEATHER.items():
                link = Link(WEATHER_RTT, words, plan.family)
                self._at(link, [case for case in wanted if case.name in demo_cases.IN_WEATHER], 2, name)
        alone = [case for case in wanted if not case.daemon_at_server]
        if alone:
            SERVER_HOST.stop("vm-expose", "vm-daemon")
            for link in links:
                self._at(link, alone, plan.repeats)

    def _at(self, link: Link, cases: list[Any], repeats: int, weather: str = "") -> None:
        if not cases:
            return
        columns: Row = {"rtt_ms": link.rtt, **({"weather": weather} if weather else {})}
        try:
            with self._shaped(link) as measured:
                for case in cases:
                    file = f"{case.name}-{link.rtt:g}ms{weather and '-' + weather}"
                    self._add(
                        case.name,
                        lambda case=case, file=file: demo_cases.row(  # type: ignore[misc]
                            case, file, link, measured, repeats, self._plan.results
                        ),
                        **columns,
                    )
        except (Absent, Failed) as refused:
            self._lost([case.name for case in cases], columns, refused)

    def _lost(self, names: list[str], columns: Row, why: Absent | Failed) -> None:
        """A row for each of these that has none: what they stand on could not be had."""
        result = "absent" if isinstance(why, Absent) else "fail"
        self._console.print(f"{', '.join(names)}: {result} {str(why)[:300]}", markup=False, highlight=False)
        told = {row["case"] for row in self.rows if all(row.get(key) == value for key, value in columns.items())}
        self.rows += [
            {"case": name, **columns, "result": result, "reason": str(why)} for name in names if name not in told
        ]

    # ---- the rest ----

    def _host(self, names: tuple[str, ...]) -> None:
        if needing := [name for name in names if name in host_cases.NEEDS_DAEMONS and self._plan.wants(name)]:
            try:
                start_both()
            except Failed as failure:
                self._lost(needing, {}, failure)
                names = tuple(name for name in names if name not in needing)
        for name in names:
            self._add(name, lambda name=name: host_cases.CASES[name](self._findings))  # type: ignore[misc]

    def _kernel(self) -> None:
        names = [name for name in kernel_cases.CASES if self._plan.wants(name)]
        if not names:
            return
        try:
            kernel_cases.prepare()
            with self._shaped(Link(BULK_RTT)):
                for name in names:
                    self._add(
                        name,
                        lambda name=name: kernel_cases.run(  # type: ignore[misc]
                            name, self._plan.bytes, self._findings, self._plan.results
                        ),
                    )
        except (Absent, Failed) as refused:
            self._lost(names, {}, refused)
        (self._plan.results / "server-vm-carry.log").write_text(SERVER_HOST.log("vm-carry"))
        SERVER_HOST.stop("vm-carry")


def show(outcome: Row, console: Console) -> None:
    """The table, and why what did not pass did not."""
    table = Table(title=f"Linux {outcome['kernel']}, IPv{outcome['family']}", box=ASCII)
    table.caption = "times in round trips: medians, or the slope over the round trips above; packets per connection"
    for column in ("case", "link", "result", "stack"):
        table.add_column(column, no_wrap=True)
    for column in ("ready", "first\nresponse", "SYNs", "negotiation\npackets", "all\npackets"):
        table.add_column(column, justify="right")
    for found in outcome["rows"]:
        keys = ("ready_rtts", "first_response_rtts", "syn_packets", "negotiation_packets", "packets")
        figures = [f"{found[key]:.3g}" if key in found else "" for key in keys]
        link = " ".join([f"{found['rtt_ms']:g} ms" if "rtt_ms" in found else "", found.get("weather", "")]).strip()
        link = "slope" if "slope" in found else link
        table.add_row(found["case"], link, found["result"], "/".join(found.get("stack", [])), *figures)
    console.print(table)
    for found in outcome["rows"]:
        if found["reason"]:
            console.print(f"{found['case']}: {found['result']}: {found['reason']}", markup=False, highlight=False)


def known_cases() -> list[str]:
    """Every name that a row may have."""
    return [*(case.name for case in DEMO), *host_cases.CASES, *kernel_cases.CASES, *service_cases.CASES]


def _patterns(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for pattern in given:
        if not fnmatch.filter(known_cases(), pattern):
            raise click.BadParameter(f"no case is called {pattern!r}: {', '.join(known_cases())}")
    return given


@click.command()
@click.option("--kernel", required=True, help="As asked for; what runs is compared with it.")
@click.option("--results", type=click.Path(path_type=Path, file_okay=False), required=True, help="For logs, captures.")
@click.option("--rtt", "rtts", type=click.FloatRange(2, 2000), multiple=True, help="Milliseconds; may be repeated.")
@click.option("--netem", "more", default="", metavar="WORDS", help="More for both ways, such as 'loss 2% reorder 5%'.")
@click.option("--family", type=click.Choice(["4", "6"]), default="4", show_default=True, help="IPv4 or IPv6.")
@click.option("--case", "names", multiple=True, callback=_patterns, help="Only these; a pattern as a shell's.")
@click.option("--repeats", type=click.IntRange(1, 100), default=9, show_default=True, help="Connections a case.")
@click.option("--bytes", "size", type=click.IntRange(1), default=BULK_BYTES, show_default=True, help="Of a bulk file.")
@click.option("--smoke", is_flag=True, help="One round trip time, few connections, small files, no service.")
@click.option("--check", is_flag=True, help="Only look whether these options can be read.")
@click.option("--json", "as_json", is_flag=True, help="The table goes to standard error.")
def main(
    kernel: str,
    results: Path,
    rtts: tuple[float, ...],
    more: str,
    family: str,
    names: tuple[str, ...],
    repeats: int,
    size: int,
    smoke: bool,
    check: bool,
    as_json: bool,
) -> None:
    """Run the cases between the two hosts and print a row for each; RESULTS/result.json has them all."""
    if check:
        return
    console = Console(stderr=as_json, width=120)
    if smoke:
        rtts, names, repeats, size = rtts or (100.0,), names or SMOKE, min(repeats, 2), min(size, SMOKE_BYTES)
    weather = not smoke and not more
    plan = Plan(rtts or (20.0, 100.0, 300.0), more, int(family), repeats, size, names, weather, results)
    suite = Suite(plan, console)
    try:
        suite.run()
    except Failed as failure:
        suite.rows.append({"case": "suite", "result": "fail", "reason": str(failure)})
    except KeyboardInterrupt:
        suite.rows.append({"case": "suite", "result": "fail", "reason": "interrupted: what follows was not run"})
    if suite.kernel and not suite.kernel.startswith(f"{kernel}."):
        suite.rows.append({"case": "suite", "result": "fail", "reason": f"runs {suite.kernel}, not {kernel}"})
    outcome = {"kernel": suite.kernel, "family": int(family), "netem": more, "rows": suite.rows}
    outcome["failed"] = sum(found["result"] == "fail" for found in suite.rows)
    show(outcome, console)
    (results / "result.json").write_text(json.dumps(outcome, indent=2) + "\n")
    raise SystemExit(1 if outcome["failed"] else 0)


if __name__ == "__main__":
    main()
