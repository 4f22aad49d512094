"""Records to columns: what is derived, what is tolerated, and how fast."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

from controller.analysis import decode, pageflags
from controller.analysis.model import Machine
from probes.records import Record, folio_of
from probes.registry import BY_NAME, PROBES
from tests.fakes import recorded_runs as recorded

MACHINE = Machine(((1, 0x1000, 0), (0x1000, 0x2000, 0), (0x3000, 0x4000, 1)))


def record(probe: str, *, at: int = 1, **fields: int) -> Record:
    one = BY_NAME[probe]
    values = {"address": 0, "folio": 0, "arg": 0, "flags": 0, "result": 0, "refs": -1, "aux": 0, **fields}
    return Record(time=at, pid=7, tid=7, probe=one.id, kind=one.kind, cpu=0, **values)


def written(path: Path, *records: Record, tail: bytes = b"") -> Path:
    path.write_bytes(b"".join(r.pack() for r in records) + tail)
    return path


def test_a_last_record_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    file = written(tmp_path / "r", record("do_mbind", at=5), tail=b"x" * 63)
    assert decode.load(file)["time"].tolist() == [5]


def test_no_file_and_an_empty_file_are_no_records(tmp_path: Path) -> None:
    assert len(decode.load(tmp_path / "none")) == 0
    assert len(decode.load(written(tmp_path / "empty"))) == 0


def test_records_are_sorted_by_time_and_ties_keep_their_order(tmp_path: Path) -> None:
    file = written(tmp_path / "r", *(record("do_mbind", at=t, aux=n) for n, t in enumerate((3, 1, 2, 1))))
    events = decode.load(file)
    assert events["time"].tolist() == [1, 1, 2, 3]
    assert events["aux"].tolist() == [1, 3, 2, 0]


def test_node_from_page_flags_where_they_are_there_and_from_the_frame_elsewhere(tmp_path: Path) -> None:
    node_2 = 2 << 58
    file = written(
        tmp_path / "r",
        record("folio_isolate_lru.exit", folio=folio_of(0x10), flags=node_2, refs=2),
        record("move_to_new_folio.exit", at=2, folio=folio_of(0x10), arg=folio_of(0x3001), flags=node_2, refs=1),
        record("migrate_folio_on_fault.exit", at=3, folio=folio_of(0x10), arg=folio_of(0x3001), flags=3 << 58, refs=3),
        record("migrate:mm_migrate_on_fault", at=4, folio=folio_of(0x10), arg=0, flags=1 | 2 << 32),
    )
    columns = decode.columns(decode.load(file), MACHINE)
    assert columns.pfn.tolist() == [0x10] * 4
    assert columns.node.tolist() == [2, 2, 0, 0]
    assert columns.dst_pfn.tolist() == [0, 0x3001, 0x3001, 0]
    assert columns.dst_node.tolist() == [-1, 1, 3, -1]
    assert columns.has_flags.tolist() == [True, True, True, False]


def test_the_frame_that_a_fault_has_mapped(tmp_path: Path) -> None:
    file = written(
        tmp_path / "r",
        record("do_swap_page.exit", arg=0x8000_0000_0300_1027),
        record("do_swap_page.exit", at=2, arg=0x7FFF_FFFF_EFFF_FE08),
    )
    columns = decode.columns(decode.load(file), MACHINE)
    assert columns.dst_pfn.tolist() == [0x3001, 0]


def test_frames_between_nodes_have_none() -> None:
    pfns = np.array([0, 1, 0xFFF, 0x1000, 0x2000, 0x2FFF, 0x3000, 0x4000], np.uint64)
    assert decode.nodes_of(pfns, MACHINE).tolist() == [-1, 0, 0, 0, -1, -1, 1, -1]
    assert decode.nodes_of(pfns, Machine(())).tolist() == [-1] * 8


def test_every_probe_of_the_registry_is_classified_from_its_words() -> None:
    for probe in PROBES:
        assert not (decode.state_of_source(probe) and decode.state_of_destination(probe)), probe.name
        if probe.refs:
            assert decode.state_of_source(probe) or decode.state_of_destination(probe), probe.name
        if decode.state_of_destination(probe):
            assert decode.arg_is_folio(probe), probe.name
    assert decode.arg_is_pte(BY_NAME["do_swap_page.exit"])
    assert not decode.arg_is_pte(BY_NAME["do_swap_page"])


def test_the_table_has_typed_columns_and_nulls_where_there_is_nothing() -> None:
    run = recorded.evidence("demo")
    assert run.events is not None
    table = decode.table(run.events, run.machine)
    assert table.num_rows == len(run.events)
    types = {field.name: str(field.type) for field in table.schema}
    assert types["time_ns"] == "uint64" and types["node"] == "int16" and types["pfn"] == "uint64"
    assert "string" in types["probe"] and "string" in types["flags"]
    rows = table.to_pylist()
    mbind = next(row for row in rows if row["probe"] == "__x64_sys_mbind")
    assert mbind["kind"] == "enter" and mbind["pfn"] is None and mbind["refs"] is None and mbind["result"] is None
    found = next(row for row in rows if row["probe"] == "swap_cache_get_folio.exit")
    assert (found["node"], found["refs"], found["result"]) == (1, 2, 2)
    assert found["flags"] == "uptodate dirty lru swapcache swapbacked"


def test_a_table_of_no_records_has_the_same_columns() -> None:
    run = recorded.evidence("demo")
    assert run.events is not None
    empty, full = decode.table(run.events[:0], run.machine), decode.table(run.events, run.machine)
    assert empty.schema.names == full.schema.names


def test_parquet_gives_back_what_was_recorded(tmp_path: Path) -> None:
    run = recorded.evidence("demo")
    assert run.events is not None
    for events in (run.events, run.events[:0]):
        decode.write_parquet(events, run.machine, tmp_path / "events.parquet")
        back = decode.read_parquet(tmp_path / "events.parquet")
        assert [p.name for p in tmp_path.iterdir()] == ["events.parquet"]
        for name in decode.DTYPE.names or ():
            assert (back[name] == events[name]).all(), name


def test_a_million_records_take_seconds() -> None:
    run = recorded.evidence("demo")
    assert run.events is not None
    many = np.tile(run.events, 1_000_000 // len(run.events) + 1)
    began = time.perf_counter()
    assert decode.table(many, run.machine).num_rows >= 1_000_000
    assert time.perf_counter() - began < 10


def test_page_flags_by_name() -> None:
    assert pageflags.text(0x20019) == "locked uptodate dirty swapbacked"
    assert pageflags.text(0x20C19) == "locked uptodate dirty swapcache exclusive swapbacked"
    assert pageflags.text(1 << 10 | 1 << 11) == "checked mappedtodisk"
    assert pageflags.names(1 << 22 | 2 << 58) == ("arch_2",)
    assert len(pageflags.NAMES) == 23
