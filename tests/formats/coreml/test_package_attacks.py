"""Packages whose files are links out of them, pipes, devices or loops of links."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.attacks import attempt, untouched
from tests.formats import packages
from tlkit.core.model.load import load_model

WEIGHTS = "Data/com.apple.CoreML/weights"


def _elsewhere(package: Path, name: str) -> None:
    """Move a part of the package out of it, and leave a link."""
    outside = package.parent / "outside" / package.name
    outside.mkdir(parents=True)
    shutil.move(package / name, outside / "moved")
    (package / name).symlink_to(outside / "moved")


def _instead(package: Path, name: str, make: Callable[[Path], object]) -> None:
    (package / name).unlink()
    make(package / name)


ATTACKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "manifest": (lambda package: _elsewhere(package, "Manifest.json"), "'Manifest.json' is a link to"),
    "model": (lambda package: _elsewhere(package, "Data/com.apple.CoreML/model.mlmodel"), "outside the package"),
    "data": (lambda package: _elsewhere(package, "Data"), "outside the package"),
    "folder": (lambda package: _elsewhere(package, WEIGHTS), "outside the package"),
    "weights": (lambda package: _elsewhere(package, f"{WEIGHTS}/weight.bin"), "outside the package"),
    "zero": (
        lambda package: _instead(package, f"{WEIGHTS}/weight.bin", lambda path: path.symlink_to("/dev/zero")),
        "outside the package",
    ),
    "pipe": (lambda package: _instead(package, f"{WEIGHTS}/weight.bin", os.mkfifo), "missing|not a regular file"),
    "manifest_pipe": (lambda package: _instead(package, "Manifest.json", os.mkfifo), "not a model package"),
    "model_pipe": (
        lambda package: _instead(package, "Data/com.apple.CoreML/model.mlmodel", os.mkfifo),
        "neither a file nor a folder|a pipe",
    ),
    "loop": (
        lambda package: _instead(package, f"{WEIGHTS}/weight.bin", lambda path: path.symlink_to(path.name)),
        "leads nowhere|missing|loop",
    ),
}


def test_each_attack_is_refused(tmp_path: Path) -> None:
    paths = []
    for name, (change, _) in ATTACKS.items():
        package = packages.linear(tmp_path / f"{name}.mlpackage")
        change(package)
        paths.append(package)
    with untouched(tmp_path):
        told = attempt("tests.attacks:weights", paths, tmp_path.parent / f"{tmp_path.name}-home", memory=1 << 30)
    for name, (_, reason) in ATTACKS.items():
        message = told[f"{name}.mlpackage"]
        assert message is not None, f"{name} was opened"
        assert re.search(reason, message), f"{name}: {message}"


@pytest.mark.parametrize("name", ["Manifest.json", "Data/com.apple.CoreML/model.mlmodel", WEIGHTS])
def test_links_inside_are_followed(tmp_path: Path, name: str) -> None:
    whole = packages.linear(tmp_path / "whole.mlpackage")
    linked = packages.linear(tmp_path / "linked.mlpackage")
    (linked / "kept").mkdir()
    shutil.move(linked / name, linked / "kept/it")
    (linked / name).symlink_to(os.path.relpath(linked / "kept/it", (linked / name).parent))
    theirs = load_model(whole).tensors()
    found = load_model(linked).tensors()
    for key, tensor in theirs.items():
        np.testing.assert_array_equal(found[key].numpy(), tensor.numpy())


@pytest.mark.slow
def test_a_pipe_in_a_hugging_face_folder_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    folder.mkdir()
    (folder / "config.json").write_text('{"architectures": ["BertModel"]}')
    os.mkfifo(folder / "generation_config.json")
    told = attempt("tests.attacks:source", [folder], tmp_path / "home", memory=1 << 32)
    assert re.search("generation_config.json: a pipe or a device", str(told["hf"]))
