"""The check of a series, on a toy tree that has a kernel's targets, its checkpatch.pl and its Kconfig, and none of its size."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import pytest

from controller.check import data, keys, run, table
from controller.check import guest as guests
from controller.check.data import Checked, Done, Outcome, Step
from controller.check.memory import Memory, Record
from controller.cli import main
from guest_kernel import build, identity, kconfig, series, source
from guest_kernel.check_variants import VARIANTS
from guest_kernel.source import Source
from provision.host.cache import Cache, digest_file
from provision.host.errors import GuestLost, InfraError, Loss, UserError
from provision.host.progress import Silent

FEW = (Step.APPLY, Step.CHECKPATCH, Step.OBJECTS, Step.BUILD)
HOST = (*FEW, Step.VARIANTS)

# Each target writes its name into $TOYLOG. MIGRATION cannot be switched off here, and -Wall and W=1 warn as they do.
MAKEFILE = """\
OUT := $(if $(O),$(O)/,)
allnoconfig:
\techo "allnoconfig $(O)" >> $(TOYLOG)
\tmkdir -p $(OUT)include/config
\tgrep -v -e CONFIG_MIGRATION -e MIGRATE_ON_FAULT $(KCONFIG_ALLCONFIG) > $(OUT).config
\techo CONFIG_MIGRATION=y >> $(OUT).config
prepare:
\techo "prepare $(O)" >> $(TOYLOG)
\tgrep -v '^#' $(OUT).config > $(OUT)include/config/auto.conf
bzImage vmlinux:
\techo "$@ $(O)" >> $(TOYLOG)
\tgrep -v '^#' $(OUT).config > $(OUT)include/config/auto.conf
\t@echo "  CC      mm/toy.o"
\tgcc -Wall -c -o $(OUT)toy.o mm/toy.c
mm/%.o: force
\techo "$@ $(O)" >> $(TOYLOG)
\tgcc -Wall $(if $(W),-Wextra) -c -o $(OUT)w1.o $(@:.o=.c)
.PHONY: force
.SILENT:
"""

CHECKPATCH = """\
my $name = $ARGV[-1]; open my $f, '<', $name; my $line = 0;
my ($ignore) = grep { $ARGV[$_ - 1] eq '--ignore' } 1 .. $#ARGV; my $bad = 0;
while (<$f>) { $line++;
  if (/^\\+.*BADWORD/) { print "$name:$line: WARNING:BAD_WORD: a bad word\\n"; $bad = 1; }
  next if index($ARGV[$ignore], 'FILE_PATH_CHANGES') >= 0;
  if (/^\\+.*NEWFILE/) { print "$name:$line: WARNING:FILE_PATH_CHANGES: m\\n"; $bad = 1; }
}
exit $bad;
"""

CLEAN = "int toy(void)\n{\n\treturn 1;\n}\n"
WARNED = "static int idle;\n\n"  # -Wall: defined but not used
EXTRA = "int extra(int a);\nint extra(int a)\n{\n\treturn 1;\n}\n\n"  # -Wextra: unused parameter


@dataclass
class Toy:
    """A toy source, a series on it, and a cache. `versions` are the texts of mm/toy.c, without and with each patch."""

    root: Path
    cache: Cache
    log: Path
    kept: list[str]
    """Ids of the kernels that were kept."""

    def make(self, *versions: str) -> tuple[series.Patch, ...]:
        """Make the source from the first text and a patch from each step to the next."""
        tree = self.root / "linux-source-6.12"
        for name, text in {
            "Makefile": MAKEFILE,
            "scripts/checkpatch.pl": CHECKPATCH,
            "scripts/Kbuild.include": "",
            "mm/Makefile": "obj-y := toy.o\nobj-$(CONFIG_OTHER) += other.o\n",
            "mm/Kconfig": "config MIGRATION\nconfig SWAP\n",
            "init/Kconfig": "",
            "arch/x86/Kconfig": "config NUMA\n",
            "mm/other.c": "",
            "mm/toy.c": versions[0],
        }.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(text)
        tarball = self.root / "linux-source-6.12.tar.xz"
        packed = ["tar", "-C", str(self.root), "--sort=name", "--mtime=@0", "-cJf", str(tarball), tree.name]
        subprocess.run(packed, check=True)
        folder = self.root / "series" / "6.12"
        for number in range(1, len(versions)):
            self.patch(number, versions[number - 1], versions[number])
        names = [f"{number:04}-toy-{number}.patch" for number in range(1, len(versions))]
        (folder / "series").write_text("\n".join(names) + "\n")
        return series.load(folder)

    def patch(self, number: int, before: str, after: str, name: str = "mm/toy.c", subject: str = "toy: change") -> Path:
        folder = self.root / "series" / "6.12"
        folder.mkdir(parents=True, exist_ok=True)
        for side, text in (("a", before), ("b", after)):
            (self.root / side / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / side / name).write_text(text)
        diff = subprocess.run(
            ["diff", "-u", "--label", f"a/{name}", "--label", f"b/{name}", f"a/{name}", f"b/{name}"],
            cwd=self.root,
            capture_output=True,
            text=True,
        ).stdout
        path = folder / f"{number:04}-toy-{number}.patch"
        path.write_text(f"Subject: [PATCH] {subject} {number}\n\n---\n{diff}")
        return path

    def check(
        self, patches: Sequence[series.Patch], prefixes: Sequence[int] = (), steps: Sequence[Step] = FEW, **how: Any
    ) -> Checked:
        numbers = prefixes or range(1, len(patches) + 1)
        return run.run(self.cache, "6.12", tuple(patches), numbers, steps, Silent(), **how)

    def made(self) -> list[str]:
        """What make was asked for since the last time."""
        text = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return [line.strip() for line in text]


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    fragment = tmp_path / "toy.config"
    fragment.write_text("CONFIG_TOY=y\nCONFIG_MIGRATION=y\n")
    log = tmp_path / "log"
    monkeypatch.setenv("TOYLOG", str(log))
    monkeypatch.setenv("MOF_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOF_CACHE_LIMIT", raising=False)
    monkeypatch.setattr(kconfig, "fragments", lambda kernel: [fragment])
    monkeypatch.setattr(series, "SERIES", tmp_path / "series")
    monkeypatch.setattr(identity, "SERIES", tmp_path / "series")

    def locate(cache: Cache, base: str, progress: object) -> Source:
        tarball = tmp_path / "linux-source-6.12.tar.xz"
        return Source("6.12", tarball, "6.12.0-1", digest_file(tarball))

    monkeypatch.setattr(source, "locate", locate)
    # The toy is no kernel: of its builds nothing is kept but the name.
    kept: list[str] = []
    monkeypatch.setattr(build, "keep", lambda cache, kernel, origin, tree, progress: kept.append(str(kernel)))
    return Toy(tmp_path, Cache(), log, kept)


def outcomes(checked: Checked) -> list[list[str]]:
    return [[d.outcome.value for d in row.done] for row in checked.rows]


def done(checked: Checked, number: int, step: Step) -> Done:
    found = next(row for row in checked.rows if row.number == number).step(step)
    assert found is not None
    return found


def leftovers(cache: Cache) -> list[str]:
    return [p.name for p in (cache.root / "tmp").iterdir()]


def test_a_clean_series_passes_and_every_step_really_ran(toy: Toy) -> None:
    patches = toy.make(CLEAN, CLEAN + "int one;\n", CLEAN + "int one;\nint two;\n")
    checked = toy.check(patches, steps=HOST)
    assert outcomes(checked) == [["ok"] * 5] * 2
    assert not checked.failed
    made = toy.made()
    assert made.count("mm/toy.o") == 2
    assert made.count("bzImage") == 3, "without a patch, and both prefixes"
    assert toy.kept == ["6.12-base", "6.12-mof.1", "6.12-mof"], "to be booted, without compiling them again"
    assert made.count("vmlinux check-no-swap") == 3, "not to be booted"
    assert done(checked, 1, Step.OBJECTS).figures["objects"] == ["mm/toy.o"]
    assert leftovers(toy.cache) == []


def test_warnings_that_were_there_before_are_nobody_s_fault_and_new_ones_are(toy: Toy) -> None:
    patches = toy.make(
        WARNED + CLEAN, "int above;\n" + WARNED + CLEAN, "int above;\n" + WARNED + "static int new_one;\n" + CLEAN
    )
    checked = toy.check(patches, steps=(Step.APPLY, Step.BUILD, Step.VARIANTS))
    assert outcomes(checked) == [["ok"] * 3, ["ok", "FAIL", "FAIL"]]
    built = done(checked, 2, Step.BUILD)
    assert len(built.words) == 1 and "new_one" in built.words[0]
    assert (built.figures["warnings_before"], built.figures["warnings"]) == (1, 2)
    assert any("check-no-swap" in word and "new_one" in word for word in done(checked, 2, Step.VARIANTS).words)


def test_what_only_w_1_warns_of_is_found_in_the_objects_alone(toy: Toy) -> None:
    checked = toy.check(toy.make(CLEAN, EXTRA + CLEAN), steps=(Step.APPLY, Step.OBJECTS, Step.BUILD))
    assert outcomes(checked) == [["ok", "FAIL", "ok"]]
    (word,) = done(checked, 1, Step.OBJECTS).words
    assert "unused parameter" in word


def test_what_w_1_warns_of_without_the_patch_too_is_not_held_against_it(toy: Toy) -> None:
    more = EXTRA.replace("extra", "more")
    patches = toy.make(EXTRA + CLEAN, "int x;\n" + EXTRA + CLEAN, "int x;\n" + EXTRA + more + CLEAN)
    checked = toy.check(patches, steps=(Step.OBJECTS, Step.VARIANTS))
    assert outcomes(checked) == [["ok", "ok"], ["FAIL", "FAIL"]]
    objects = done(checked, 2, Step.OBJECTS)
    assert (objects.figures["warnings"], len(objects.words)) == (2, 1)
    assert "mm/toy.o usual" in toy.made()
    toy.check(patches, steps=(Step.OBJECTS, Step.VARIANTS))
    assert not [line for line in toy.made() if line.endswith("usual")], "what the base says is remembered"


def test_code_that_does_not_compile_fails_with_the_compiler_s_words(toy: Toy) -> None:
    checked = toy.check(toy.make(CLEAN, "int x = ;\n" + CLEAN), steps=HOST)
    assert outcomes(checked) == [["ok", "ok", "FAIL", "FAIL", "FAIL"]]
    assert toy.kept == ["6.12-base"]
    for step in (Step.OBJECTS, Step.BUILD, Step.VARIANTS):
        assert any("expected expression before" in word for word in done(checked, 1, step).words)


def test_a_base_that_does_not_build_is_no_finding_about_the_series(toy: Toy) -> None:
    with pytest.raises(InfraError, match="does not build without any patch") as caught:
        toy.check(toy.make("int x = ;\n", "int x;\n"), steps=(Step.BUILD,))
    assert "expected expression" in caught.value.detail
    assert leftovers(toy.cache) == []


def test_after_a_patch_that_does_not_apply_the_rest_is_skipped(toy: Toy) -> None:
    toy.make(CLEAN, CLEAN + "int one;\n", CLEAN + "int one;\nint two;\n", CLEAN)
    toy.patch(2, "nothing like it\n", "something else\n")
    checked = toy.check(series.load(identity.SERIES / "6.12"))
    assert outcomes(checked) == [["ok"] * 4, ["FAIL", "-", "-", "-"], ["FAIL", "-", "-", "-"]]
    for number in (2, 3):
        assert "0002-toy-2.patch: patch does not apply" in done(checked, number, Step.APPLY).words[0]


def test_checkpatch_s_words_and_what_it_is_not_asked(toy: Toy) -> None:
    patches = toy.make(CLEAN, CLEAN + "int x; /* NEWFILE */\n", CLEAN + "int x; /* NEWFILE */\nint y; /* BADWORD */\n")
    checked = toy.check(patches, steps=(Step.APPLY, Step.CHECKPATCH))
    assert outcomes(checked) == [["ok", "ok"], ["ok", "FAIL"]]
    (word,) = done(checked, 2, Step.CHECKPATCH).words
    assert word.endswith("WARNING:BAD_WORD: a bad word")
    assert any("FILE_PATH_CHANGES" in note for note in checked.notes)


def test_a_checkpatch_that_does_not_run_is_the_host_s_fault(toy: Toy) -> None:
    patches = toy.make(CLEAN, CLEAN + "int x;\n")
    toy.root.joinpath("linux-source-6.12/scripts/checkpatch.pl").write_text("die 'no';")
    with pytest.raises(InfraError, match=r"checkpatch\.pl failed"):
        from guest_kernel import check

        check.checkpatch(patches[0], toy.root / "linux-source-6.12")


def test_a_file_that_is_not_configured_is_told_and_not_compiled(toy: Toy) -> None:
    toy.make(CLEAN, CLEAN)
    toy.patch(1, "", "int other;\n", name="mm/other.c")
    checked = toy.check(series.load(identity.SERIES / "6.12"), steps=(Step.APPLY, Step.OBJECTS))
    assert outcomes(checked) == [["ok", "ok"]]
    assert done(checked, 1, Step.OBJECTS).figures["objects"] == []
    assert "not compiled in this configuration: mm/other.o" in checked.notes


def test_a_variant_that_cannot_be_had_is_said_to_be_so(toy: Toy) -> None:
    checked = toy.check(toy.make(CLEAN, CLEAN + "int x;\n"), steps=(Step.VARIANTS,))
    figures = done(checked, 1, Step.VARIANTS).figures
    assert figures["check-no-migration"]["got"] == {"CONFIG_MIGRATION": "y"}
    assert not figures["check-no-migration"]["configurable"]
    assert "compiled" not in figures["check-no-migration"]
    assert figures["check-no-numa"]["got"] == {"CONFIG_NUMA": "n"}
    assert any("asked n, got y: not configurable" in note for note in checked.notes)
    assert any("the tree has no such symbol" in note for note in checked.notes)
    assert "vmlinux check-no-migration" not in toy.made()


def test_what_passed_is_not_done_again_and_a_change_of_the_last_patch_redoes_that_alone(toy: Toy) -> None:
    texts = [CLEAN, CLEAN + "int one;\n", CLEAN + "int one;\nint two;\n"]
    toy.check(toy.make(*texts))
    assert toy.made()
    again = toy.check(toy.make(*texts))
    assert toy.made() == []
    assert all(d.remembered for row in again.rows for d in row.done)
    changed = toy.check(toy.make(*texts[:2], texts[1] + "int other;\n"))
    assert [[d.remembered for d in row.done] for row in changed.rows] == [[True] * 4, [False] * 4]
    made = toy.made()
    assert made.count("bzImage") == 1, "neither the first prefix nor the base again"
    first = toy.check(toy.make(CLEAN, CLEAN + "int un;\n", texts[2].replace("one", "un")))
    assert not any(d.remembered for row in first.rows for d in row.done)


def test_kconfig_is_asked_again_when_a_patch_may_change_its_answer(toy: Toy) -> None:
    patches = list(toy.make(CLEAN, CLEAN + "int one;\n", CLEAN + "int one;\nint two;\n"))
    toy.check(patches, steps=HOST)
    made = toy.made()
    assert (made.count("allnoconfig"), made.count("allnoconfig check-no-numa")) == (1, 1)
    toy.patch(2, "config MIGRATION\nconfig SWAP\n", "config MIGRATION\nconfig SWAP\nconfig NEW\n", "mm/Kconfig")
    patches = list(series.load(toy.root / "series" / "6.12"))
    toy.check(patches, prefixes=(2, 1), steps=HOST, fresh=True)
    made = toy.made()
    assert (made.count("allnoconfig"), made.count("allnoconfig check-no-numa")) == (3, 3), "anew, for 2, and back for 1"


def test_fresh_does_it_again_and_only_what_was_asked_for(toy: Toy) -> None:
    patches = toy.make(CLEAN, CLEAN + "int one;\n", CLEAN + "int one;\nint two;\n")
    toy.check(patches)
    toy.made()
    toy.check(patches, prefixes=(2,), steps=(Step.BUILD,), fresh=True)
    built = [line for line in toy.made() if line != "allnoconfig"]
    assert built == ["bzImage", "bzImage"], "the base and the second prefix"
    rest = toy.check(patches)
    assert toy.made() == []
    assert all(d.remembered for row in rest.rows for d in row.done)


def test_what_failed_is_tried_again(toy: Toy) -> None:
    patches = toy.make(CLEAN, EXTRA + CLEAN)
    toy.check(patches, steps=(Step.OBJECTS,))
    toy.made()
    again = toy.check(patches, steps=(Step.OBJECTS,))
    assert "mm/toy.o" in toy.made()
    assert not done(again, 1, Step.OBJECTS).remembered


class _Interrupted(Silent):
    """Ctrl-C when the second prefix is to be built."""

    def step(self, text: str) -> None:
        if text == "6.12-mof: build":
            raise KeyboardInterrupt


def test_an_interrupted_check_goes_on_where_it_stopped(toy: Toy) -> None:
    patches = toy.make(CLEAN, CLEAN + "int one;\n", CLEAN + "int one;\nint two;\n")
    with pytest.raises(KeyboardInterrupt):
        run.run(toy.cache, "6.12", patches, (1, 2), FEW, _Interrupted())
    assert leftovers(toy.cache) == []
    toy.made()
    checked = toy.check(patches)
    assert [[d.remembered for d in row.done] for row in checked.rows] == [[True] * 4, [True, True, True, False]]
    made = toy.made()
    assert made.count("bzImage") == 1, "neither the base nor the first prefix again"


class _InterruptedBetween(Silent):
    """Ctrl-C before the last variant of the only prefix."""

    def step(self, text: str) -> None:
        if text == "6.12-mof: check-alone":
            raise KeyboardInterrupt


def test_variants_that_passed_are_not_built_again_when_a_later_one_was_interrupted(toy: Toy, tmp_path: Path) -> None:
    patches = toy.make(CLEAN, CLEAN + "int one;\n")
    path = tmp_path / "record.json"
    with pytest.raises(KeyboardInterrupt):
        run.run(toy.cache, "6.12", patches, (1,), (Step.VARIANTS,), _InterruptedBetween(), memory=_written(toy, path))
    toy.made()
    checked = toy.check(patches, steps=(Step.VARIANTS,), memory=_written(toy, path))
    assert [line for line in toy.made() if line.startswith("vmlinux")] == ["vmlinux check-alone"]
    figures = done(checked, 1, Step.VARIANTS).figures
    assert set(figures) == {variant.name for variant in VARIANTS}
    parts = [facts for facts in json.loads(path.read_text())["steps"].values() if len(facts["figures"]) == 1]
    assert all("said" in facts["figures"] for facts in parts), "the whole has them: left are builds to compare with"
    toy.check(patches, steps=(Step.VARIANTS,), memory=_written(toy, path), fresh=True)
    assert toy.made().count("vmlinux check-no-numa") == 2, "without a patch and with it: nothing of the parts is left"


def _written(toy: Toy, path: Path) -> Memory:
    return Memory(toy.cache, Record(path))


def test_without_memory_nothing_is_recalled(toy: Toy) -> None:
    patches = toy.make(CLEAN, CLEAN + "int one;\n")
    toy.check(patches)
    toy.made()
    toy.check(patches, steps=(Step.OBJECTS,), memory=Memory(toy.cache, on=False))
    assert "mm/toy.o" in toy.made()


def test_a_record_goes_to_a_cache_that_knows_nothing(toy: Toy, tmp_path: Path) -> None:
    patches = toy.make(CLEAN, CLEAN + "int one;\n", CLEAN + "int one;\nint two;\n")
    path = tmp_path / "record.json"
    toy.check(patches, prefixes=(1,), memory=Memory(toy.cache, Record(path)))
    toy.made()
    other = replace(toy, cache=Cache(tmp_path / "other"))
    checked = other.check(patches, memory=Memory(other.cache, Record(path)))
    assert [[d.remembered for d in row.done] for row in checked.rows] == [[True] * 4, [False] * 4]
    assert toy.made().count("bzImage") == 1, "what the base says is in the record too"
    third = replace(toy, cache=Cache(tmp_path / "third"))
    again = third.check(patches, memory=Memory(third.cache, Record(path)))
    assert all(d.remembered for row in again.rows for d in row.done)
    assert not toy.made()


def test_a_whole_check_leaves_in_the_record_what_is_still_true(tmp_path: Path) -> None:
    record = Record(path := tmp_path / "record.json")
    memory = Memory(Cache(tmp_path / "cache"), record)
    for number in (1, 2):
        memory.keep(Done(Step.APPLY, Outcome.OK, 1.5, notes=("so",), figures={"n": number}), {"patches": number})
    later = Memory(Cache(tmp_path / "later"), Record(path))
    found = later.recall(Step.APPLY, {"patches": 2})
    assert found == Done(Step.APPLY, Outcome.OK, 1.5, (), ("so",), {"n": 2}, remembered=True)
    later.forget_unseen()
    empty = Memory(Cache(tmp_path / "empty"), Record(path))
    assert empty.recall(Step.APPLY, {"patches": 1}) is None
    assert empty.recall(Step.APPLY, {"patches": 2}) is not None
    empty.forget(Step.APPLY, {"patches": 2})
    assert json.loads(path.read_text())["steps"] == {}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        b'{"schema": 9, "steps": {}}',
        b'{"schema": 1, "steps": [1]}',
        b'{"schema": 1, "steps": {"apply-0": {}}}',
        b'{"schema": 1, "steps": {"apply-0": {"outcome": "FAIL", "seconds": 1, "notes": [], "figures": {}}}}',
    ],
)
def test_a_file_that_is_no_record_is_refused_and_left(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not a record of a check"):
        Record(path)
    assert path.read_bytes() == content


def test_a_record_in_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        Record(tmp_path / "nowhere" / "record.json")
    with pytest.raises(UserError, match="cannot be read"):
        Record(tmp_path)


def test_prefixes_can_be_asked_for_in_any_order(toy: Toy) -> None:
    patches = toy.make(CLEAN, CLEAN + "int one;\n", CLEAN + "int one;\nint two;\n")
    checked = toy.check(patches, prefixes=(2, 1), steps=(Step.APPLY, Step.OBJECTS))
    assert outcomes(checked) == [["ok", "ok"], ["ok", "ok"]]


def test_a_guest_that_is_lost_is_a_failure_of_its_prefix(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: object) -> NoReturn:
        raise GuestLost(Loss.PANIC, "Kernel panic - not syncing", console_tail="RIP: here")

    monkeypatch.setattr(guests, "booted", lost)
    checked = toy.check(toy.make(CLEAN, CLEAN + "int x;\n"), steps=(Step.APPLY, Step.BOOT, Step.PROMISE))
    assert outcomes(checked) == [["ok", "FAIL", "-"]]
    assert done(checked, 1, Step.PROMISE).notes == ("the kernel does not boot",)
    assert done(checked, 1, Step.BOOT).words[-1] == "RIP: here"


def test_a_kernel_that_does_not_build_for_the_boot_is_a_failure_and_a_host_that_cannot_is_not(
    toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = toy.make(CLEAN, CLEAN + "int x;\n")
    error = InfraError("", detail="")

    def fails(*arguments: object) -> NoReturn:
        raise error

    monkeypatch.setattr(guests, "booted", fails)
    for words in ("the kernel does not build", "2 of 9 configuration options were not accepted"):
        error = InfraError(words, detail="mm/toy.c: error")
        checked = toy.check(patches, steps=(Step.BOOT,))
        assert done(checked, 1, Step.BOOT).words[-1] == "mm/toy.c: error"
    error = InfraError("qemu is not installed")
    with pytest.raises(InfraError, match="qemu"):
        toy.check(patches, steps=(Step.BOOT,))


def test_the_words_that_tell_a_bad_kernel_from_a_bad_host_are_those_of_the_builder(toy: Toy) -> None:
    from guest_kernel import build

    patches = toy.make(CLEAN, "int x = ;\n" + CLEAN)
    assert patches
    with pytest.raises(InfraError) as caught:
        build.ensure(toy.cache, keys.kernel_id("6.12", 1, 1), Silent())
    assert run.DOES_NOT_BUILD.fullmatch(caught.value.message)
    with pytest.raises(InfraError) as caught:
        kconfig.check({"CONFIG_X": ("y", "toy.config")}, {})
    assert run.DOES_NOT_BUILD.fullmatch(caught.value.message)


@pytest.mark.parametrize(
    ("number", "length", "name"), [(0, 5, "6.12-base"), (4, 5, "6.12-mof.4"), (5, 5, "6.12-mof"), (1, 1, "6.12-mof")]
)
def test_the_kernels_of_prefixes(number: int, length: int, name: str) -> None:
    assert str(keys.kernel_id("6.12", number, length)) == name


def mof(*arguments: str) -> int:
    return main.main(["kernel", "check", *arguments])


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said, in one line, with status 2."""
    assert mof(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_bad_input(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.make(CLEAN, CLEAN + "int one;\n")
    assert "--prefix: the series on 6.12 has 1 patches, and no prefix of 99 (N is 1 to 1)" in refused(
        capsys, "--prefix", "99"
    )
    assert "no prefix of 0" in refused(capsys, "--prefix", "0")
    assert "--prefix" in refused(capsys, "--prefix", "two")
    assert "--base: no series for kernel '5.4' (known: 6.12)" in refused(capsys, "--base", "5.4")
    said = refused(capsys, "--only", "nonsense")
    assert all(step.value in said for step in Step)


def test_from_the_command_line_to_the_json(toy: Toy, capsys: pytest.CaptureFixture[str]) -> None:
    toy.make(CLEAN, CLEAN + "int one;\n", EXTRA + CLEAN + "int one;\n")
    steps = ["--only", "objects", "--only", "apply"]
    assert mof("--prefix", "1", *steps, "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert (told["schema"], told["verdict"], told["steps"]) == (1, "pass", ["apply", "objects"])
    assert [p["number"] for p in told["prefixes"]] == [1]
    objects = told["prefixes"][0]["steps"]["objects"]
    assert objects["outcome"] == "ok"
    assert objects["figures"]["objects"] == ["mm/toy.o"]
    assert mof(*steps, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"] == "fail"
    first, second = told["prefixes"]
    assert first["steps"]["objects"]["remembered"]
    assert second["steps"]["objects"]["outcome"] == "fail"
    assert "unused parameter" in second["steps"]["objects"]["words"][0]
    assert mof(*steps) == 1
    shown = capsys.readouterr().out
    assert "something failed" in shown
    assert "FAIL 2 objects: 0002-toy-2.patch" in shown


def rows(*done: Done) -> Checked:
    row = data.Row(7, "0007-x.patch", "mm: " + "long " * 20, "ab", done)
    return Checked(
        "6.12", 9, tuple(d.step for d in done), (row,), 4000.0, {"source": {"version": "6.12.1-1"}}, ("a note",)
    )


def test_the_table() -> None:
    shown = table.render(
        rows(
            Done(Step.APPLY, Outcome.OK, 0.42),
            Done(Step.BUILD, Outcome.OK, 754.0, remembered=True),
            Done(Step.BOOT, Outcome.FAILED, 33.3, ("BUG: one", "and two")),
            Done(Step.PROMISE, Outcome.SKIPPED),
        )
    )
    lines = shown.splitlines()
    assert lines[0] == "mof kernel check: 1 of 9 prefixes of the series on 6.12 (6.12.1-1), 1 h 07: something failed"
    assert lines[2].split() == ["patch", "apply", "build", "boot", "promise"]
    assert lines[3].startswith("7  mm: long long")
    assert lines[3].endswith("ok 0.4 s  ok 13 min*  FAIL 33 s  -")
    assert "...  ok" in lines[3]
    assert lines[-5:] == ["FAIL 7 boot: 0007-x.patch", "  | BUG: one", "  | and two", "", "note: a note"]
    assert "passed in an earlier check" in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (119.4, "119 s"), (119.6, "2 min"), (3599.0, "1 h 00")],
)
def test_seconds(value: float, text: str) -> None:
    assert table.seconds(value) == text
