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
        opener = {Kind.ENTER: "ENTER", Kind.EXIT: "EXIT_VOID" if probe.void else "EXIT", Kind.POINT: "int"}[probe.kind]
        assert body.startswith(opener), probe.name


def test_programs_ask_for_the_parameters_that_the_registry_has() -> None:
    for probe in PROBES:
        body = SOURCE.split(f"#ifdef ID_{probe.program}\n", 1)[1].split("\n#endif\n", 1)[0]
        used = set(re.findall(rf"ARG\({probe.function}, (\w+)\)", body)) | set(re.findall(r"FIELD\(\w+, (\w+)\)", body))
        declared = set(probe.params) | set(probe.optional)
        assert used - {"name"} <= declared, probe.name


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


def test_sets_are_ordered() -> None:
    for which in ProbeSet:
        ids = [probe.id for probe in probes_of(which)]
        assert ids and ids == sorted(ids)


def test_a_probe_is_data() -> None:
    assert Probe(60, "f", Kind.EXIT, "returns").program == "f_exit"
