"""From a case to the command line of the program. Pure."""

from __future__ import annotations

from controller.work.cases import Parts, Single

PROGRAM = "locality"
"""The workload program, a folder of controller/workloads."""
IN_GUEST = f"/run/{PROGRAM}"


def argv(work: Single | Parts, *, mark: bool, settle_ms: int) -> tuple[str, ...]:
    """`mark`: with marks for the memory-controller plugin; `settle_ms`: how long to rest before the first phase, 0: not."""
    words = [IN_GUEST, work.kind.value, f"--bytes={work.megabytes << 20}", f"--rounds={work.rounds}"]
    if isinstance(work, Parts):
        words += [f"--cpu={work.init_cpu}", f"--workers={','.join(map(str, work.cpus))}"]
        words += [f"--placement={work.placement}", f"--percent={work.touched_percent}"]
        words += ["--writes"] if work.writes else []
    else:
        words += [f"--cpu={work.cpu}", f"--node={work.node}"]
        words += [f"--steps={work.steps}"] if work.steps else []
    words += ["--mark"] if mark else []
    words += [f"--settle={settle_ms}"] if settle_ms else []
    return tuple(words)
