"""What lazy migration costs: from memtoy's answers to figures, tables and limits. The guests are measured elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from controller.bench import measure, migration, migration_guest, migration_tables
from controller.bench.figures import Figure
from controller.bench.groups import Group, chosen
from controller.bench.measure import Absent, Samples
from controller.bench.migration import COPY, MANY, SIZES, Answered, Measured, Variant, answered, values
from controller.bench.migration_guest import Bed
from controller.cli import bench, main
from controller.workloads import program
from controller.workloads.memtoy import output, script
from guest_kernel import identity
from provision.hardware import topology
from provision.host.cache import Cache
from provision.host.errors import InfraError, UserError
from provision.host.progress import Silent

ONE, EIGHT, _, _, THP = SIZES


def line(cmd: str, cpu_ns: int, result: dict[str, object] | None = None, ok: bool = True) -> str:
    told = {
        "line": 1,
        "cmd": cmd,
        "text": cmd,
        "ok": ok,
        "errno": 0,
        "error": "" if ok else "no",
        "pid": 1,
        "child": "",
    }
    return json.dumps({**told, "start_ns": 0, "end_ns": 9, "cpu_ns": cpu_ns, "result": result or {}})


def mbind(cpu_ns: int, *flags: str) -> str:
    area = {"seg": "foo", "start": "0x1000", "length": 4096, "policy": "bind", "nodes": [2]}
    return line("mbind", cpu_ns, {**area, "flags": list(flags), "ns": 1})


def touch(cpu_ns: int) -> str:
    area = {"seg": "foo", "start": "0x1000", "pages": 1, "page_size": 4096, "ns": 1, "write": False, "pattern": None}
    return line("touch", cpu_ns, {**area, "mismatches": 0, "bad_pages": 0, "first": None})


def where(*nodes: int) -> str:
    area = {"seg": "foo", "start": "0x1000", "page_size": 4096}
    return line("where", 0, {**area, "nodes": list(nodes), "method": "move_pages"})


def run(before: list[int], marked: list[int], after: list[int], costs: tuple[int, int, int]) -> list[str]:
    """What memtoy answers to one of the scripts: instructions of mbind, of the touch, and of the second touch."""
    mark, first, again = costs
    return [
        *(mbind(99), touch(99), where(*before), mbind(mark, "move", "lazy"), where(*marked)),
        *(touch(first), where(*after), touch(again), touch(99)),
    ]


def told(lines: list[str], pages: int, end: int = 2) -> Answered:
    return answered(list(output.read(lines)), pages, end)


def test_answers_of_a_script() -> None:
    # Of the second touch all is the clock but the loop, and mbind has the clock in it too.
    good = run([1, 1], [-2, -2], [2, 2], (7000, 21000, 818))
    assert told(good, 2) == Answered(7000 - 800, 21000, 818, early=0)
    assert told(good, 2).touching == 20182
    assert told(good, 2).whole == 26382
    assert told(run([1, 1], [2, -2], [2, 2], (7000, 21000, 20)), 2).early == 1
    assert told(run([1], [-2], [1], (1, 1, 1)), 1, end=1).early == 0


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (run([1, 3], [-2, -2], [2, 2], (1, 1, 1)), "1 of 2 pages are on node 1"),
        (run([1, 1], [-2, -2], [2, 1], (1, 1, 1)), "1 of 2 pages are on node 2"),
        (run([1], [-2], [2], (1, 1, 1)), "1 of 2 pages are on node 1"),
        (run([1, 1], [-2, -2], [2, 2], (1, 1, 1))[:-1], "did not run to its end"),
        ([*run([1, 1], [-2, -2], [2, 2], (1, 1, 1))[:-1], line("touch", 1, ok=False)], "touch: no"),
        ([], "did not run to its end"),
    ],
)
def test_a_run_that_is_not_what_it_should_be_has_no_cost(lines: list[str], why: str) -> None:
    with pytest.raises(InfraError, match=why):
        told(lines, 2)


def test_the_cheapest_run_counts() -> None:
    cheap, dear = Answered(100, 50, 10, 0), Answered(90, 70, 10, 0)
    assert migration.best([dear, cheap, dear]) == cheap


def measured(size: migration.Size, direct: float, mark: float, touching: float, early: int = 0) -> Measured:
    """A fork with these instructions a unit; the loop costs 10 more, refaults 2,000."""
    count = size.units

    def one(mbind: float, touch: float, early: int) -> Answered:
        return Answered(int(mbind * count), int((touch + 10) * count), 10 * count, early)

    written = one(mark, touching + 500, early) if size is MANY else None
    return Measured(one(direct, 0, size.pages), one(mark, touching, early), one(mark, 2000, 0), written)


def test_figures_of_a_fork() -> None:
    found = values(Variant.AFTER, MANY, measured(MANY, 8500, 1800, 9500))
    at = {name.removeprefix("migration.after.1024."): value for name, value in found.items()}
    assert (at["direct"], at["mark"], at["touch"], at["refault"]) == (8500, 1800, 9500, 2000)
    assert (at["lazy"], at["lazy_write"]) == (11300, 11800)
    assert at["of_direct"] == pytest.approx(11300 / 8500)
    assert at["break_even"] == pytest.approx((8500 - 1800) / 9500)
    assert (at["direct_without"], at["touch_without"]) == (8500 - COPY, 9500 - COPY)
    assert at["lazy_without"] == 11300 - COPY
    assert at["of_direct_without"] == pytest.approx((11300 - COPY) / (8500 - COPY))
    assert at["break_even_without"] == pytest.approx((8500 - COPY - 1800) / (9500 - COPY))
    assert at["write_of_direct_without"] == pytest.approx((11800 - COPY) / (8500 - COPY))


def test_a_huge_page_is_one_and_copied_as_512() -> None:
    found = values(Variant.BEFORE, THP, measured(THP, 3_000_000, 40_000, 2_900_000))
    assert found["migration.before.thp.direct"] == 3_000_000
    assert found["migration.before.thp.direct_without"] == 3_000_000 - 512 * COPY
    assert found["migration.before.thp.touch_without"] == 2_900_000 - 512 * COPY
    assert "migration.before.thp.lazy_write" not in found


def test_what_mbind_moved_at_once_was_copied_there() -> None:
    found = values(Variant.HINTING, THP, measured(THP, 3_000_000, 3_100_000, 0, early=512))
    assert found["migration.hinting.thp.touch_without"] == 0
    assert found["migration.hinting.thp.lazy_without"] == 3_100_000 - 512 * COPY
    assert "migration.hinting.thp.break_even" not in found


def test_break_even() -> None:
    assert migration.break_even(8000, 2000, 12000) == 0.5
    assert migration.break_even(8000, 500, 5000) == 1.5


def test_the_copy_is_held_against_what_was_measured() -> None:
    migration.check_copy(2530.0)
    for wrong in (0.0, 3589.0, 2600.0, -2543.0):
        with pytest.raises(InfraError, match="not copied as assumed"):
            migration.check_copy(wrong)


def test_names_are_unique_and_limits_are_of_figures() -> None:
    names = [one.name for one in migration.figures()]
    assert len(set(names)) == len(names)
    limited = {one.name: one.target for one in migration.figures() if one.target is not None}
    assert limited == dict(migration.LIMITS)
    for variant in Variant:
        known = {one.name for one in migration.figures_of(variant)}
        for size in SIZES:
            assert set(values(variant, size, measured(size, 9, 1, 9))) <= known


@pytest.mark.parametrize("size", SIZES, ids=lambda size: size.name)
@pytest.mark.parametrize("kind", migration_guest.SCRIPTS)
def test_scripts_of_every_size(kind: str, size: migration.Size) -> None:
    nodes = topology.load("4node").nodes
    facts = script.TopologyFacts({n.id: n.memory_mb << 20 for n in nodes}, frozenset(c for n in nodes for c in n.cpus))
    text = migration_guest.script(kind, size)
    parsed = script.parse(text, kind)
    script.check(parsed, facts)
    assert parsed.commands[0].text == f"anon foo {size.pages}p"
    assert "1024p\n" not in text or size is MANY
    assert ("lazy" in parsed.commands[5].text) == (kind != "direct")


def answers(names: list[str], costs: tuple[int, int, int], huge: tuple[int, int] = (5, 8)) -> str:
    ends = {"direct": [2], "lazy": [2], "refault": [1]}
    runs = [part for name in names for part in (f"# {name}", *run([1], [-2], ends[name], costs))]
    return "\n".join([f"# huge {huge[0]}", *runs, f"# huge {huge[1]}"]) + "\n"


ENDS = {"direct": 2, "lazy": 2, "refault": 1}


def test_runs_in_a_guest() -> None:
    text = answers(["direct", "lazy", "refault"], (50, 40, 10)) + answers(["lazy"], (50, 30, 10))
    found = migration_guest.parse(text, ONE, ENDS)
    assert found["direct"] == Answered(49, 40, 10, 0)
    assert found["lazy"] == Answered(49, 30, 10, 0)
    assert migration_guest._together(found).why == {}


def test_what_is_missing_alone_leaves_the_rest() -> None:
    moved = answers(["direct", "lazy"], (50, 40, 10)) + "\n".join(["# refault", *run([1], [-2], [2], (1, 1, 1))])
    one = migration_guest._together(migration_guest.parse(moved, ONE, ENDS))
    assert one.lazy.touching == 30
    assert one.why == {"refault": "refault: 0 of 1 pages are on node 1"}
    missing = migration_guest._missing([one], "migration.hinting.1")
    assert missing.pop("migration.hinting.1.refault") == Absent("refault: 0 of 1 pages are on node 1")
    # What was measured after all takes the place of these.
    assert set(missing) == {f"migration.hinting.1.break_even{ending}" for ending in ("", migration.WITHOUT)}
    assert "migration.hinting.1.refault" not in values(Variant.HINTING, ONE, one)
    with pytest.raises(InfraError, match="lazy: it did not run"):
        migration_guest._together(migration_guest.parse(answers(["direct", "refault"], (1, 1, 1)), ONE, ENDS))
    known = {one.name.split(".", 3)[3] for one in migration.figures_of(Variant.AFTER) if one.name.count(".") == 3}
    assert all(set(names) <= known for names in migration.FIGURES_OF_PART.values())


def test_a_huge_page_has_to_be_one() -> None:
    one = replace(THP, pages=1)
    assert migration_guest.parse(answers(list(ENDS), (1, 1, 1), huge=(5, 8)), one, ENDS)
    with pytest.raises(InfraError, match="small pages"):
        migration_guest.parse(answers(list(ENDS), (1, 1, 1), huge=(5, 7)), one, ENDS)


def test_the_command_line_in_the_guest() -> None:
    line = migration_guest.commands([("direct", "direct", 1), ("refault", "lazy", 0)], 3, 7)
    assert line.index("echo 1 >/proc/sys/vm/migrate_on_fault") < line.index("'# direct'") < line.index("echo 0 >")
    assert "taskset -c 7 memtoy -j -s 20 /run/lazy.memtoy" in line
    assert "seq 3" in line


def test_kernels() -> None:
    found = migration_guest.kernels(identity.parse("6.12-mof"))
    assert str(found[Variant.BEFORE]) == "6.12-mof.5"
    assert {str(found[one]) for one in Variant if one is not Variant.BEFORE} == {"6.12-mof"}
    with pytest.raises(UserError, match="does not migrate lazily"):
        migration_guest.kernels(identity.parse("6.12-base"))


def test_switches_that_are_not_asked_for_are_off() -> None:
    assert migration_guest._settings(Variant.AROUND) == {"migrate_on_fault_around": 16, "migrate_on_fault_hinting": 0}
    assert set(migration_guest._settings(Variant.AFTER).values()) == {0}


def stand_in_bed(kernel: str) -> Bed:
    parts: Any = SimpleNamespace(kernel=SimpleNamespace(id=kernel))
    return Bed(None, parts, None, Silent())  # type: ignore[arg-type]


def test_a_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    """A size that fails leaves the others; a copy that is not what it should be takes the figures without it."""
    one, plain = stand_in_bed("6.12-mof"), stand_in_bed("6.12-mof")
    difference = 2543

    def stand_in(bed: Bed, which: Variant, size: migration.Size) -> Measured:
        if size is EIGHT:
            raise InfraError("lost")
        less = difference if bed is plain else 0
        return measured(size, 8500 * size.copies - less, 1800, 9500 * size.copies - less)

    monkeypatch.setattr(migration_guest, "_measure", stand_in)
    found = migration_guest.variant(one, plain, Variant.AFTER, 2, Silent())
    assert set(found) == {one.name for one in migration.figures_of(Variant.AFTER)}
    assert found["migration.after.1024.direct"] == [8500, 8500]
    assert found["migration.after.8.direct"] == Absent("lost")
    assert found["migration.after.copy_direct"] == [2543]
    assert found["migration.after.1024.lazy_without"] == [11300 - COPY] * 2
    difference = 3589  # as if the kernel copied by `rep movsq` on the one
    found = migration_guest.variant(one, plain, Variant.AFTER, 1, Silent())
    assert found["migration.after.1024.direct"] == [8500]
    doubtful = found["migration.after.16384.lazy_without"]
    assert isinstance(doubtful, Absent)
    assert "3,589" in doubtful.reason


def test_a_switch_that_the_kernel_lacks_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(bed: Bed, which: Variant, size: migration.Size) -> Measured:
        raise migration_guest.NoSwitch("this kernel has no vm.migrate_on_fault_around")

    monkeypatch.setattr(migration_guest, "_measure", stand_in)
    bed = stand_in_bed("6.12-mof")
    found = migration_guest.variant(bed, bed, Variant.AROUND, 1, Silent())
    figures = measure.fill(migration.figures_of(Variant.AROUND), found, {})
    assert not any(one.failed for one in figures)
    assert "migrate_on_fault_around" in figures[0].reason


def test_ordinary_swap_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    boots = iter(range(1000))

    def answer(bed: Bed, tool: Path) -> dict[str, float]:
        spared = 0 if next(boots) // 2 == 3 else 50  # one boot of each kernel in which a page costs what it can cost
        if bed.kernel.id == "6.12-base":
            return {"cache": 2000, "device": 3000 - spared}
        return {"cache": 2010, "device": 3018 - spared}

    monkeypatch.setattr(migration_guest, "_swap_faults", answer)
    monkeypatch.setattr(program, "ensure", lambda *rest: Path("swapfault"))
    samples = migration_guest.off(stand_in_bed("6.12-base"), stand_in_bed("6.12-mof"), Silent())
    by = {one.name: one for one in measure.fill(migration.figures_off(), samples, {})}
    assert by["migration.off.cache_of_base"].value == 1.005
    assert by["migration.off.cache_of_base"].met
    assert by["migration.off.device_base"].value == 3000
    assert by["migration.off.device_of_base"].value == 1.006
    assert by["migration.off.device_of_base"].met is False
    assert next(boots) == 2 * migration_guest.SWAP_BOOTS


def test_swap_faults_that_were_others(monkeypatch: pytest.MonkeyPatch) -> None:
    one = '{"pages": 64, "cache": [90, 100], "device": [300, 303], "loop": [10, 14]}'
    said = [one, '{"pages": 64, "cache": [80, 90], "device": [310, 301], "loop": [10, 10]}', one]

    class Shell:
        def put(self, source: Path, target: str) -> None:
            pass

        def run(self, command: str, deadline: object) -> Any:
            done = SimpleNamespace(out="\n".join(said))
            return SimpleNamespace(expect=lambda: done)

    @contextmanager
    def boot(bed: Bed) -> Iterator[Shell]:
        yield Shell()

    plan: Any = SimpleNamespace(topology=topology.load("4node"))
    bed = replace(stand_in_bed("6.12-mof"), plan=plan)
    monkeypatch.setattr(Bed, "boot", boot)
    found = migration_guest._swap_faults(bed, Path("x"))
    assert found == {"cache": 70 / 64, "device": 289 / 64}
    said[1] = '{"error": "contents differ", "errno": 0}'
    with pytest.raises(InfraError, match="contents differ"):
        migration_guest._swap_faults(bed, Path("x"))
    del said[1:]
    with pytest.raises(InfraError, match="1 of 3 runs ended"):
        migration_guest._swap_faults(bed, Path("x"))


def test_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kernel once, each variant on its own, and those of a kernel that cannot be built are missing alone."""
    opened: list[tuple[str, tuple[str, ...]]] = []
    unbuildable = {"6.12-mof.5"}

    @contextmanager
    def stand_in(cache: object, kernel: object, features: tuple[str, ...], progress: object) -> Iterator[Bed]:
        if str(kernel) in unbuildable:
            raise UserError("patch 3 does not apply")
        opened.append((str(kernel), features))
        yield stand_in_bed(str(kernel))

    def variant(one: Bed, plain: Bed, which: Variant, rounds: int, progress: object) -> Samples:
        return {f"migration.{which}.1024.direct": [8500.0] * rounds}

    def off(base: Bed, mof: Bed, progress: object) -> Samples:
        assert (base.kernel.id, mof.kernel.id) == ("6.12-base", "6.12-mof")
        return {"migration.off.cache": [2000.0]}

    monkeypatch.setattr(migration_guest, "bed", stand_in)
    monkeypatch.setattr(migration_guest, "variant", variant)
    monkeypatch.setattr(migration_guest, "off", off)
    wanted, cache = identity.parse("6.12-mof"), Cache(Path("nowhere"))
    found = migration_guest.measured(wanted, 2, cache, lambda kernel: {"kernel": kernel.id}, Silent())
    by = {one.name: one for one in found}
    assert [one.name for one in migration.figures()] == [one.name for one in found]
    assert by["migration.before.1024.direct"].reason == "patch 3 does not apply"
    assert by["migration.hinting.1024.direct"].samples == (8500.0, 8500.0)
    assert by["migration.hinting.1024.direct"].facts == {"kernel": "6.12-mof", "cpu": "Nehalem,+erms"}
    assert by["migration.off.cache"].value == 2000.0
    assert opened == [("6.12-mof", ("erms",)), ("6.12-mof", ()), ("6.12-base", ("erms",)), ("6.12-mof", ("erms",))]
    unbuildable.clear()
    found = migration_guest.measured(wanted, 1, cache, lambda kernel: {"kernel": kernel.id}, Silent())
    (before,) = [one for one in found if one.name == "migration.before.1024.direct"]
    assert before.facts["kernel"] == "6.12-mof.5"


def filled(lazy: int = 9500) -> tuple[Figure, ...]:
    """Every figure, `around` without its switch."""
    facts = {"kernel": "6.12-mof"}
    found: list[Figure] = []
    for variant in Variant:
        samples: Samples = {f"migration.{variant}.copy_{what}": [2544] for what in ("direct", "touch")}
        for size in SIZES:
            got = values(variant, size, measured(size, 8500 * size.copies, 1800, lazy * size.copies))
            samples |= {name: [value] for name, value in got.items()}
        if variant is Variant.AROUND:
            samples = dict.fromkeys(samples, Absent("this kernel has no vm.x", failed=False))
        found += measure.fill(migration.figures_of(variant), samples, facts)
    off: Samples = {one.name: [2003.3 if one.unit != "x" else 1.0042] for one in migration.figures_off()}
    return (*found, *measure.fill(migration.figures_off(), off, facts))


def test_tables() -> None:
    text = migration_tables.tables(filled())
    lines = text.splitlines()
    assert text.count(migration.NOTE) == sum(one.startswith("### ") for one in lines) == 7
    row = next(one for one in lines if one.startswith("| 1,024 pages ") and "8,500" in one)
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        *("1,024 pages", "8,500 / 4,399", "1,800", "9,500 / 5,399", "2,000", "11,300 / 7,199", "1.329 / 1.637"),
        "71 % / 48 %",
    ]
    assert "### hinting: 6.12-mof, vm.migrate_on_fault_hinting=1" in lines
    assert "Not measured: this kernel has no vm.x." in lines
    assert "| page in the swap cache " in text
    limits = [one for one in lines if "<=" in one]
    assert len(limits) == len(migration.LIMITS)
    by = {one.split("|")[1].strip(): [cell.strip() for cell in one.split("|")[2:4]] for one in limits}
    assert by["after, 1,024 pages: lazy / direct <= 1.3"] == ["1.3294", "MISSED"]
    assert by["around, 1,024 pages: lazy / direct <= 1.05"] == ["-", "not measured"]
    assert by["swap fault, page in the swap cache: switched off / without <= 1.005"] == ["1.0042", "met"]
    widths = {len(one) for one in limits}
    assert len(widths) == 1


@pytest.mark.parametrize(
    ("value", "shown"), [(-1.5, "none"), (0.0, "none"), (0.473, "47 %"), (1.0, "all"), (1.1, "all")]
)
def test_shares(value: float, shown: str) -> None:
    for ending in ("", migration.WITHOUT):
        name = f"migration.after.1.break_even{ending}"
        figure = next(one for one in migration.figures() if one.name == name).measured([value], {})
        assert migration_tables._number(figure) == shown


def test_the_place_in_a_document(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text(f"# A\n\n{migration_tables.BEGIN}\nold\n{migration_tables.END}\n\nend\n")
    migration_tables.check(path)
    for content in ("new\n", "newer\n"):
        migration_tables.write(path, content)
        assert path.read_text() == f"# A\n\n{migration_tables.BEGIN}\n\n{content}\n{migration_tables.END}\n\nend\n"
    for text in ("", migration_tables.BEGIN, f"{migration_tables.END}\n{migration_tables.BEGIN}"):
        path.write_text(text)
        with pytest.raises(UserError, match="no place"):
            migration_tables.check(path)
    with pytest.raises(UserError, match="cannot be read"):
        migration_tables.check(tmp_path / "none.md")


def test_our_document_has_the_place() -> None:
    migration_tables.check(Path(__file__).parents[2] / "docs" / "migration-cost.md")


def test_it_is_measured_when_it_is_named() -> None:
    assert Group.MIGRATION not in chosen(None)
    assert Group.MIGRATION not in chosen([])
    assert set(chosen(None)) == set(Group) - {Group.MIGRATION}
    assert chosen([Group.MIGRATION, Group.PAGES, Group.PAGES]) == [Group.PAGES, Group.MIGRATION]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main.main(["bench", *arguments]) == 2
    return capsys.readouterr().err


def test_bad_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("no place")
    assert "no place for the tables" in refused(capsys, "--only", "migration", "--markdown", str(path))
    assert "--only migration" in refused(capsys, "--only", "pages", "--markdown", str(path))
    assert "does not migrate lazily" in refused(capsys, "--only", "migration", "--kernel", "6.12-base")


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    facts = {"kernel": "6.12-mof", "source": "1", "qemu": "10.0.2", "accelerator": "tcg", "cpus": "2"}
    figures = filled()

    def stand_in(*rest: object) -> object:
        return {**facts, "release": "6.12.1-mof", "build_id": "ab"}, {"migration": figures}

    monkeypatch.setattr(bench, "_measure", stand_in)
    path, kept = tmp_path / "a.md", tmp_path / "kept.json"
    path.write_text(f"{migration_tables.BEGIN}\n{migration_tables.END}\n")
    how = ["bench", "--only", "migration", "--baseline", str(kept)]
    assert main.main([*how, "--write-baseline", "--markdown", str(path)]) == 0
    said = capsys.readouterr().out
    tables = migration_tables.tables(figures)
    assert said.endswith(tables)
    assert tables.strip() in path.read_text()
    head = said.partition("### ")[0]
    assert "<= 1.3 missed" in head
    assert "-  this kernel has no vm.x" in head
    assert "refault" not in head
    figures = filled(lazy=9700)
    assert main.main([*how, "--json"]) == 1
    out = json.loads(capsys.readouterr().out)
    assert out["note"] == migration.NOTE
    assert "migration.after.1024.touch" in out["worse"]
    assert main.main(how) == 1
    assert "WORSE: migration.after.1024.touch" in capsys.readouterr().out
