"""What the command line hears of slow work and of remarks."""

from __future__ import annotations

from tlkit.engines.told import listening, remark, remarks, slowly


def test_slow_work_is_told_from_its_beginning_to_its_end_and_only_while_somebody_listens() -> None:
    heard: list[str] = []
    with slowly("unheard"):
        pass
    with listening(heard.append), slowly("compiling"):
        heard.append("in it")
    with slowly("unheard"):
        pass
    assert heard == ["compiling", "in it", ""]


def test_a_remark_is_made_once_and_heard_once() -> None:
    remarks()
    remark("no room")
    remark("no room")
    assert remarks() == ["no room"] and remarks() == []
