from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

from tlkit.errors import UsageError
from tlkit.host.goals import Kind, check_distinct, check_goal, files_named

FOLDER = Kind("a folder of ours", lambda folder: next((f for f in folder.iterdir() if f.name != "ours"), None))


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/..", "x/.."])
def test_what_is_not_a_name(tmp_path: Path, name: str) -> None:
    with contextlib.chdir(tmp_path), pytest.raises(UsageError, match="is not a name for a file"):
        check_goal(Path(name), force=True)


def test_a_trailing_slash_is_no_other_name(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(UsageError, match="is the input itself"):
        check_goal(Path(f"{tmp_path}/in/"), force=True, kind=FOLDER, inputs=[tmp_path / "in"])


@pytest.mark.parametrize("lead", ["in", "link", "hard", "x/../in", "folder-link/in"])
def test_an_output_that_is_the_input(tmp_path: Path, lead: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "in").write_text("mine")
    (tmp_path / "link").symlink_to("in")
    (tmp_path / "folder-link").symlink_to(tmp_path)
    (tmp_path / "hard").hardlink_to(tmp_path / "in")
    with pytest.raises(UsageError, match="is the input itself"):
        check_goal(tmp_path / lead, force=True, inputs=[tmp_path / "in"])
    if lead != "in":
        with pytest.raises(UsageError, match="is the input itself"):
            check_goal(tmp_path / "in", force=True, inputs=[tmp_path / lead])


@pytest.mark.parametrize("through", ["in", "in/Data", "link", "link/Data", "in/Data/../Data"])
def test_an_output_inside_the_input(tmp_path: Path, through: str) -> None:
    (tmp_path / "in" / "Data").mkdir(parents=True)
    (tmp_path / "link").symlink_to("in")
    for given in ("in", "link"):
        with pytest.raises(UsageError, match="lies in the input"):
            check_goal(tmp_path / through / "out", inputs=[tmp_path / given])


def test_an_output_around_the_input(tmp_path: Path) -> None:
    (tmp_path / "out" / "ours").mkdir(parents=True)
    (tmp_path / "out" / "ours" / "in").touch()
    (tmp_path / "link").symlink_to("out/ours")
    (tmp_path / "elsewhere").touch()
    (tmp_path / "out" / "ours" / "there").symlink_to(tmp_path / "elsewhere")
    for given in ("out/ours/in", "link/in", "out/ours", "out/ours/there"):
        with pytest.raises(UsageError, match="contains the input"):
            check_goal(tmp_path / "out", force=True, kind=FOLDER, inputs=[tmp_path / given])
    check_goal(tmp_path / "out", force=True, kind=FOLDER, inputs=[tmp_path / "elsewhere", tmp_path / "gone"])


def test_beside_an_input_is_no_place_inside_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    check_goal(tmp_path / "in.out", inputs=[tmp_path / "in"])


def test_only_the_same_kind_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "ours").touch()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    check_goal(tmp_path / "file", force=True)
    check_goal(tmp_path / "ours", force=True, kind=FOLDER)
    check_goal(tmp_path / "empty", force=True, kind=FOLDER)
    for name, kind, reason in (
        ("ours", None, "is a folder"),
        ("empty", None, "is a folder"),
        ("pipe", None, "is not a regular file"),
        ("link", None, r"is a link"),
        ("link", FOLDER, "is a link"),
        ("file", FOLDER, "is not a folder of ours"),
        ("other", FOLDER, r"does not delete .*other/thesis\.txt, which is not part of a folder of ours"),
    ):
        with pytest.raises(UsageError, match=reason):
            check_goal(tmp_path / name, force=True, **({"kind": kind} if kind else {}))
    with pytest.raises(UsageError, match="is not a regular file"):
        check_goal(Path(os.devnull), force=True)


@pytest.mark.parametrize("other", ["a", "./a", "A", "x/../a", "é", "link/a"])
def test_two_outputs_of_one_name(tmp_path: Path, other: str) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    one = tmp_path / ("e\N{COMBINING ACUTE ACCENT}" if other == "é" else "a")
    with pytest.raises(UsageError, match="the same output"):
        check_distinct([tmp_path / "z", one, tmp_path / other])


def test_one_output_inside_another(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lies inside the other"):
        check_distinct([tmp_path / "a" / "b" / "c", tmp_path / "a"])
    check_distinct([tmp_path / "a", tmp_path / "ab"])


def test_what_words_name(tmp_path: Path) -> None:
    for name in ("net.py", "x.png", "a=b.npy", "labels.txt"):
        (tmp_path / name).touch()
    with contextlib.chdir(tmp_path):
        words = (
            "net.py:Net",
            "image=x.png",
            "a=b.npy",
            "resnet50",
            "x=x.png:key",
            "x=[1,2]",
            None,
            {"k": "labels.txt"},
        )
        named = [path.name for path in files_named(*words, ["x.png", Path("net.py")], None, 3)]
    assert named == ["net.py", "x.png", "a=b.npy", "x.png", "labels.txt", "x.png", "net.py"]
