"""provision/setup.sh with a list and an apt of the test's own; nothing is installed. For real: tests/clean-root.sh."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from provision.host import packages

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb [signed-by=/keys/a.gpg arch=amd64] http://mirror.example/debian/ bookworm main contrib # remark
deb-src http://mirror.example/debian bookworm main
deb cdrom:[Debian]/ bookworm main
deb http://security.example/debian-security bookworm-security main
deb http://other.example/apt nodistro main
"""

DEB822 = """\
# the archive
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main non-free-firmware
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mDMEY865UxYJ
 -----END PGP PUBLIC KEY BLOCK-----

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""


class Lab:
    """A folder with the script, a list, and an apt configuration; programs in `bin` come before the machine's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.tmp = folder / "tmp"
        self.parts = folder / "apt/sources.list.d"
        for made in (self.bin, self.tmp, self.parts, folder / "tree/provision/host"):
            made.mkdir(parents=True)
        self.script = Path(shutil.copy(packages.SETUP, folder / "tree/provision"))
        (folder / "tree/pyproject.toml").write_text("[project]\n")
        (folder / "os-release").write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
        (folder / "apt.conf").write_text(
            f'Dir::Etc::SourceList "{folder}/apt/sources.list";\nDir::Etc::SourceParts "{self.parts}";\n'
            'APT::Sandbox::User "root";\n'
        )
        self.path = f"{self.bin}:{os.environ['PATH']}"

    def list(self, *lines: str) -> None:
        (self.folder / "tree/provision/host/packages.txt").write_text("# list\n\n" + "".join(f"{x}\n" for x in lines))

    def program(self, name: str, body: str) -> None:
        (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
        (self.bin / name).chmod(0o755)

    def one_line(self, text: str) -> None:
        (self.folder / "apt/sources.list").write_text(text)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["/bin/sh", str(self.script), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            env={
                "PATH": self.path,
                "TMPDIR": str(self.tmp),
                "APT_CONFIG": str(self.folder / "apt.conf"),
                "MOF_OS_RELEASE": str(self.folder / "os-release"),
                "LC_ALL": "C.UTF-8",
                **environment,
            },
        )
        assert list(self.tmp.iterdir()) == [], "left behind"
        return done


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def mark_environment(lab: Lab) -> Path:
    """Make it look as if the Python environment had been made."""
    venv = lab.folder / "tree/.venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").symlink_to("/bin/true")
    digest = hashlib.sha256((lab.folder / "tree/pyproject.toml").read_bytes()).hexdigest()
    marker = venv / f"installed-{digest[:16]}"
    marker.write_text(f"{venv}\n")
    return marker


# --- what is missing ---


def test_shell_and_python_find_the_same_things_missing(lab: Lab) -> None:
    lab.list(
        "present    | sh awk               | is there |",
        "part       | sh mof-no-such       | is half there | bookworm?backports",
        "program    | mof-no-such          | is not there |",
        "file       | /etc/pass*           | is there |",
        "files      | /etc/pass* /etc/mof* | is half there | bookworm=security fetched",
    )
    listed = packages.parse((lab.folder / "tree/provision/host/packages.txt").read_text())
    missing = [package.name for package in listed if not package.there()]
    assert missing == ["part", "program", "files"]
    assert lab.run("missing").stdout.split() == missing


def test_when_all_is_there_nothing_is_said_nothing_started_and_it_takes_no_time(lab: Lab) -> None:
    lab.list("present | sh awk | is there |")
    mark_environment(lab)
    for forbidden in ("apt-get", "apt-cache", "apt-config", "dpkg-query", "python3", "id"):
        lab.program(forbidden, "echo started >&2; exit 1")
    start = time.monotonic()
    done = lab.run(PYTHON="/nonexistent")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - start < 1.0


def test_another_pyproject_or_another_place_is_another_environment(lab: Lab) -> None:
    lab.list("present | sh | is there |")
    marker = mark_environment(lab)
    lab.program("old", "exit 1")
    assert lab.run(PYTHON="old").returncode == 0
    (lab.folder / "tree/pyproject.toml").write_text("[project] # changed\n")
    done = lab.run(PYTHON="old")
    assert (done.returncode, done.stderr.strip()) == (
        3,
        "mof: old is older than 3.11; name a newer one: make PYTHON=/path/to/python3",
    )
    (lab.folder / "tree/pyproject.toml").write_text("[project]\n")
    marker.write_text("/elsewhere/.venv\n")
    assert lab.run(PYTHON="old").returncode == 3


def test_another_architecture_is_named(lab: Lab) -> None:
    lab.list("absent | mof-no-such | is not there |")
    lab.program("uname", "echo aarch64")
    done = lab.run("packages")
    assert (done.returncode, "aarch64" in done.stderr) == (3, True)


def test_without_apt_the_missing_are_named_with_their_reasons(lab: Lab) -> None:
    lab.list("absent | mof-no-such | makes the image |")
    for tool in ("dirname", "uname", "rm"):
        (lab.bin / tool).symlink_to(shutil.which(tool) or "")
    lab.path = str(lab.bin)
    done = lab.run("packages")
    assert done.returncode == 3
    assert "absent" in done.stderr
    assert "makes the image" in done.stderr


# --- sources from the machine's own ---


def derived(lab: Lab, *arguments: str) -> dict[str, str]:
    out = lab.folder / "out"
    out.mkdir(exist_ok=True)
    done = lab.run("sources", *arguments, MOF_SOURCES=str(out))
    assert done.returncode == 0, done.stderr
    return {file.name: file.read_text() for file in out.iterdir()}


def test_a_suite_from_one_line_sources_keeps_their_options(lab: Lab) -> None:
    lab.one_line(ONE_LINE)
    line = "deb [signed-by=/keys/a.gpg arch=amd64] http://mirror.example/debian bookworm-backports main\n"
    assert derived(lab, "bookworm", "bookworm-backports") == {"mof-bookworm-backports.list": line}


def test_the_security_archive_lies_beside_the_mirror(lab: Lab) -> None:
    lab.one_line("deb http://mirror.example/debian/ stable main\n")
    line = "deb http://mirror.example/debian-security bookworm-security main\n"
    assert derived(lab, "bookworm", "bookworm-security", "-security") == {"mof-bookworm-security.list": line}


def test_a_suite_from_deb822_sources_keeps_a_key_given_inline(lab: Lab) -> None:
    (lab.parts / "debian.sources").write_text(DEB822)
    found = derived(lab, "bookworm", "bookworm-backports")["mof-bookworm-backports.sources"]
    assert found.split("\n") == [
        "Types: deb",
        "URIs: http://mirror.example/debian",
        "Suites: bookworm-backports",
        "Components: main",
        "Signed-By:",
        *DEB822.split("\n")[6:10],
        "",
        "",
    ]


def test_a_machine_of_another_release_has_nothing_to_derive_from(lab: Lab) -> None:
    lab.one_line("deb http://other.example/ubuntu noble main\n")
    assert derived(lab, "bookworm", "bookworm-backports") == {}


# --- the line that root is to run ---

QEMU = "qemu   | mof-no-such | runs guests      | bookworm?backports"
SOURCE = "source | mof-no-such | holds the source | bookworm=security fetched"
TOOL = "tool   | mof-no-such | builds           |"
INSTALL = "apt-get install -y --no-install-recommends"


def archive(lab: Lab, *suites: str) -> str:
    """A Debian archive as files, with empty suites; the sources line for it, but for the suite."""
    for suite in suites:
        ending = "-security" if suite.endswith("-security") else ""
        folder = lab.folder / f"debian{ending}/dists/{suite}"
        (folder / "main/binary-amd64").mkdir(parents=True)
        (folder / "main/binary-amd64/Packages").touch()
        empty = hashlib.sha256(b"").hexdigest()
        (folder / "Release").write_text(
            f"Suite: {suite}\nCodename: {suite}\nDate: Sat, 01 Jan 2022 00:00:00 UTC\nArchitectures: amd64\n"
            f"Components: main\nSHA256:\n {empty} 0 main/binary-amd64/Packages\n"
        )
    return f"deb [trusted=yes] file:{lab.folder}/debian"


def test_nothing_missing_no_command(lab: Lab) -> None:
    lab.list("present | sh | is there |")
    assert lab.run("command").stdout == ""


def test_suites_that_the_machine_has_need_no_source(lab: Lab) -> None:
    line = archive(lab)
    lab.one_line(f"{line} bookworm main\n{line} bookworm-backports main\n{line}-security bookworm-security main\n")
    lab.list(QEMU, SOURCE, TOOL)
    told = lab.run("command").stdout
    assert told == f"apt-get update && {INSTALL} source tool && {INSTALL} -t bookworm-backports qemu\n"


def test_suites_that_only_the_mirror_has_are_brought_along(lab: Lab) -> None:
    line = archive(lab, "bookworm", "bookworm-backports", "bookworm-security")
    lab.one_line(f"{line} bookworm main\n")
    lab.list(QEMU, SOURCE, TOOL)
    told = lab.run("command").stdout
    folder = "/etc/apt/sources.list.d/mof"
    assert told == (
        f"printf '{line} bookworm-backports main\\n' > {folder}-bookworm-backports.list && "
        f"printf '{line}-security bookworm-security main\\n' > {folder}-bookworm-security.list && "
        f"apt-get update && {INSTALL} source tool && {INSTALL} -t bookworm-backports qemu\n"
    )


def test_a_mirror_without_backports_gives_the_distribution_s_own(lab: Lab) -> None:
    line = archive(lab, "bookworm")
    lab.one_line(f"{line} bookworm main\n")
    lab.list(QEMU, TOOL)
    assert lab.run("command").stdout == f"apt-get update && {INSTALL} qemu tool\n"


def test_other_releases_take_all_from_their_own_suite(lab: Lab) -> None:
    (lab.folder / "os-release").write_text("ID=debian\nVERSION_CODENAME=trixie\n")
    lab.list(QEMU, SOURCE)
    assert lab.run("command").stdout == f"apt-get update && {INSTALL} qemu source\n"


def test_a_person_without_root_is_told_one_line(lab: Lab) -> None:
    lab.list(TOOL)
    lab.program("id", "echo 1000")
    done = lab.run()
    assert done.returncode == 3
    assert done.stdout == f"apt-get update && {INSTALL} tool\n"
    assert "builds" in done.stderr


def test_a_person_without_root_can_do_without_what_the_build_fetches(lab: Lab) -> None:
    lab.list(SOURCE)
    lab.program("id", "echo 1000")
    lab.program("apt-cache", '[ "$1 $2" = "show source" ]')
    assert lab.run("packages").returncode == 0


# --- installing, by an apt that only writes down what it was asked ---

FAKE_APT = """
case "$*" in *indextargets*) echo bookworm; exit ;; esac
echo "$*" >> {log}
case "$*" in *" install "*) [ -z "{broken}" ] || { echo "E: broken"; exit 100; }; touch {made} ;; esac
"""


def installing(lab: Lab, policy: str, *, broken: str = "") -> tuple[subprocess.CompletedProcess[str], str]:
    made, log = lab.folder / "made", lab.folder / "log"
    lab.list(f"qemu | {made} | runs guests | bookworm?backports", f"tool | {made} | builds |")
    lab.one_line("deb http://mirror.example/debian bookworm main\n")
    body = FAKE_APT
    for key, value in {"log": str(log), "made": str(made), "broken": broken}.items():
        body = body.replace("{" + key + "}", value)
    lab.program("apt-get", body)
    lab.program("apt-cache", f"cat <<'TEXT'\n{policy}\nTEXT")
    lab.program("id", "echo 0")
    done = lab.run("packages")
    return done, log.read_text()


BOTH = """qemu:
  Candidate: 7.2
     10.0 100
        100 http://mirror.example/debian bookworm-backports/main amd64 Packages
     7.2 500
        500 http://mirror.example/debian bookworm/main amd64 Packages
tool:
     1.0 500
        500 http://mirror.example/debian bookworm/main amd64 Packages"""


def test_root_gets_what_is_missing_the_better_one_from_backports(lab: Lab) -> None:
    done, asked = installing(lab, BOTH)
    assert done.returncode == 0, done.stderr
    assert "runs guests" in done.stderr
    update, plain, special = asked.splitlines()
    assert update.endswith(" update")
    assert plain.endswith(" install --no-install-recommends tool")
    assert special.endswith(" install --no-install-recommends -t bookworm-backports qemu")


def test_root_gets_the_distribution_s_own_when_backports_are_not_to_be_had(lab: Lab) -> None:
    done, asked = installing(lab, BOTH.replace("bookworm-backports", "bookworm-updates"))
    assert done.returncode == 0, done.stderr
    assert asked.splitlines()[1].endswith(" install --no-install-recommends qemu tool")


def test_a_package_that_no_source_has_is_named(lab: Lab) -> None:
    done, _ = installing(lab, BOTH[: BOTH.index("tool:")])
    assert (done.returncode, done.stderr.splitlines()[-1]) == (3, "mof: this machine's apt sources do not have: tool")


def test_a_failing_apt_shows_its_last_words(lab: Lab) -> None:
    done, _ = installing(lab, BOTH, broken="yes")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-2:] == ["E: broken", "mof: apt-get failed"]
