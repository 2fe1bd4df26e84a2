# SPDX-License-Identifier: Apache-2.0
"""Small faults put into the XDP program on purpose: for each of them a row of the packet table has to fail.

``python -m tests.xdp.mutants [NAME ...]`` (as root) builds each in a directory of its own, runs the table over it and
says which row caught it. A fault that the verifier refuses counts as caught: it could never be loaded.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accord.datapath.xdp_test import Program, Run, Verdict
from accord.wire.constants import Limit, Reason
from accord.wire.errors import AccordError
from tests.xdp.craft import ALIVE_MS, ID, PORT, Case
from tests.xdp.packets import TABLE

ROOT = Path(__file__).parents[2]
VERDICTS = {Reason.STEERED: Verdict.REDIRECT, Reason.SYN_SUPPRESSED: Verdict.DROP}
"""By reason; all others pass."""
TRANSACTIONS = (ID, b"another one.")
"""All slots that the table's frames have."""


@dataclass(frozen=True)
class Mutant:
    """One occurrence of ``old`` in a file of ebpf/ becomes ``new``."""

    name: str
    file: str
    old: str
    new: str


PARSING, PROGRAM, CONSTS = "parsing.h", "accord_xdp.bpf.c", "consts.h"
HOST, OPTIONS, SUPPRESS, HEARD = "host.h", "parsing_tcp.h", "suppress.h", "heard.h"

MUTANTS = [
    Mutant("a third VLAN tag is walked", CONSTS, "MAX_VLAN_TAGS = 2", "MAX_VLAN_TAGS = 3"),
    Mutant("one VLAN tag only", CONSTS, "MAX_VLAN_TAGS = 2", "MAX_VLAN_TAGS = 1"),
    Mutant("a seventh extension header is walked", CONSTS, "MAX_EXTENSIONS = 6", "MAX_EXTENSIONS = 7"),
    Mutant("five extension headers only", CONSTS, "MAX_EXTENSIONS = 6", "MAX_EXTENSIONS = 5"),
    Mutant("ihl 4 is accepted", CONSTS, "MIN_IHL = 5", "MIN_IHL = 4"),
    Mutant("more-fragments is not looked at", CONSTS, "IPV4_FRAGMENTED = 0x3fff", "IPV4_FRAGMENTED = 0x1fff"),
    Mutant("the IPv4 offset is not looked at", CONSTS, "IPV4_FRAGMENTED = 0x3fff", "IPV4_FRAGMENTED = 0x2000"),
    Mutant("the highest offset bit is lost", CONSTS, "IPV4_FRAGMENTED = 0x3fff", "IPV4_FRAGMENTED = 0x2fff"),
    Mutant("DF is taken for a fragment", CONSTS, "IPV4_FRAGMENTED = 0x3fff", "IPV4_FRAGMENTED = 0x7fff"),
    Mutant("IPv6 more-fragments is not looked at", CONSTS, "IPV6_FRAGMENTED = 0xfff9", "IPV6_FRAGMENTED = 0xfff8"),
    Mutant("the IPv6 offset is not looked at", CONSTS, "IPV6_FRAGMENTED = 0xfff9", "IPV6_FRAGMENTED = 0x0001"),
    Mutant("reserved bits make a fragment", CONSTS, "IPV6_FRAGMENTED = 0xfff9", "IPV6_FRAGMENTED = 0xffff"),
    Mutant("802.1ad is not known", PARSING, " || type == bpf_htons(ETH_P_8021AD)", ""),
    Mutant("802.1Q is not known", PARSING, "type == bpf_htons(ETH_P_8021Q) || ", ""),
    Mutant("the IPv4 version is not looked at", PARSING, "ip->version != 4 || ", ""),
    Mutant("the IPv6 version is not looked at", PARSING, "if (ip->version != 6)", "if (0)"),
    Mutant("a total length below the header", PARSING, "total < length || ", ""),
    Mutant("a total length beyond the frame", PARSING, " || total > frame_left", ""),
    Mutant("a total length one beyond the frame", PARSING, "total > frame_left", "total > frame_left + 1"),
    Mutant("options are not skipped", PARSING, "length = ip->ihl * 4;", "length = 20;"),
    Mutant(
        "padding counts as payload, IPv4", PARSING, "packet->length = total - length;", "packet->length = frame_left;"
    ),
    Mutant("padding counts as payload, IPv6", PARSING, "= bpf_ntohs(ip->payload_len);", "= frame_left - sizeof(*ip);"),
    Mutant("a payload length beyond the frame", PARSING, "packet->length > frame_left - sizeof(*ip)", "0"),
    Mutant("a payload length one beyond the frame", PARSING, "frame_left - sizeof(*ip))", "frame_left - 39)"),
    Mutant("padding holds extension headers", PARSING, "packet->length < sizeof(*fragment) || ", ""),
    Mutant("an extension header beyond the packet", PARSING, "packet->length < length || ", ""),
    Mutant("segments left are not looked at", PARSING, " && routing[3] != 0", " && 0"),
    Mutant("every routing header is another's", PARSING, " && routing[3] != 0", ""),
    Mutant("segments left at another offset", PARSING, "routing[3]", "routing[2]"),
    Mutant(
        "extension lengths without their first unit", PARSING, "(extension->length + 1) * 8", "extension->length * 8"
    ),
    Mutant("extension lengths in words of 4", PARSING, "(extension->length + 1) * 8", "(extension->length + 2) * 4"),
    Mutant(
        "a fragment header with a length",
        PARSING,
        "length = sizeof(*fragment);",
        "length = (extension->length + 1) * 8;",
    ),
    Mutant("the payload is not shortened by an extension", PARSING, "	packet->length -= length;\n", ""),
    Mutant("the chain's last header is not named", PARSING, "	packet->protocol = extension->next;\n", ""),
    *(
        Mutant(f"{name} is not walked", PARSING, f"protocol == PROTOCOL_{name}", "0")
        for name in ("DESTINATION", "MOBILITY", "HIP", "SHIM6")
    ),
    Mutant("hop-by-hop is not walked", PARSING, "return protocol == PROTOCOL_HOP_BY_HOP || ", "return "),
    Mutant("a UDP length below its header", PARSING, "length < sizeof(*udp) || length >", "length >"),
    Mutant("a UDP length beyond IP's payload", PARSING, " || length > packet->length", ""),
    Mutant("a UDP length one beyond IP's payload", PARSING, "length > packet->length", "length > packet->length + 1"),
    Mutant("the UDP length is not believed", PARSING, "packet->length = length - sizeof(*udp)", "packet->length -= 8"),
    Mutant("the source port is taken", PARSING, "packet->port = udp->dest", "packet->port = udp->source"),
    Mutant("a header of 31 bytes", PARSING, "packet->length < sizeof(*header)", "packet->length < 31"),
    Mutant("a header of 33 bytes", PARSING, "packet->length < sizeof(*header)", "packet->length < 33"),
    Mutant("first byte 3", PARSING, "header->version < ACCORD_VERSION_FIRST", "header->version < 3"),
    Mutant("first byte 16", PARSING, "header->version > ACCORD_VERSION_LAST", "header->version > 16"),
    Mutant("the cookie is not looked at", PARSING, "header->magic == bpf_htonl(ACCORD_MAGIC)", "1"),
    Mutant("half of the cookie", PARSING, "header->magic == bpf_htonl(ACCORD_MAGIC)", "(__u16)header->magic == 0x4341"),
    Mutant("IP protocol 253 is not known", PARSING, "packet->protocol != ACCORD_PROTOCOL_DIRECT", "1"),
    Mutant("IP protocol 254 is ours", PARSING, "!= ACCORD_PROTOCOL_DIRECT", "< ACCORD_PROTOCOL_DIRECT"),
    Mutant("IPv6 is not known", PARSING, "packet->type == bpf_htons(ETH_P_IPV6)", "0"),
    *(
        Mutant(
            f"byte {byte} of the address is not compared",
            HOST,
            f"(to[{byte // 2}] ^ own[{byte // 2}])",
            f"((to[{byte // 2}] ^ own[{byte // 2}]) & bpf_htons({0xFF if byte % 2 == 0 else 0xFF00}))",
        )
        for byte in range(6)
    ),
    Mutant("the layout is not looked at", PROGRAM, " || now->layout != ACCORD_MAP_LAYOUT", ""),
    Mutant(
        "an older layout is accepted", PROGRAM, "now->layout != ACCORD_MAP_LAYOUT", "now->layout > ACCORD_MAP_LAYOUT"
    ),
    Mutant(
        "a newer layout is accepted", PROGRAM, "now->layout != ACCORD_MAP_LAYOUT", "now->layout < ACCORD_MAP_LAYOUT"
    ),
    Mutant("every port is ours", PROGRAM, "!bpf_map_lookup_elem(&ports, &packet->port)", "0"),
    Mutant("any port is not known", PROGRAM, "!(now->flags & ACCORD_SETTINGS_ANY_PORT)", "1"),
    Mutant("IP protocol 253 needs a port", PROGRAM, "packet->protocol == PROTOCOL_UDP && ", ""),
    Mutant(
        "a frame one byte too long", PROGRAM, "frame_bytes > now->frame_limit", "frame_bytes > now->frame_limit + 1"
    ),
    Mutant("a frame as long as the ring takes is refused", PROGRAM, "frame_bytes > now", "frame_bytes >= now"),
    Mutant("the heartbeat is not looked at", HOST, "<= HEARTBEAT_NS;", "<= HEARTBEAT_NS * 100000000ll;"),
    Mutant("the heartbeat's clock is unsigned", HOST, "(__s64)", "(__u64)"),
    Mutant(
        "a queue without a socket drops",
        PROGRAM,
        "context->rx_queue_index, XDP_PASS",
        "context->rx_queue_index, XDP_DROP",
    ),
    Mutant("ours are passed", PROGRAM, "reason == ACCORD_REASON_STEERED)", "0)"),
    Mutant("others are dropped", PROGRAM, "int verdict = XDP_PASS;", "int verdict = XDP_DROP;"),
    Mutant(
        "a byte is written",
        PROGRAM,
        "	now = bpf_map_lookup_elem(&settings, &key);",
        "	((struct ethhdr *)packet->ethernet)->h_source[5] ^= 1;\n	now = bpf_map_lookup_elem(&settings, &key);",
    ),
    Mutant("ACK on a SYN is not looked at", CONSTS, "TCP_FLAGS_OF_OPENING = 0x17", "TCP_FLAGS_OF_OPENING = 0x07"),
    Mutant("RST on a SYN is not looked at", CONSTS, "TCP_FLAGS_OF_OPENING = 0x17", "TCP_FLAGS_OF_OPENING = 0x13"),
    Mutant("FIN on a SYN is not looked at", CONSTS, "TCP_FLAGS_OF_OPENING = 0x17", "TCP_FLAGS_OF_OPENING = 0x16"),
    Mutant("CWR makes no SYN", CONSTS, "TCP_FLAGS_OF_OPENING = 0x17", "TCP_FLAGS_OF_OPENING = 0x97"),
    Mutant("ECE makes no SYN", CONSTS, "TCP_FLAGS_OF_OPENING = 0x17", "TCP_FLAGS_OF_OPENING = 0x57"),
    Mutant("PSH makes no SYN", CONSTS, "TCP_FLAGS_OF_OPENING = 0x17", "TCP_FLAGS_OF_OPENING = 0x1f"),
    Mutant("options beyond the packet", PARSING, " || tcp->doff * 4 > packet->length", ""),
    Mutant(
        "options one word beyond the packet",
        PARSING,
        "tcp->doff * 4 > packet->length",
        "tcp->doff * 4 > packet->length + 4",
    ),
    Mutant(
        "a SYN with room for our option alone",
        PARSING,
        "< sizeof(*tcp) + ACCORD_TCP_OPTION_BYTES",
        "<= sizeof(*tcp) + ACCORD_TCP_OPTION_BYTES",
    ),
    Mutant(
        "the options' MSS is not looked at",
        OPTIONS,
        "(options[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0x02040000)",
        "1",
    ),
    Mutant(
        "half of MSS is looked at",
        OPTIONS,
        "(options[0] & bpf_htonl(0xffff0000)) == bpf_htonl(0x02040000)",
        "(options[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x02000000)",
    ),
    Mutant("SACK and timestamps are not looked at", OPTIONS, " && options[1] == bpf_htonl(0x0402080a)", ""),
    Mutant(
        "half of them is looked at",
        OPTIONS,
        "options[1] == bpf_htonl(0x0402080a)",
        "(options[1] & bpf_htonl(0xffff0000)) == bpf_htonl(0x04020000)",
    ),
    Mutant(
        "the other half",
        OPTIONS,
        "options[1] == bpf_htonl(0x0402080a)",
        "(options[1] & bpf_htonl(0xffff)) == bpf_htonl(0x080a)",
    ),
    Mutant(
        "the window scale is not looked at",
        OPTIONS,
        "(options[4] & bpf_htonl(0xffffff00)) == bpf_htonl(0x01030300)",
        "1",
    ),
    Mutant(
        "its NOP is not looked at",
        OPTIONS,
        "(options[4] & bpf_htonl(0xffffff00)) == bpf_htonl(0x01030300)",
        "(options[4] & bpf_htonl(0x00ffff00)) == bpf_htonl(0x00030300)",
    ),
    Mutant(
        "its length is not looked at",
        OPTIONS,
        "(options[4] & bpf_htonl(0xffffff00)) == bpf_htonl(0x01030300)",
        "(options[4] & bpf_htonl(0xffff0000)) == bpf_htonl(0x01030000)",
    ),
    Mutant("any length of options is Linux's", OPTIONS, "options.length == LINUX_AND_OURS_BYTES && ", ""),
    Mutant("a Linux SYN has nothing behind it", OPTIONS, "options.length == LINUX_OPTIONS_BYTES && ", ""),
    Mutant("behind a Linux SYN's options is ours", OPTIONS, " &&\n	    is_option(first + LINUX_OPTIONS_BYTES)", ""),
    Mutant("only a Linux SYN is known", OPTIONS, "		at = walk_options(&options);", "		at = OPTION_NONE;"),
    Mutant("ADOPT is not known", OPTIONS, " || exid == bpf_htons(ACCORD_TCP_OPTION_EXID_ADOPT)", ""),
    Mutant("FALLBACK is not known", OPTIONS, "exid == bpf_htons(ACCORD_TCP_OPTION_EXID) || ", ""),
    Mutant("the end of the list is not", OPTIONS, "kind == TCP_OPTION_END", "0"),
    Mutant("NOP has a length", OPTIONS, "if (kind == TCP_OPTION_NOP)", "if (0)"),
    Mutant("lengths 0 and 1 are accepted", OPTIONS, "length < 2 || ", "!length || "),
    Mutant(
        "a length of 0 ends the list",
        OPTIONS,
        "if (length < 2 || at + length",
        "if (!length)\n			break;\n		if (at + length",
    ),
    Mutant("a length of 2 is refused", OPTIONS, "length < 2 || ", "length < 3 || "),
    Mutant("options may end behind the header", OPTIONS, " || at + length > options->length", ""),
    Mutant(
        "options may end one byte behind the header",
        OPTIONS,
        "at + length > options->length",
        "at + length > options->length + 1",
    ),
    Mutant("the kind is not looked at", OPTIONS, "kind != ACCORD_TCP_OPTION_KIND || ", ""),
    Mutant("the length is not looked at", OPTIONS, " || length != ACCORD_TCP_OPTION_BYTES", ""),
    Mutant(
        "the first of two is taken",
        OPTIONS,
        "		if (options->found != OPTION_NONE)\n			return OPTION_BAD;\n",
        "		if (options->found != OPTION_NONE)\n			break;\n",
    ),
    Mutant(
        "the second of two is taken",
        OPTIONS,
        "		if (options->found != OPTION_NONE)\n			return OPTION_BAD;\n",
        "",
    ),
    Mutant("what is behind ours is not parsed", OPTIONS, "		options->found = at;\n", "		return at;\n"),
    Mutant(
        "the walk ends at byte 39",
        OPTIONS,
        "at < TCP_OPTIONS_BYTES && at < options->length; at++",
        "at < TCP_OPTIONS_BYTES - 1 && at < options->length; at++",
    ),
    Mutant(
        "the walk ends after 20 bytes",
        OPTIONS,
        "at < TCP_OPTIONS_BYTES && at < options->length; at++",
        "at < 20 && at < options->length; at++",
    ),
    Mutant("what does not parse is ours not", OPTIONS, "	if (at == OPTION_NONE)\n", "	if (at < 0)\n"),
    Mutant("IPv4 and IPv6 are one family", SUPPRESS, "slot->family ^ ends->family", "0"),
    *(
        Mutant(
            f"word {word} of the addresses is not compared",
            SUPPRESS,
            "for (int word = 0; word < 4; word++)",
            f"for (int word = 0; word < 4; word += 1 + (word == {word - 1}))",
        )
        for word in range(1, 4)
    ),
    Mutant("the sources are not compared", SUPPRESS, "(slot->source[word] ^ ends->source[word]) | ", ""),
    Mutant("the destinations are not compared", SUPPRESS, " | (slot->destination[word] ^ ends->destination[word])", ""),
    Mutant("the ports are not compared", SUPPRESS, "(!slot->port || slot->port == ends->port)", "1"),
    Mutant("context IP 253 has a port", SUPPRESS, "!slot->port || ", ""),
    Mutant("any version's proposal is noted", SUPPRESS, "header->version != ACCORD_VERSION || ", ""),
    Mutant("any step is noted", SUPPRESS, "header->step != ACCORD_STEP_PROPOSAL ||", ""),
    Mutant("anybody's step 0 is noted", SUPPRESS, "!(header->flags & bpf_htons(ACCORD_FLAG_INITIATOR)) || ", ""),
    Mutant("an acknowledgement is noted", SUPPRESS, "length == sizeof(*header)", "length == 0"),
    Mutant("a repeated proposal is young again", SUPPRESS, "	if (!heard_is(slot, state, &id)) {", "	if (1) {"),
    Mutant(
        "a proposal behind a SYN forgets it",
        SUPPRESS,
        "state | ACCORD_HEARD_PROPOSAL);",
        "(state & ~15ULL) | ACCORD_HEARD_PROPOSAL);",
    ),
    Mutant("a SYN that adopts is noted as one that falls back", SUPPRESS, "	if (adopts)\n", "	if (0)\n"),
    Mutant(
        "a SYN that adopts is counted as one that came first",
        SUPPRESS,
        "return adopts ? ACCORD_REASON_SYN_ADOPT : ACCORD_REASON_SYN_FIRST;",
        "return ACCORD_REASON_SYN_FIRST;",
    ),
    Mutant("a SYN that came first is forgotten", SUPPRESS, "isn, now, ACCORD_HEARD_SYN);", "isn, now, 0);"),
    Mutant("a second SYN is suppressed", SUPPRESS, "ACCORD_HEARD_SYN | ACCORD_HEARD_SPENT))", "ACCORD_HEARD_SYN))"),
    Mutant(
        "a SYN that came first is suppressed when it comes again",
        SUPPRESS,
        "state & (ACCORD_HEARD_SYN | ACCORD_HEARD_SPENT)",
        "state & ACCORD_HEARD_SPENT",
    ),
    Mutant("a SYN from anywhere is suppressed", SUPPRESS, "if (!same_ends(slot, ends))", "if (0)"),
    Mutant("a SYN is suppressed for ever", SUPPRESS, "heard_age(state, now) >= SUPPRESS_NS", "0"),
    Mutant("a SYN is suppressed for half the time", SUPPRESS, ">= SUPPRESS_NS", ">= SUPPRESS_NS / 2"),
    Mutant("what was suppressed is not noted", SUPPRESS, "state | ACCORD_HEARD_SPENT) != state", "state) != state"),
    Mutant(
        "SYNs are read though nobody wants it",
        SUPPRESS,
        "ACCORD_MAP_LAYOUT || !(now->flags & ACCORD_SETTINGS_SUPPRESS)",
        "ACCORD_MAP_LAYOUT",
    ),
    Mutant("SYNs are read under any layout", SUPPRESS, "now->layout != ACCORD_MAP_LAYOUT || ", ""),
    Mutant("SYNs to any port are suppressed", SUPPRESS, "if (!flags || !(*flags & ACCORD_PORT_SUPPRESS))", "if (0)"),
    Mutant("SYNs for any interface are suppressed", SUPPRESS, "if (!for_this_interface(ethernet, now))", "if (0)"),
    Mutant("SYNs are suppressed while the daemon is silent", SUPPRESS, "if (!daemon_lives(now))", "if (0)"),
    Mutant(
        "IDs are not compared",
        HEARD,
        "!((have[0] ^ id->word[0]) | (have[1] ^ id->word[1]) | (have[2] ^ id->word[2]))",
        "1",
    ),
    *(
        Mutant(f"word {word} of the ID is not compared", HEARD, f"(have[{word}] ^ id->word[{word}])", "0")
        for word in range(3)
    ),
    Mutant("suppressed SYNs pass", PROGRAM, "verdict = XDP_DROP;", "verdict = XDP_PASS;"),
    Mutant(
        "SYNs that came first are dropped",
        PROGRAM,
        "reason == ACCORD_REASON_SYN_SUPPRESSED",
        "reason >= ACCORD_REASON_SYN_SUPPRESSED",
    ),
    Mutant(
        "no proposal is noted",
        PROGRAM,
        "if (verdict == XDP_REDIRECT)\n			note_proposal",
        "if (0)\n			note_proposal",
    ),
]


def compile_program(source: Path, output: Path, program: str = PROGRAM) -> None:
    """``source``/ebpf and ``source``/include to a BPF object, as setup.py does it. Raises CalledProcessError."""
    flags = ["-O2", "-g", "-Wall", "-target", "bpf", "-mcpu=v3"]
    include = ["-I", str(source / "include"), f"-I/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
    command = ["clang", *flags, *include, "-c", str(source / "ebpf" / program), "-o", str(output)]
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


@contextmanager
def edited(file: str, old: str, new: str, program: str = PROGRAM) -> Iterator[Path]:
    """An object built from the sources with one edit in ``file`` (relative to the project); gone with the block.

    Raises ``ValueError`` when ``old`` is not there exactly once: the edit would miss, or hit more than was meant.
    """
    with tempfile.TemporaryDirectory(prefix="accord-mutant-") as directory:
        for folder in ("ebpf", "include"):
            shutil.copytree(ROOT / folder, Path(directory, folder))
        target = Path(directory, file)
        text = target.read_text()
        if text.count(old) != 1:
            raise ValueError(f"{old!r} is {text.count(old)} times in {file}")
        target.write_text(text.replace(old, new))
        built = Path(directory, "mutant.bpf.o")
        compile_program(Path(directory), built, program)
        yield built


def prepare(program: Program, row: Case) -> None:
    """The host as the row has it, and what came before its frame."""
    program.configure(**row.settings)  # type: ignore[arg-type]
    program.join(row.joined)
    program.heartbeat(ALIVE_MS)
    for transaction in TRANSACTIONS:
        program.forget(transaction)
    for event in row.before:
        if isinstance(event, int):
            program.age(ID, event)
        else:
            program.run(event)
    program.heartbeat(row.age_ms)


def run(program: Program, row: Case, begin: Callable[[], object] = lambda: None) -> Run:
    """Run a row, again if its heartbeat had time to get too old meanwhile. Raises ``TimeoutError``.

    ``begin`` is called between what was before and the frame.
    """
    for _ in range(1000):
        started = time.monotonic()
        prepare(program, row)
        begin()
        result = program.run(row.frame)
        took_ms = (time.monotonic() - started) * 1000
        if not ALIVE_MS < row.age_ms <= Limit.HEARTBEAT_MS or row.age_ms + took_ms < Limit.HEARTBEAT_MS:
            return result
    raise TimeoutError(f"{row.name!r} never ran in time")


def check(program: Program, row: Case) -> str | None:
    """Run a row on a program whose port 443 is steered. Returns what is wrong, None when all is right."""
    result = run(program, row)
    if result.reason is not row.reason:
        return f"counted {result.reason.name if result.reason else 'nothing'}, not {row.reason.name}"
    expected = VERDICTS.get(row.reason, Verdict.PASS)
    if result.verdict is not expected:
        return f"verdict {result.verdict.name}, not {expected.name}"
    return None if result.output == row.frame else "the frame was changed"


def first_failure(program: Program) -> str | None:
    """The first row of the table that fails; None when all pass."""
    program.steer(PORT)
    for row in TABLE:
        if wrong := check(program, row):
            return f"{row.name!r}: {wrong}"
    return None


def caught_by(mutant: Mutant) -> str | None:
    """What catches the mutant; None when nothing does."""
    with edited(f"ebpf/{mutant.file}", mutant.old, mutant.new) as built:
        try:
            program = Program(built)
        except AccordError:
            return "the kernel's verifier"
        with program:
            return first_failure(program)


def main(names: list[str]) -> int:
    """Returns 0 when each of the mutants (all, or those named) is caught."""
    with Program() as unharmed:
        if wrong := first_failure(unharmed):
            print(f"the program itself fails, see pytest tests/xdp: {wrong}")
            return 1
    chosen = [mutant for mutant in MUTANTS if not names or mutant.name in names]
    survivors = 0
    for mutant in chosen:
        caught = caught_by(mutant)
        survivors += caught is None
        print(f"{mutant.name}: {caught or 'SURVIVES'}", flush=True)
    print(f"{len(chosen)} mutants, {survivors} survive")
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
