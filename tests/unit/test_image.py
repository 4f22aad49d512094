"""What the image is made of and how: commands, scripts, keys of the cache. No network, no root, no guest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from provision.host import process
from provision.host.cache import Cache
from provision.host.errors import InfraError, UserError
from provision.host.progress import Silent
from provision.image import bootstrap, configuration, filesystem, image, keys, sources, tree
from provision.image.sources import Mirror


def test_bootstrap_runs_nothing_of_the_packages_and_needs_no_privilege() -> None:
    argv = bootstrap.command(Path("/t"), Mirror("http://m.example/debian"), ['Acquire::Retries "3"'])
    assert argv[:4] == ["mmdebstrap", "--mode=chrootless", "--variant=extract", "--format=directory"]
    assert '--aptopt=Acquire::Retries "3"' in argv
    assert argv[-3:] == ["trixie", "/t", "deb http://m.example/debian trixie main"]


def test_bootstrap_without_a_mirror_leaves_the_choice_to_mmdebstrap() -> None:
    assert bootstrap.command(Path("/t"), None, [])[-2:] == ["trixie", "/t"]


def test_missing_packages_are_named_once_and_together(tmp_path: Path) -> None:
    which = {"sh": "dash", "no-such-program-1": "one", "no-such-program-2": "one"}
    assert bootstrap.missing(which, tmp_path) == ["debian-archive-keyring", "one"]
    (tmp_path / "debian-archive-keyring.pgp").touch()
    assert bootstrap.missing(which, tmp_path) == ["one"]


def test_require_gives_one_apt_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "missing", lambda: ["e2fsprogs", "mmdebstrap"])
    with pytest.raises(InfraError) as caught:
        bootstrap.require()
    assert caught.value.hint == "apt-get install e2fsprogs mmdebstrap"


def test_a_mirror_that_fails_is_followed_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def run(argv: list[str], **_: object) -> object:
        if argv[0] == "mmdebstrap":
            tried.append(argv[-1])
            raise InfraError("no", detail="E: the reason")
        return type("Done", (), {"output": ""})

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(sources, "mirrors", lambda: [Mirror("http://a.example")])
    with pytest.raises(InfraError) as caught:
        bootstrap.unpack(tmp_path / "t", Silent())
    assert tried == ["deb http://a.example trixie main", str(tmp_path / "t")]
    assert caught.value.detail == "E: the reason"


def test_add_script_makes_folders_first_and_sets_mode_and_owner() -> None:
    script = filesystem.add_script({"/usr/lib/mof/init": ("in1", 0o755), "/a": ("in0", 0o644)})
    assert script.splitlines() == [
        "mkdir /usr",
        "mkdir /usr/lib",
        "mkdir /usr/lib/mof",
        "rm /a",
        "write in0 /a",
        "sif /a mode 0100644",
        "sif /a uid 0",
        "sif /a gid 0",
        "rm /usr/lib/mof/init",
        "write in1 /usr/lib/mof/init",
        "sif /usr/lib/mof/init mode 0100755",
        "sif /usr/lib/mof/init uid 0",
        "sif /usr/lib/mof/init gid 0",
    ]


@pytest.mark.parametrize("path", ["relative", "/", "/a b", "/a/../b", '/a"b', "/a\nrm /b", "//a", "/a/"])
def test_targets_that_debugfs_would_misread_are_refused(path: str) -> None:
    with pytest.raises(UserError):
        filesystem.valid_target(path)


def test_owner_script_leaves_reserved_inodes_alone() -> None:
    lines = filesystem.owner_script(12).splitlines()
    assert [line for line in lines if line.endswith("uid 0")] == ["sif <2> uid 0", "sif <11> uid 0", "sif <12> uid 0"]


def test_file_system_is_made_and_filled_without_privilege(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/tool").write_text("old")
    disk = tmp_path / "root.img"
    filesystem.make(root, disk)
    (tmp_path / "with blank").write_text("new")
    (tmp_path / "with blank").chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    filesystem.add(disk, {"/usr/bin/tool": tmp_path / "with blank", "/x/y/z": tmp_path / "with blank"}, work)
    debugfs = shutil.which("debugfs", path="/usr/sbin:/sbin:/usr/bin")
    assert debugfs is not None
    said = subprocess.run(
        [debugfs, "-R", "stat /x/y/z", disk], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    assert "Mode:  0755" in said
    assert said.split("User:")[1].split()[0] == "0"
    assert disk.stat().st_blocks * 512 < filesystem.SPARE_BYTES / 4, "spare room must be holes"


def test_what_does_not_fit_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "SPARE_BYTES", 1 << 20)
    root, work = tmp_path / "root", tmp_path / "work"
    root.mkdir()
    work.mkdir()
    (tmp_path / "big").write_bytes(b"x" * (4 << 20))
    filesystem.make(root, tmp_path / "root.img")
    with pytest.raises(InfraError, match="did not get into the image"):
        filesystem.add(tmp_path / "root.img", {"/big": tmp_path / "big"}, work)


def test_key_of_the_image_follows_contents_modes_and_base(tmp_path: Path) -> None:
    extra = tmp_path / "agent.py"
    extra.write_text("1")
    first = image.inputs("base-1", {"/a": extra})
    assert image.inputs("base-1", {"/a": extra}) == first
    assert image.inputs("base-2", {"/a": extra}) != first
    extra.chmod(0o755)
    executable = image.inputs("base-1", {"/a": extra})
    extra.write_text("2")
    assert len({str(x) for x in (first, executable, image.inputs("base-1", {"/a": extra}))}) == 3


def test_key_of_the_base_names_packages_and_no_mirror() -> None:
    said = str(image.base_inputs())
    assert "openssh-server" in said
    assert "://" not in said


def test_init_is_always_in_and_extras_are_checked(tmp_path: Path) -> None:
    assert list(image.contents({})) == [image.INIT]
    with pytest.raises(UserError, match="no such file"):
        image.contents({"/a": tmp_path / "absent"})


def _layers(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Put a small tree in Debian's place; what gets made is appended to the list."""
    made: list[str] = []

    def unpack(target: Path, _: object) -> None:
        made.append("base")
        (target / "usr/bin").mkdir(parents=True)

    monkeypatch.setattr(bootstrap, "require", lambda: None)
    monkeypatch.setattr(bootstrap, "unpack", unpack)
    monkeypatch.setattr(tree, "compile_all", lambda root, progress: None)
    monkeypatch.setattr(tree, "keep_compiler", lambda root, kept, progress: None)
    return made


def test_change_of_an_extra_reuses_the_base_and_its_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "cache")
    made = _layers(cache, monkeypatch)
    extra = tmp_path / "agent.py"
    extra.write_text("1")
    first = image.ensure(cache, {"/usr/lib/mof/probes/agent.py": extra}, Silent())
    extra.write_text("2")
    second = image.ensure(cache, {"/usr/lib/mof/probes/agent.py": extra}, Silent())
    assert made == ["base"]
    assert first.id != second.id
    assert first.root != second.root
    assert first.host_key == second.host_key
    assert first.host_key.startswith("ssh-ed25519 ")
    assert second.key.stat().st_mode & 0o777 == 0o600
    assert image.ensure(cache, {"/usr/lib/mof/probes/agent.py": extra}, Silent()) == second


def test_login_key_is_the_one_that_the_guest_accepts(tmp_path: Path) -> None:
    host, login = keys.generate(), keys.generate()
    tree.configure(tmp_path, host, login)
    assert (tmp_path / "etc/ssh/authorized_keys").read_text() == f"{login.public}\n"
    assert (tmp_path / "etc/ssh/ssh_host_ed25519_key").stat().st_mode & 0o777 == 0o600
    assert login.private.startswith("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    assert host.private != login.private


def test_configuration_replaces_links_instead_of_following_them(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("mine")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc/hosts").symlink_to(outside)
    tree.configure(root, keys.generate(), keys.generate())
    assert outside.read_text() == "mine"
    assert (root / "etc/hosts").read_text() == configuration.FILES["etc/hosts"]


def test_prune_removes_folders_files_and_links_by_glob(tmp_path: Path) -> None:
    (tmp_path / "usr/share/doc/bash").mkdir(parents=True)
    (tmp_path / "usr/bin").mkdir()
    (tmp_path / "usr/bin/perl5").touch()
    (tmp_path / "usr/bin/perl").symlink_to("perl5")
    (tmp_path / "usr/bin/bash").touch()
    tree.prune(tmp_path)
    assert sorted(p.name for p in (tmp_path / "usr").rglob("*")) == ["bash", "bin", "share"]


def test_folders_are_open_whatever_the_makers_umask_was(tmp_path: Path) -> None:
    for name, mode in (("usr", 0o700), ("root", 0o700), ("tmp", 0o1777)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    tree.open_folders(tmp_path)
    assert [(tmp_path / name).stat().st_mode & 0o7777 for name in ("usr", "root", "tmp")] == [0o755, 0o700, 0o1777]


def test_programs_of_the_tree_run_through_its_own_loader() -> None:
    argv = tree.in_root(Path("/r"), "usr/bin/x", "-a")
    assert argv == ["/r/" + tree.LOADER, "--library-path", "/r/" + tree.LIBRARIES, "/r/usr/bin/x", "-a"]


def test_extras_are_compiled_under_their_guest_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def compile_here(compiler: Path, stripped: Path, mode: str, modules: list[Path]) -> None:
        argv = [sys.executable, "-m", "compileall", "-q", "-s", str(stripped), "-p", "/", *map(str, modules)]
        subprocess.run(argv, check=True, timeout=30)

    monkeypatch.setattr(tree, "_compile", compile_here)
    (tmp_path / "compiler" / tree.LOADER).parent.mkdir(parents=True)
    (tmp_path / "compiler" / tree.LOADER).touch()
    (tmp_path / "agent.py").write_text("x = 1\n")
    (tmp_path / "work").mkdir()
    files = {"/usr/lib/mof/probes/agent.py": tmp_path / "agent.py", "/usr/local/bin/memtoy": tmp_path / "agent.py"}
    made = tree.compile_extras(tmp_path / "compiler", files, tmp_path / "work", Silent())
    assert [target.rpartition("/")[0] for target in made] == ["/usr/lib/mof/probes/__pycache__"]
    assert tree.compile_extras(tmp_path / "no-compiler", files, tmp_path / "work", Silent()) == {}


def test_init_is_posix_sh_and_executable() -> None:
    path = Path(image.__file__).parent / "init"
    assert path.stat().st_mode & 0o111
    subprocess.run(["sh", "-n", str(path)], check=True, timeout=10)
    assert path.read_text().count('echo "mof: ready"') == 1
