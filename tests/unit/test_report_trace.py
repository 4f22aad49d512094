"""The annotated trace on recorded runs: what is told in full, what by count, and what it says where nothing moved."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import numpy as np
import pytest

from controller.analysis import verdict
from controller.analysis.decode import columns
from controller.analysis.model import Clock, Evidence
from controller.report import trace
from controller.report.phrases import WHY_NOT
from controller.report.rows import HEADER, Rows, entry_is_special
from controller.report.units import Phase, units
from tests.fakes import recorded_runs as recorded

LINE = re.compile(r" +-?\d+\.\d +\d+ +\d+  ")


def told(run: Evidence) -> str:
    return trace.render(verdict.findings(run))


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def chapter(story: str, name: str) -> str:
    found = next(c for c in trace.chapters(story) if c.name == name)
    return "\n".join("\n".join((section.title, *section.lines)) for section in found.sections)


@pytest.mark.parametrize("name", ["demo", "base", "more"])
def test_raw_lines_are_aligned_under_the_header(name: str) -> None:
    story = told(recorded.evidence(name))
    assert HEADER in story.splitlines()
    place = HEADER.index("address")
    for line in story.splitlines():
        if LINE.match(line):
            assert line[place - 1 : place] in ("", " "), line
            assert re.match(r"[0-9a-f]+( |$)|\s|$", line[place:]), line


@pytest.mark.parametrize("name", ["demo", "base", "more"])
def test_headings_fit_and_times_never_run_backwards_within_a_case(name: str) -> None:
    for part in trace.chapters(told(recorded.evidence(name))):
        times = []
        for section in part.sections:
            for line in section.lines:
                if LINE.match(line):
                    times.append(float(line.split()[0]))
                elif line != HEADER:
                    assert len(line) <= trace.WIDTH, line
        assert times == sorted(times)


def test_flags_nodes_and_references_of_a_lazy_move() -> None:
    lazy = chapter(told(recorded.evidence("demo")), "anon-8p-lazy").splitlines()
    moved = next(line for line in lazy if "< migrate_folio_on_fault" in line)
    assert re.search(r"[0-9a-f]+>[0-9a-f]+ 1>2 +3  goes on with new page  new: locked uptodate dirty swapcache", moved)
    isolated = next(line for line in lazy if "> migrate_folio_on_fault" in line)
    assert re.search(r" 1 +2  to node 2 +locked uptodate dirty lru swapcache swapbacked$", isolated)


def test_asking_by_get_mempolicy_is_told_as_touching() -> None:
    text = flat(chapter(told(recorded.evidence("demo")), "anon-8p-lazy-where"))
    assert "asking counts as touching" in text
    assert "Located likewise, 8 of 8" in text


def test_a_manual_migration_shows_the_segment_and_counts_the_rest() -> None:
    manual = chapter(told(recorded.evidence("demo")), "anon-8p-manual")
    shown = [line for line in manual.splitlines() if "move_to_new_folio" in line]
    assert len(shown) == 8
    assert "pages of the process that are not the segment's" in manual


def test_the_unpatched_kernels_refusal_is_told() -> None:
    lazy = chapter(told(recorded.evidence("base")), "anon-8p-lazy")
    assert "FAILED: " in lazy and "The call fails with EINVAL." in lazy
    assert "migrate_folio" not in lazy


def test_a_page_that_is_about_to_be_copied_stays_and_the_trace_says_why() -> None:
    refused = flat(chapter(told(recorded.evidence("more")), "refused"))
    assert "Refused: will_copy 8" in refused
    assert "The page stays where it is: the write is about to copy it anyway" in refused
    assert "A copy is mapped" in refused
    assert "memtoy/kid: touch foo read=1" in refused


def test_every_reason_not_to_move_has_words() -> None:
    from controller.analysis.names import MOF_RESULTS

    assert set(WHY_NOT) == set(MOF_RESULTS) - {"migrated", "migrated_around"}


def test_many_pages_are_told_by_a_few_and_by_counts() -> None:
    direct = chapter(told(recorded.evidence("more")), "direct-640")
    assert len(direct.splitlines()) < 120
    assert len([line for line in direct.splitlines() if "> migrate_folio_move" in line]) == 3
    assert "likewise 637 pages of the segment, 637 records" in direct
    assert "And so on, batch by batch, for the rest: 128 unmapped, 128 copied and mapped." in direct
    assert "... and 637 pages more" in direct
    lazy = chapter(told(recorded.evidence("more")), "lazy-40")
    assert lazy.count("17 faults more went the same way (migrated)") == 2


def test_counts_and_lines_together_are_all_records() -> None:
    """Nothing is dropped in silence: records shown, and records counted, of the case with many pages."""
    run = recorded.only(recorded.evidence("more"), "direct-640")
    direct = chapter(told(run), "direct-640")
    shown = len([line for line in direct.splitlines() if LINE.match(line)])
    likewise = sum(int(n.replace(",", "")) for n in re.findall(r", ([\d,]+) records$", direct, re.M))
    # The second batch: an unmapping each, and six records for each copy.
    batches = 128 * 1 + 128 * 6
    assert run.events is not None
    case = run.cases[0]
    inside = (run.events["time"] >= case.results[0].start_ns) & (run.events["time"] <= case.results[-1].end_ns)
    own = inside & (run.events["pid"] == case.results[0].pid)
    assert shown + likewise + batches == int(own.sum())


def test_units_hold_every_record_once() -> None:
    for name in ("demo", "base", "more"):
        run = recorded.evidence(name)
        assert run.events is not None
        rows = Rows.of(run.events, columns(run.events, run.machine))
        found = units(rows, range(len(rows)))
        seen = sorted(i for unit in found for i in unit.indices)
        assert seen == list(range(len(rows)))
        assert all(len(unit.indices) == len(unit.depths) for unit in found)
        assert Phase.OTHER not in {unit.phase for unit in found}


def test_two_threads_that_fault_at_once_are_two_stories() -> None:
    run = recorded.only(recorded.evidence("demo"), "anon-8p-lazy")
    assert run.events is not None
    rows = Rows.of(run.events, columns(run.events, run.machine))
    faults = [unit for unit in units(rows, range(len(rows))) if unit.phase is Phase.FAULT and unit.shape == "migrated"]
    first = run.events[list(faults[0].indices)]
    other = first.copy()
    other["tid"] += 1
    both = np.empty(2 * len(first), first.dtype)
    both[0::2], both[1::2] = first, other
    rows = Rows.of(both, columns(both, run.machine))
    assert [unit.shape for unit in units(rows, range(len(rows)))] == ["migrated", "migrated"]


def test_other_tasks_are_counted_and_not_told() -> None:
    run = recorded.writable(recorded.only(recorded.evidence("demo"), "anon-8p-lazy"))
    assert run.events is not None
    case = run.cases[0]
    begin, end = case.results[5].start_ns, case.results[5].end_ns
    middle = (run.events["time"] >= begin) & (run.events["time"] <= end)
    run.events["pid"][np.flatnonzero(middle)[:5]] = 1
    run.events["tid"][np.flatnonzero(middle)[:5]] = 1
    assert "other tasks caused 5 records" in told(run)


def test_a_cut_off_run_and_one_without_events_have_a_trace_too() -> None:
    run = recorded.evidence("demo")
    assert run.events is not None
    for keep in range(0, 700, 50):
        cut = replace(run.cases[1], results=run.cases[1].results[:7], status=None)
        assert told(replace(run, cases=(run.cases[0], cut), events=run.events[:keep]))
    without = told(replace(run, events=None, probes=None))
    assert "No events were recorded" in without
    assert "8 pages in" in without and HEADER not in without


def test_time_under_an_instruction_clock_is_called_what_it_is() -> None:
    assert "thousands of instructions" in told(replace(recorded.evidence("demo"), clock=Clock.INSN))


def test_entries_for_pages_under_migration_are_told_from_swap() -> None:
    assert not entry_is_special(0x7FFFFFFFEFFFE08)
    assert entry_is_special(29 << 59)


def test_a_probe_that_is_not_in_the_registry_is_shown_as_it_is() -> None:
    run = recorded.writable(recorded.only(recorded.evidence("demo"), "anon-8p-direct"))
    assert run.events is not None
    run.events["probe"][run.events["probe"] == 18] = 200
    assert "? probe 200" in told(run)


def test_chapters_give_back_the_whole_trace() -> None:
    story = told(recorded.evidence("demo"))
    parts = trace.chapters(story)
    assert [part.name for part in parts] == [case.name for case in recorded.evidence("demo").cases]
    for part in parts:
        for section in part.sections:
            for line in (section.title, *section.lines):
                assert line in story
    assert sum(bool(LINE.match(x)) for p in parts for s in p.sections for x in s.lines) == sum(
        bool(LINE.match(x)) for x in story.splitlines()
    )


def test_a_large_trace_is_quick() -> None:
    """240,000 records in one command: the same faults over and over."""
    run = recorded.only(recorded.evidence("more"), "lazy-40")
    case = run.cases[0]
    assert run.events is not None
    touch = next(done for done in case.results if done.text == "touch foo read=1")
    block = run.events[(run.events["time"] >= touch.start_ns) & (run.events["time"] <= touch.end_ns)]
    many = np.tile(block, 240_000 // len(block))
    many["time"] = np.linspace(touch.start_ns, touch.end_ns, len(many)).astype(np.uint64)
    began = time.process_time()  # a host that is busy with guests is no slower at this
    story = told(replace(run, events=many, probes=None))
    assert time.process_time() - began < 5
    assert "faults more went the same way" in story
    assert len(story.splitlines()) < 200
