"""The bpf(2) system call, as far as the agent needs it, and what /proc and /sys tell about the machine.

Programs are loaded here and not by libbcc, which parses the kernel's whole type information anew for each fentry
program. Numbers and layouts are those of the kernel's uapi/linux/bpf.h, which only ever grows.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import struct
from pathlib import Path
from typing import Any

_SYS_BPF = 321  # x86-64
_MAP_CREATE, _PROG_LOAD, _RAW_TRACEPOINT_OPEN = 0, 5, 17

MAP_RINGBUF = 27
MAP_HASH, MAP_ARRAY = 1, 2
F_MMAPABLE = 1 << 10
PROG_KPROBE, PROG_TRACING = 2, 26
TRACE_RAW_TP, TRACE_FENTRY, TRACE_FEXIT = 23, 24, 25

_LOG_SIZE = 1 << 16
_LOG_TAIL = 600
_libc = ctypes.CDLL(None, use_errno=True)


class BpfError(Exception):
    """The kernel refused; the text says what it said, with the end of the verifier's message if there is one."""


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    result = int(_libc.syscall(_SYS_BPF, command, buffer, len(attributes)))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def create_map(kind: int, key_size: int, value_size: int, entries: int, name: str, flags: int = 0) -> int:
    """Make a map; returns its descriptor. Raises BpfError."""
    try:
        return _bpf(
            _MAP_CREATE, struct.pack("<7I16s", kind, key_size, value_size, entries, flags, 0, 0, name.encode()[:15])
        )
    except OSError as error:
        raise BpfError(f"map {name}: {error.strerror}") from error


def load_program(kind: int, code: bytes, name: str, attach_type: int = 0, target: int = 0) -> int:
    """Load a program; `target` is the type id of what it is to be attached to. Returns its descriptor.

    Raises BpfError with the end of the verifier's message, for which alone it is loaded a second time.
    """
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_SIZE)

    def attributes(level: int) -> bytes:
        return struct.pack(
            "<IIQQIIQII16sIIIIQIIQIIII",
            kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence),
            level, _LOG_SIZE if level else 0, ctypes.addressof(log) if level else 0,
            0, 0, name.encode()[:15], 0, attach_type,
            0, 0, 0, 0, 0, 0, 0, target, 0, 0,
        )  # fmt: skip

    try:
        return _bpf(_PROG_LOAD, attributes(0))
    except OSError:
        pass
    try:
        return _bpf(_PROG_LOAD, attributes(1))
    except OSError as error:
        said = " ".join(log.value.decode(errors="replace").split())[-_LOG_TAIL:]
        raise BpfError(f"program refused: {error.strerror}; {said or 'no message'}") from error


def attach_traced(program: int) -> int:
    """Attach a program of kind TRACING to what it was loaded for; closing the descriptor detaches. Raises BpfError."""
    try:
        return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("<QII", 0, program, 0))
    except OSError as error:
        raise BpfError(f"attaching: {error.strerror}") from error


def missed_runs(program: int) -> int:
    """How often the kernel skipped the program because it was already running on that CPU."""
    text = Path(f"/proc/self/fdinfo/{program}").read_text()
    found = re.search(r"^recursion_misses:\s*(\d+)", text, re.MULTILINE)
    return int(found[1]) if found else 0


def possible_cpus() -> int:
    """One more than the highest number that a CPU of this machine can have."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return max(int(part) for part in re.findall(r"\d+", text)) + 1


def identity() -> str:
    """What tells this kernel from any other that was built: a hash of its notes, the build id among them."""
    return hashlib.sha256(Path("/sys/kernel/notes").read_bytes()).hexdigest()


def kernel_symbols(names: set[str]) -> dict[str, list[str]]:
    """For each name, the symbols of that name, or of that name with a compiler's suffix, that the kernel has."""
    found: dict[str, list[str]] = {name: [] for name in names}
    text = Path("/proc/kallsyms").read_text()
    pattern = "|".join(re.escape(name) for name in sorted(names))
    for match in re.finditer(rf" [tT] (({pattern})(?:\.[\w.]+)?)$", text, re.MULTILINE):
        found[match[2]].append(match[1])
    return found


def node_spans(text: str | None = None) -> list[dict[str, Any]]:
    """The page frames of each node's zones, from /proc/zoneinfo: {"node", "zone", "start_pfn", "spanned"}."""
    if text is None:
        text = Path("/proc/zoneinfo").read_text()
    spans: list[dict[str, Any]] = []
    for block in re.split(r"^(?=Node )", text, flags=re.MULTILINE):
        head = re.match(r"Node (\d+), zone\s+(\w+)", block)
        spanned = re.search(r"^\s+spanned\s+(\d+)", block, re.MULTILINE)
        start = re.search(r"^\s+start_pfn:\s+(\d+)", block, re.MULTILINE)
        if head and spanned and start and int(spanned[1]):
            spans.append(
                {"node": int(head[1]), "zone": head[2], "start_pfn": int(start[1]), "spanned": int(spanned[1])}
            )
    return spans
