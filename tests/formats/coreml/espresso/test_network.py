"""The JSON of an Espresso bundle: layers and sizes as written; what contradicts itself ends in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.real_models import MODELS, needs_models
from tlkit.errors import LoadError
from tlkit.formats.coreml.espresso.network import Extent, Network, read_network

NET = "model.espresso.net"


def written(folder: Path, net: Any, shape: Any = None) -> Network:
    (folder / NET).write_text(json.dumps(net))
    if shape is not None:
        (folder / "model.espresso.shape").write_text(json.dumps(shape))
    found = read_network(folder)
    assert found is not None
    return found


def test_a_folder_without_a_network_has_none(tmp_path: Path) -> None:
    assert read_network(tmp_path) is None


def test_layers_have_their_names_and_attributes(tmp_path: Path) -> None:
    layer = {"type": "concat", "name": "c", "bottom": "a,b", "top": "t", "axis": 3, "n_groups": -1, "C": 2**40}
    net = written(tmp_path, {"format_version": 300, "layers": [layer, 7, {"bottom": 5}], "transform_params": {"a": {}}})
    first, second = net.layers
    assert (first.name, first.kind, first.inputs, first.outputs) == ("c", "concat", ("a", "b"), ("t",))
    assert [first.integer(key, 9) for key in ("axis", "n_groups", "C", "absent")] == [3, 9, 9, 9]
    assert (second.name, second.kind, second.inputs) == ("", "unknown", ())
    assert (net.version, net.transforms) == (300, {"a": {}})


def test_layers_of_subnetworks_follow(tmp_path: Path) -> None:
    body = {"layers": [{"name": "inner", "type": "add"}]}
    for subnetworks in ([body], {"body_0": body}):
        net = written(tmp_path, {"layers": [{"name": "loop", "type": "loop"}], "subnetworks": subnetworks})
        assert [layer.name for layer in net.layers] == ["loop", "inner"]


def test_sizes_come_from_their_file_or_from_the_copy_in_the_network(tmp_path: Path) -> None:
    shape = {"layer_shapes": {"x": {"n": 2, "k": 3, "h": 4, "w": 5, "_rank": 3, "seq": "?"}, "y": 0}}
    sizes = Extent(1, 2, 3, 4, 5, 3)
    assert written(tmp_path, {"shape": shape}).extents == {"x": sizes}
    assert sizes.five == (1, 2, 3, 4, 5)
    other = {"layer_shapes": {"x": {"k": 7}}}
    assert written(tmp_path, {"shape": shape}, other).extents == {"x": Extent(1, 1, 7, 1, 1, None)}
    (tmp_path / "model.espresso.shape").write_text("version https://git-lfs.github.com/spec/v1\n")
    assert written(tmp_path, {"shape": shape}).extents == {"x": sizes}


def test_another_weight_file_is_named_by_storage_and_lies_inside(tmp_path: Path) -> None:
    assert written(tmp_path, {}).weights == tmp_path / "model.espresso.weights"
    assert written(tmp_path, {"storage": "other.weights"}).weights == tmp_path / "other.weights"
    with pytest.raises(LoadError, match="outside the package"):
        written(tmp_path, {"storage": "../other.weights"})


@needs_models
@pytest.mark.parametrize("net", sorted(MODELS.glob("*/*.mlmodelc/model.espresso.net")), ids=lambda p: p.parent.name)
def test_a_real_network_has_all_layers_and_sizes(net: Path) -> None:
    said, sizes = json.loads(net.read_text()), json.loads(net.with_suffix(".shape").read_text())["layer_shapes"]
    found = read_network(net.parent)
    assert found is not None
    assert [dict(layer.attributes) for layer in found.layers] == said["layers"]
    assert {name: [e.n, e.k, e.h, e.w] for name, e in found.extents.items()} == {
        name: [size[key] for key in "nkhw"] for name, size in sizes.items()
    }
    made = {name for layer in found.layers for name in layer.outputs}
    taken = {name for layer in found.layers for name in layer.inputs}
    assert taken <= made | set(found.extents) and made <= set(found.extents)
