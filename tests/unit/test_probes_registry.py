"""The registry agrees with itself, with the C source, and with what it promises about the series."""

from __future__ import annotations

import re
from pathlib import Path

import probes
from probes.records import Kind
from probes.registry import BY_ID, BY_NAME, MAX_PROBES, PROBES, Method, Probe, ProbeSet, Stage, probes_of

SOURCE = (Path(probes.__file__).parent / "bpf/mof.bpf.c").read_text()


def test_ids_and_names_are_unique_and_fit() -> None:
    assert len(BY_ID) == len(BY_NAME) == len(PROBES) == len({p.program for p in PROBES})
    assert all(0 < probe.id < MAX_PROBES for probe in PROBES)


def test_every_probe_has_a_program_and_every_program_a_probe() -> None:
    guarded = re.findall(r"^#ifdef ID_(\w+)$", SOURCE, re.MULTILINE)
    assert sorted(guarded) == sorted(probe.program for probe in PROBES)
    for probe in PROBES:
        body = SOURCE.split(f"#ifdef ID_{probe.program}\n", 1)[1].split("\n#endif\n", 1)[0]
        assert "return" in body
        opener = {Kind.ENTER: "ENTER", Kind.EXIT: "EXIT", Kind.POINT: "POINT"}[probe.kind]
        assert body.startswith(f"{opener}({probe.function})"), probe.name
        assert not probe.void or "set_mappings(" in body, probe.name


def test_programs_ask_for_the_parameters_that_the_registry_has() -> None:
    for probe in PROBES:
        body = SOURCE.split(f"#ifdef ID_{probe.program}\n", 1)[1].split("\n#endif\n", 1)[0]
        used = set(re.findall(rf"ARG\({probe.function}, (\w+)\)", body))
        assert used <= set(probe.params) | set(probe.optional), probe.name


def test_methods_follow_from_the_kind() -> None:
    probe = BY_NAME["do_swap_page"]
    assert (probe.method, probe.fallback) == (Method.FENTRY, Method.KPROBE)
    probe = BY_NAME["do_swap_page.exit"]
    assert (probe.method, probe.fallback) == (Method.FEXIT, Method.KRETPROBE)
    probe = BY_NAME["migrate:mm_migrate_on_fault"]
    assert (probe.method, probe.fallback) == (Method.TRACEPOINT, None)


def test_the_functions_to_be_probed_are_there() -> None:
    functions = {probe.function for probe in PROBES}
    assert functions >= {
        "do_swap_page", "mpol_vma_misplaced", "check_migrate_misplaced_folio", "migrate_folio_on_fault",
        "unmap_folios_lazy", "migrate_folio_replace", "mm_migrate_on_fault", "migrate_pages", "migrate_folio_move",
        "__folio_migrate_mapping", "try_to_migrate", "add_to_swap", "folio_isolate_lru", "do_mbind",
        "__x64_sys_mbind", "__x64_sys_move_pages", "__x64_sys_migrate_pages",
    }  # fmt: skip


def test_every_stage_fires_something_and_series_probes_need_the_series() -> None:
    assert {probe.stage for probe in PROBES if probe.stage} == set(Stage)
    assert all(probe.series for probe in PROBES if probe.stage in (Stage.LAZY, Stage.TOUCH))


def test_sets_are_ordered_and_each_holds_the_next() -> None:
    held = set(PROBES)
    for which in (ProbeSet.STEPS, ProbeSet.FULL, ProbeSet.COUNTS):
        probes_ = probes_of(which)
        assert [probe.id for probe in probes_] == sorted(probe.id for probe in probes_)
        assert set(probes_) <= held
        held = set(probes_)
    assert len(probes_of(ProbeSet.STEPS)) == len(PROBES) == 34


PER_LAZY_PAGE = {
    "folio_isolate_lru.exit", "add_to_swap.exit", "try_to_unmap.exit", "do_swap_page", "swap_cache_get_folio.exit",
    "mpol_vma_misplaced.exit", "migrate_folio_on_fault", "__folio_migrate_mapping.exit", "move_to_new_folio.exit",
    "migrate_folio_replace.exit", "migrate_folio_on_fault.exit", "migrate:mm_migrate_on_fault",
    "check_migrate_misplaced_folio.exit", "do_swap_page.exit",
}  # fmt: skip


def test_what_each_set_records_of_a_page_that_moves_lazily() -> None:
    """It decides what the set costs: a record is some 150 to 300 instructions of the 11,500 that a page takes."""
    of = {which: {p.name for p in probes_of(which)} & PER_LAZY_PAGE for which in ProbeSet}
    assert of[ProbeSet.STEPS] == PER_LAZY_PAGE
    assert of[ProbeSet.FULL] == {"try_to_unmap.exit", "migrate:mm_migrate_on_fault"}
    assert of[ProbeSet.COUNTS] == {"migrate:mm_migrate_on_fault"}
    assert "migrate_folio_move.exit" in {p.name for p in probes_of(ProbeSet.FULL)}


def test_a_probe_is_data() -> None:
    assert Probe(60, "f", Kind.EXIT, "returns").program == "f_exit"
