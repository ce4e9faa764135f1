"""Zipped packages that would write elsewhere, expand without end, or be two packages in one."""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.attacks import attempt, untouched
from tests.formats import packages

MAKERS: dict[str, tuple[Callable[[Path, dict[str, bytes]], Path], str]] = {}
Members = dict[str, bytes]


def attack(reason: str) -> Callable[[Callable[[Path, Members], Path]], Callable[[Path, Members], Path]]:
    def register(make: Callable[[Path, Members], Path]) -> Callable[[Path, Members], Path]:
        MAKERS[make.__name__] = make, reason
        return make

    return register


def written(folder: Path, members: Members, packed: bool = True) -> Path:
    path = folder / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as out:
        for name, data in members.items():
            out.writestr(name, data)
    return path


def renamed(path: Path, old: bytes, new: bytes) -> Path:
    """Write ``new`` for ``old``, of the same length, wherever it stands: names that zipfile itself would not write."""
    data = path.read_bytes()
    assert len(old) == len(new) and old in data
    path.write_bytes(data.replace(old, new))
    return path


@attack("leads out of it")
def absolute_after_the_prefix(folder: Path, members: Members) -> Path:
    return written(folder, {**members, f"p.mlpackage/{folder}/outside/canary": b"overwritten"})


@attack("leads out of it")
def upwards(folder: Path, members: Members) -> Path:
    return written(folder, {**members, "p.mlpackage/Data/../../../outside/canary": b"overwritten"})


@attack("leads out of it")
def upwards_by_backslashes(folder: Path, members: Members) -> Path:
    return written(folder, {**members, "p.mlpackage\\..\\..\\outside\\canary": b"overwritten"})


@attack("leads out of it")
def a_drive(folder: Path, members: Members) -> Path:
    return written(folder, {**members, "C:/canary": b"overwritten"})


@attack("leads out of it")
def a_name_that_goes_on_after_its_end(folder: Path, members: Members) -> Path:
    path = written(folder, {**members, "p.mlpackage/Data/a#/../../outside/canary": b"x"})
    return renamed(path, b"a#/../..", b"a\0/../..")


@attack("leads out of it")
def a_part_that_is_a_dot(folder: Path, members: Members) -> Path:
    return written(folder, {**members, "p.mlpackage/./Data/x": b"x"})


@attack("is a link or a device")
def weights_that_are_a_link(folder: Path, members: Members) -> Path:
    path = folder / "x.zip"
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            if name.endswith(".bin"):
                info.external_attr, data = (stat.S_IFLNK | 0o777) << 16, bytes(folder / "outside/canary")
            out.writestr(info, data)
    return path


@attack("two of its members have one name")
def one_name_twice(folder: Path, members: Members) -> Path:
    path = written(folder, {**members, "p.mlpackage/Manifest.jsom": b"{}"})
    return renamed(path, b"Manifest.jsom", b"Manifest.json")


@attack("one name to some systems")
def weights_twice_in_another_case(folder: Path, members: Members) -> Path:
    manifest = json.loads(members["p.mlpackage/Manifest.json"])
    manifest["itemInfoEntries"]["more"] = {"path": "com.apple.coreml/MODEL.mlmodel", "author": "x", "name": "x"}
    changed = {**members, "p.mlpackage/Manifest.json": json.dumps(manifest).encode()}
    return written(folder, {**changed, "p.mlpackage/Data/com.apple.coreml/MODEL.mlmodel": b"x"})


@attack("share bytes")
def members_that_share_bytes(folder: Path, members: Members) -> Path:
    path = written(folder, members, packed=False)
    data = bytearray(path.read_bytes())
    start = struct.unpack_from("<L", data, data.rfind(b"PK\5\6") + 16)[0]
    records = [start]
    while data[records[-1] : records[-1] + 4] == b"PK\1\2":
        sizes = struct.unpack_from("<3H", data, records[-1] + 28)
        records.append(records[-1] + 46 + sum(sizes))
    weight = next(place for place in records[:-1] if b"weight.bin" in data[place : place + 100])
    model = next(place for place in records[:-1] if b"model.mlmodel" in data[place : place + 100])
    data[weight + 16 : weight + 28] = data[model + 16 : model + 28]  # checksum and sizes
    data[weight + 42 : weight + 46] = data[model + 42 : model + 46]  # where it lies
    path.write_bytes(data)
    return path


@attack("encrypted")
def encrypted_weights(folder: Path, members: Members) -> Path:
    path = written(folder, members)
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\1\2", 0, data.rfind(b"weight.bin"))
    data[place + 8] |= 1
    path.write_bytes(data)
    return path


@attack("is not what its directory says")
def weights_longer_than_they_claim(folder: Path, members: Members) -> Path:
    path = written(folder, members)
    data = bytearray(path.read_bytes())
    place = data.rfind(b"PK\1\2", 0, data.rfind(b"weight.bin"))
    data[place + 24 : place + 28] = struct.pack("<L", 100)
    path.write_bytes(data)
    return path


@attack("expands")
def weights_that_expand_without_end(folder: Path, members: Members) -> Path:
    path = folder / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out:
        for name, data in members.items():
            if not name.endswith(".bin"):
                out.writestr(name, data)
                continue
            with out.open(name, "w") as member:
                for _ in range(300):
                    member.write(bytes(1 << 20))
    return path


@attack("lacks|missing")
def a_zip_in_the_place_of_the_package(folder: Path, members: Members) -> Path:
    inner = written(folder, members).read_bytes()
    kept = {name: data for name, data in members.items() if not name.endswith(".bin")}
    return written(folder, {**kept, "p.mlpackage/Data/com.apple.CoreML/weights.zip": inner})


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Members:
    package = packages.linear(tmp_path_factory.mktemp("package") / "p.mlpackage")
    files = (file for file in sorted(package.rglob("*")) if file.is_file())
    return {f"p.mlpackage/{file.relative_to(package)}": file.read_bytes() for file in files}


def test_each_attack_is_refused_and_touches_nothing(tmp_path: Path, members: Members) -> None:
    import re

    paths, outside = [], tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("alive")
    for name, (make, _) in MAKERS.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "outside").symlink_to(outside)
        paths.append(make(folder, members).rename(tmp_path / f"{name}.zip"))
    with untouched(outside, tmp_path):
        told = attempt("tests.attacks:weights", paths, tmp_path.parent / f"{tmp_path.name}-home", memory=1 << 30)
    for name, (_, reason) in MAKERS.items():
        message = told[f"{name}.zip"]
        assert message is not None, f"{name} was opened"
        assert re.search(reason, message), f"{name}: {message}"


def test_only_what_the_package_refers_to_is_unpacked(tmp_path: Path, members: Members) -> None:
    from tlkit.core.model.load import load_model

    path = written(tmp_path, {**members, **{f"p.mlpackage/Data/junk/{index}": b"" for index in range(1000)}})
    model = load_model(path)
    assert len(model.tensors()) > 0
    package = model._package
    assert package is not None
    unpacked = {str(file.relative_to(package.root)) for file in package.root.rglob("*") if file.is_file()}
    assert unpacked == {name.removeprefix("p.mlpackage/") for name in members}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_leaves_no_unpacked_package(tmp_path: Path, members: Members, number: signal.Signals) -> None:
    path = written(tmp_path, members)
    home = tmp_path / "home"
    home.mkdir()
    script = (
        "import sys, time; sys.argv = ['tlkit']\n"
        "from tlkit.host.interrupt import end_on_sigterm; end_on_sigterm()\n"
        "from tlkit.core.model.load import load_model\n"
        f"model = load_model({str(path)!r}); model.tensors(); print('ready', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"TMPDIR": str(home)}
    child = subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    (left,) = home.glob("tlkit-unpacked-*")
    child.send_signal(number)
    assert child.wait(30) == (143 if number == signal.SIGTERM else -9)
    if number == signal.SIGKILL:  # nobody could clean up: the next one that unpacks does, and spares what is in use
        old = time.time() - 3600
        os.utime(left, (old, old))
        last = f"from tests.attacks import weights; from pathlib import Path; weights(Path({str(path)!r}))"
        subprocess.run([sys.executable, "-c", last], env=environment, check=True, timeout=120)
    assert not list(home.glob("tlkit-unpacked-*"))
