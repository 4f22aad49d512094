"""bcc, as far as it is needed: from C to bytecode, and attaching kprobes. Its only importer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

SOURCES = Path(__file__).parent / "bpf"
# bcc puts its own headers in front of every program. They want the kernel's, and cost seconds; their include guards
# keep them empty.
_BLANKED = ("__BPF_HELPERS_H", "_UAPI__LINUX_BPF_H__", "__LINUX_BPF_H__", "__BPF_COMPAT_H")


class CompileError(Exception):
    """The compiler's own words."""


@contextmanager
def _captured_stderr() -> Iterator[Any]:
    """File descriptor 2 in a file: the compiler writes there, and the exception says nothing."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            yield file
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _pretend_kernel_headers() -> None:
    """bcc looks for a kernel's build folder and includes one file of it: give it an empty one."""
    folder = Path(tempfile.gettempdir()) / "mof-no-kernel-headers"
    (folder / "include/linux").mkdir(parents=True, exist_ok=True)
    (folder / "include/linux/kconfig.h").touch()
    os.environ["BCC_KERNEL_SOURCE"] = str(folder)


def source() -> str:
    """The C text of all programs, without the macros that make it fit a kernel."""
    # Line numbers in diagnostics are to be those of the file.
    return "\n".join(((SOURCES / "mof.h").read_text(), '#line 1 "mof.bpf.c"', (SOURCES / "mof.bpf.c").read_text()))


def compile_programs(defines: Mapping[str, int | None], programs: Iterable[str]) -> dict[str, bytes]:
    """Bytecode of each of `programs`. Raises CompileError with the compiler's diagnostics."""
    _pretend_kernel_headers()
    problem = warm_up()
    if problem:
        raise CompileError(problem)
    from bcc import BPF

    head = "".join(f"#define {name} {'' if value is None else value}\n" for name, value in defines.items())
    # The verifier does not ask for debugging information, which takes a fifth of the time.
    flags = ["-g0", *(f"-D{guard}" for guard in _BLANKED)]
    with _captured_stderr() as said:
        try:
            module = BPF(text=(head + source()).encode(), cflags=flags)
            return {name: module.dump_func(name.encode()) for name in programs}
        except Exception as error:  # bcc raises this very class
            said.seek(0)
            words = said.read().decode(errors="replace").strip()
            raise CompileError(words or str(error)) from error


def attach_kprobe(program: int, function: str, at_return: bool, name: str) -> int:
    """Attach to a function's entry or return; closing the descriptor detaches. Raises OSError."""
    from bcc import lib

    with _captured_stderr() as said:
        fd = int(lib.bpf_attach_kprobe(program, int(at_return), name.encode(), function.encode(), 0, 0))
        if fd < 0:
            said.seek(0)
            raise OSError(f"kprobe on {function}: {said.read().decode(errors='replace').strip() or 'refused'}")
    return fd


def warm_up() -> str:
    """Load bcc, which takes a second or two; returns what went wrong, or nothing."""
    with suppress(ImportError):
        import bcc  # noqa: F401

        return ""
    return "python3-bpfcc is not installed"
