"""Experiments as data."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller import experiment
from controller.analysis.model import Mechanism
from provision.host.errors import UserError

SCRIPT = "anon foo 8p\nmap foo\n"


def test_the_demo_is_four_cases_of_eight_pages_from_node_1_to_node_2() -> None:
    demo = experiment.load("demo")
    assert [c.expect.mechanism for c in demo.cases if c.expect] == [
        Mechanism.DIRECT,
        Mechanism.LAZY,
        Mechanism.LAZY,
        Mechanism.MANUAL,
    ]
    for case in demo.cases:
        assert case.expect is not None
        assert (case.expect.pages, case.expect.migrated) == (8, 8)
        assert (case.expect.from_node, case.expect.to_node) == (1, 2)


def test_a_script_is_an_experiment_of_one_case(tmp_path: Path) -> None:
    path = tmp_path / "my script!.memtoy"
    path.write_text(SCRIPT)
    found = experiment.load(str(path))
    assert found.name == "my-script"
    assert [(c.script, c.expect) for c in found.cases] == [(SCRIPT, None)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("case = [", "not valid TOML"),
        ("", "case: Field required"),
        ("[[case]]\nname = 'a'\nscript = 's'\nsurprise = 1", "surprise"),
        ("[[case]]\nname = 'a/b'\nscript = 's'", "case.0.name"),
        ("[[case]]\nname = 'a'\nscript = 'none.memtoy'", "cannot be read: No such file"),
        ("[[case]]\nname = 'a'\nscript = 's'\n[[case]]\nname = 'a'\nscript = 's'", "same name"),
        (
            "[[case]]\nname = 'a'\nscript = 's'\nexpect = {pages=8,migrated=8,from_node=1,to_node=2,mechanism='magic'}",
            "mechanism",
        ),
    ],
)
def test_a_wrong_file_gets_one_line_that_names_it(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "s").write_text(SCRIPT)
    path = tmp_path / "x.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        experiment.load(str(path))
    assert why in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_what_does_not_exist_is_told_with_what_does() -> None:
    with pytest.raises(UserError, match=r"no experiment 'dmeo'.*demo"):
        experiment.load("dmeo")


def test_a_script_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.memtoy"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not a text file"):
        experiment.load(str(path))
