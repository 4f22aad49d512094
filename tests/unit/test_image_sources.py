"""The host's apt sources, read."""

from __future__ import annotations

from pathlib import Path

from provision.image.sources import Mirror, credentials, mirrors, options

DEB822 = """\
Types: deb deb-src
# a comment inside a stanza
URIs: http://mirror.example/debian/
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
Enabled: no

Types: deb-src
URIs: http://source.example/debian
Suites: trixie
Components: main

Types: deb
URIs: http://inline.example/debian
Suites: sid
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBF
"""

ONE_LINE = """\
# deb http://comment.example/debian trixie main
deb cdrom:[Debian 13]/ trixie main
deb [arch=amd64 signed-by=/etc/keys/debian.gpg] https://line.example/debian trixie main contrib
deb-src https://line.example/debian trixie main
deb https://third.example/apt nodistro main
deb mirror+file:/etc/apt/mirrors/debian.list stable main
"""


def test_deb822_gives_enabled_debian_archives_only(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    assert mirrors(tmp_path) == [
        Mirror("http://mirror.example/debian", Path("/usr/share/keyrings/debian-archive-keyring.gpg")),
        Mirror("http://inline.example/debian", None),
    ]


def test_one_line_style_gives_binary_archives_without_cdrom(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(ONE_LINE)
    assert mirrors(tmp_path) == [
        Mirror("https://line.example/debian", Path("/etc/keys/debian.gpg")),
        Mirror("mirror+file:/etc/apt/mirrors/debian.list", None),
    ]


def test_files_that_apt_does_not_read_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/old.list.disabled").write_text(ONE_LINE)
    assert mirrors(tmp_path) == []


def test_host_without_apt_has_no_mirror(tmp_path: Path) -> None:
    assert mirrors(tmp_path / "absent") == []


def test_line_names_the_keyring_when_there_is_one() -> None:
    assert Mirror("http://m.example/debian").line("trixie") == "deb http://m.example/debian trixie main"
    signed = Mirror("http://m.example/debian", Path("/k.gpg")).line("trixie")
    assert signed == "deb [signed-by=/k.gpg] http://m.example/debian trixie main"


def test_options_carry_the_way_to_a_mirror_and_nothing_else() -> None:
    dump = """\
Acquire "";
Acquire::http::Proxy "http://proxy.example:3142";
Acquire::http::Proxy::direct.example "DIRECT";
Acquire::https::CaInfo "/etc/ssl/our.pem";
Acquire::Check-Valid-Until "false";
Acquire::Retries "";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
APT::Install-Recommends "1";
"""
    assert options(dump) == [
        'Acquire::http::Proxy "http://proxy.example:3142"',
        'Acquire::http::Proxy::direct.example "DIRECT"',
        'Acquire::https::CaInfo "/etc/ssl/our.pem"',
        'Acquire::Check-Valid-Until "false"',
    ]


def test_credentials_point_at_what_is_there(tmp_path: Path) -> None:
    assert list(credentials(tmp_path)) == []
    (tmp_path / "auth.conf.d").mkdir()
    assert list(credentials(tmp_path)) == [f'Dir::Etc::netrcparts "{tmp_path}/auth.conf.d"']
