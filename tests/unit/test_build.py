"""The kernel build, on a toy tree that has a kernel's Makefile targets and none of its size."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from guest_kernel import build, identity, kconfig, source
from guest_kernel.source import Source
from provision.host.cache import Cache, digest_file
from provision.host.errors import InfraError
from provision.host.progress import Silent

BASE = identity.parse("6.12-base")

MAKEFILE = """\
allnoconfig:
\tgrep -v DROPPED $(KCONFIG_ALLCONFIG) > .config
bzImage:
\t@echo "  CC      toy.o"
\tgcc -shared -Wl,--build-id -o vmlinux toy.c
\tprintf btf > btf && objcopy --add-section .BTF=btf vmlinux
\t@echo "  LD      vmlinux"
\tmkdir -p arch/x86/boot kernel include/config
\tcp vmlinux arch/x86/boot/bzImage
\ttouch System.map kernel/kheaders_data.tar.xz
\techo 6.12.0$(LOCALVERSION) > include/config/kernel.release
"""


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Cache]:
    """Make a toy source whose toy.c has the given text; the cache to build into."""
    fragment = tmp_path / "toy.config"
    fragment.write_text("CONFIG_TOY=y\n")
    monkeypatch.setattr(kconfig, "fragments", lambda kernel: [fragment])

    def make(text: str) -> Cache:
        tree = tmp_path / "linux-source-6.12"
        tree.mkdir(exist_ok=True)
        (tree / "Makefile").write_text(MAKEFILE)
        (tree / "toy.c").write_text(text)
        tarball = tmp_path / "linux-source-6.12.tar.xz"
        # The same text is the same tarball, whenever it is packed.
        packed = ["tar", "-C", str(tmp_path), "--sort=name", "--mtime=@0", "-cJf", str(tarball), tree.name]
        subprocess.run(packed, check=True)
        found = Source("6.12", tarball, "6.12.0-1", digest_file(tarball))
        monkeypatch.setattr(source, "locate", lambda cache, base, progress: found)
        return Cache(tmp_path / "cache")

    return make


def leftovers(cache: Cache) -> list[str]:
    return [p.name for p in (cache.root / "tmp").iterdir()]


def test_the_artifact_holds_the_kernel_and_what_went_into_it(toy: Callable[[str], Cache]) -> None:
    cache = toy("int x;")
    made = build.ensure(cache, BASE, Silent())
    for name in ("bzImage", "vmlinux", "config", "System.map", "kheaders.tar.xz", "btf.bin", "manifest.json"):
        assert (made.path / name).exists(), name
    assert (made.path / "btf.bin").read_bytes() == b"btf"
    assert made.release == "6.12.0-base"
    assert len(made.build_id) == 40
    assert made.facts["steps"] == 2
    assert [k.id for k in build.built(cache)] == ["6.12-base"]
    assert leftovers(cache) == []


def test_nothing_is_built_twice_and_a_changed_source_is(toy: Callable[[str], Cache]) -> None:
    first = build.ensure(toy("int x;"), BASE, Silent())
    assert build.ensure(toy("int x;"), BASE, Silent()).path == first.path
    assert build.ensure(toy("int y;"), BASE, Silent()).path != first.path


def test_a_build_that_fails_shows_the_end_of_the_compiler_s_output(toy: Callable[[str], Cache]) -> None:
    cache = toy("int x = ;")
    with pytest.raises(InfraError, match=r"kernel 6\.12-base: the kernel does not build") as caught:
        build.ensure(cache, BASE, Silent())
    assert "expected expression before" in caught.value.detail
    assert build.built(cache) == []
    assert leftovers(cache) == []


def test_an_option_that_is_not_accepted_stops_before_compiling(toy: Callable[[str], Cache], tmp_path: Path) -> None:
    cache = toy("int x = ;")  # would not compile
    (tmp_path / "toy.config").write_text("CONFIG_TOY=y\nCONFIG_DROPPED=y\n")
    with pytest.raises(InfraError, match="1 of 2 configuration options were not accepted") as caught:
        build.ensure(cache, BASE, Silent())
    assert caught.value.detail == "CONFIG_DROPPED: asked y, got n (toy.config)"


class _Interrupted(Silent):
    def advance(self, text: str, done: int, total: int | None = None) -> None:
        raise KeyboardInterrupt


def test_an_interrupted_build_leaves_nothing(toy: Callable[[str], Cache]) -> None:
    cache = toy("int x;")
    with pytest.raises(KeyboardInterrupt):
        build.ensure(cache, BASE, _Interrupted())
    assert build.built(cache) == []
    assert leftovers(cache) == []


def test_an_installed_source_that_was_changed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tarball = tmp_path / "linux-source-6.12.tar.xz"
    tarball.write_bytes(b"not what Debian signed")
    sums = tmp_path / "linux-source-6.12.md5sums"
    sums.write_text(f"{'0' * 32}  {str(tarball).lstrip('/')}\n")
    monkeypatch.setattr(source, "INSTALLED", tmp_path)
    monkeypatch.setattr(source, "DPKG_INFO", tmp_path)
    with pytest.raises(InfraError, match=r"not what its package contains.*--reinstall linux-source-6\.12"):
        source.locate(Cache(tmp_path / "cache"), "6.12", Silent())


def test_what_is_kept_of_a_tree_leaves_it_configured(tmp_path: Path) -> None:
    """The next prefix is built in it, and asks Kconfig only if a patch may have changed the answer."""
    tree, draft = tmp_path / "tree", tmp_path / "draft"
    draft.mkdir()
    for name in ("arch/x86/boot/bzImage", "vmlinux", "System.map", "kernel/kheaders_data.tar.xz", ".config"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(name)
    build._collect(identity.KernelId("6.12", True, 3, lean=True), tree, draft)
    assert {p.name for p in draft.iterdir()} == {"bzImage", "vmlinux", "System.map", "kheaders.tar.xz", "config"}
    assert (draft / "config").read_text() == (tree / ".config").read_text()
