"""What may be done to a weight, read from texts such as ``int4:per-block=32``, and the system that each needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

from tlkit.core.compress.palette import palette, palette_of_left
from tlkit.errors import UsageError

PALETTES = (8, 6, 4, 3, 2, 1)
"""The bits that an index into a palette may have."""
IOS16, IOS18 = 7, 9
"""Specification versions: the first with compressed weights, the first with blocks, groups and joint forms."""


@dataclass(frozen=True, slots=True)
class Packing:
    """One way to store a weight: ``kind`` is quantize, palettize or prune.

    ``bits`` are a value's or an index's, ``block`` the elements that share a scale (0: a whole channel, -1: all),
    ``group`` the channels that share a palette (0: all), ``vector`` the elements that one index stands for;
    ``sparsity`` is the share of zeros (0..1), ``ratio`` (n, m) of n zeros in each m.
    """

    kind: str
    bits: int = 0
    block: int = 0
    group: int = 0
    vector: int = 1
    sparsity: float = 0.0
    ratio: tuple[int, int] | None = None

    @property
    def needs(self) -> int:
        """The specification version that it needs."""
        if self.kind == "quantize":
            return IOS18 if self.bits == 4 or self.block > 0 else IOS16
        if self.kind == "palettize":
            return IOS18 if self.bits == 3 or self.group or self.vector > 1 else IOS16
        return IOS16

    @property
    def plain(self) -> Packing:
        """The same bits without blocks, groups and vectors."""
        return replace(self, block=min(self.block, 0), group=0, vector=1)

    def shrinks(self, elements: int) -> bool:
        """Whether f16 numbers of this count get smaller by a tenth or more, with the palette that they share."""
        palette = 2 << self.bits if self.kind == "palettize" else 0
        return self.kind == "prune" or elements * self.bits / 8 + palette < 0.9 * 2 * elements

    def __str__(self) -> str:
        if self.kind == "quantize":
            where = {0: "", -1: ":per-tensor"}.get(self.block, f":per-block={self.block}")
            return f"int{self.bits}{where}"
        if self.kind == "palettize":
            group = f":group={self.group}" if self.group else ""
            return f"palette{self.bits}{group}{f':vector={self.vector}' if self.vector > 1 else ''}"
        return f"prune{self.ratio[0]}:{self.ratio[1]}" if self.ratio else f"prune{self.sparsity:g}"

    def config(self, tools: Any, pruned: bool = False) -> Any:
        """Return coremltools' configuration; ``tools`` is coremltools.optimize.coreml, ``pruned``: for what is left."""
        common = {"weight_threshold": 0}  # of weights that are named, whatever their size
        if self.kind == "quantize":
            grain = {0: "per_channel", -1: "per_tensor"}.get(self.block, "per_block")
            size = {"block_size": self.block} if self.block > 0 else {}
            return tools.OpLinearQuantizerConfig(
                mode="linear_symmetric", dtype=f"int{self.bits}", granularity=grain, **size, **common
            )
        if self.kind == "palettize":
            group = {"granularity": "per_grouped_channel", "group_size": self.group} if self.group else {}
            if self.vector > 1:
                return tools.OpPalettizerConfig(
                    mode="kmeans", nbits=self.bits, cluster_dim=self.vector, **group, **common
                )
            made = partial(palette_of_left if pruned else palette, bits=self.bits)
            return tools.OpPalettizerConfig(mode="custom", lut_function=made, **group, **common)
        if self.ratio is not None:
            return tools.OpMagnitudePrunerConfig(n_m_ratio=self.ratio, **common)
        return tools.OpMagnitudePrunerConfig(target_sparsity=self.sparsity, **common)


@dataclass(frozen=True, slots=True)
class WeightChoice:
    """What is done to one weight: zeros first, then the type of what is left; nothing where both are None."""

    prune: Packing | None = None
    pack: Packing | None = None

    @property
    def needs(self) -> int:
        """The specification version that it needs; 0 where nothing is done."""
        if self.prune is not None and self.pack is not None:
            return IOS18  # the joint forms
        return max((item.needs for item in (self.prune, self.pack) if item is not None), default=0)

    def shrinks(self, elements: int) -> bool:
        """Whether a weight of this count of f16 numbers gets smaller."""
        return all(item.shrinks(elements) for item in (self.prune, self.pack) if item is not None)

    def __str__(self) -> str:
        return "+".join(str(item) for item in (self.prune, self.pack) if item is not None) or "as it is"


def parse_quantize(text: str) -> Packing:
    """Return what ``int8``, ``int4:per-block=32``, ``int8:per-tensor`` or ``int8:per-channel`` says."""
    found = re.fullmatch(r"int(8|4)(?::(?:per-(channel|tensor)|per-block=(\d{1,4})))?", text)
    if found is None or (found[3] is not None and int(found[3]) < 1):
        raise UsageError(
            f"--quantize {text}: unknown", "write int8 or int4, and :per-channel, :per-tensor or :per-block=32"
        )
    block = int(found[3]) if found[3] else -1 if found[2] == "tensor" else 0
    return Packing("quantize", int(found[1]), block=block)


def parse_palettize(text: str) -> Packing:
    """Return what ``4``, ``4:group=16`` or ``2:vector=2`` says."""
    found = re.fullmatch(r"(\d)((?::(?:group|vector)=\d{1,4})*)", text)
    if found is None or int(found[1]) not in PALETTES:
        raise UsageError(f"--palettize {text}: unknown", "write 8, 6, 4, 3, 2 or 1, and :group=16, :vector=2")
    more = dict(part.split("=") for part in found[2].split(":") if part)
    group, vector = int(more.get("group", 0)), int(more.get("vector", 1))
    if vector < 1 or ("group" in more and group < 1):
        raise UsageError(f"--palettize {text}: a group or vector of nothing", "give 1 or more")
    return Packing("palettize", int(found[1]), group=group, vector=vector)


def parse_prune(text: str) -> Packing:
    """Return what ``0.5`` (a share of zeros) or ``2:4`` (zeros in each row of four) says."""
    found = re.fullmatch(r"(\d{1,3}):(\d{1,3})", text)
    if found is not None and 0 < int(found[1]) < int(found[2]):
        return Packing("prune", ratio=(int(found[1]), int(found[2])))
    if re.fullmatch(r"0?\.\d{1,6}", text) and float(text) > 0:
        return Packing("prune", sparsity=float(text))
    raise UsageError(f"--prune {text}: neither a share between 0 and 1 nor N:M", "write 0.5 or 2:4")


def parse_choice(text: str) -> WeightChoice:
    """Return what a rule's right side says: ``int4``, ``palette4:group=16``, ``prune0.5+int8`` or ``none``."""
    if text == "none":
        return WeightChoice()
    prune = pack = None
    for part in text.split("+"):
        if part.startswith("prune"):
            prune = parse_prune(part.removeprefix("prune"))
        elif part.startswith("palette"):
            pack = parse_palettize(part.removeprefix("palette"))
        else:
            pack = parse_quantize(part)
    return WeightChoice(prune, pack)


@dataclass(frozen=True, slots=True)
class Rules:
    """Which weight gets what: ``default``, and (pattern, choice) pairs, of which the last that matches counts."""

    default: WeightChoice
    rules: tuple[tuple[str, WeightChoice], ...] = ()

    def of(self, names: Iterable[str]) -> WeightChoice:
        """Return the choice for a weight that goes by any of ``names``: its own, its operations', their types."""
        names = tuple(names)
        chosen = [choice for pattern, choice in self.rules if any(fnmatchcase(name, pattern) for name in names)]
        return chosen[-1] if chosen else self.default


def parse_rules(
    quantize: str | None,
    palettize: str | None,
    prune: str | None,
    rules: Sequence[str],
    skip: Sequence[str],
    activations: str | None = None,
) -> Rules:
    """Return the rules that the options ask for; UsageError where they ask for nothing, or for two types at once.

    Where ``activations`` are asked for, weights may stay as they are.
    """
    if quantize and palettize:
        raise UsageError("--quantize and --palettize are two ways to store one weight", "choose one; --rule mixes them")
    pack = parse_quantize(quantize) if quantize else parse_palettize(palettize) if palettize else None
    default = WeightChoice(parse_prune(prune) if prune else None, pack)
    found = []
    for text in rules:
        pattern, equals, what = text.rpartition("=")
        # The right side may hold an = of its own: linear*=int4:per-block=32.
        if "=" in pattern:
            pattern, _, rest = text.partition("=")
            what = rest
        if not (equals and pattern and what):
            raise UsageError(f"--rule {text}: not PATTERN=WHAT", "write --rule 'linear*=int4'")
        found.append((pattern, parse_choice(what)))
    if default == WeightChoice() and not found and activations is None:
        raise UsageError("nothing to do", "give --quantize, --palettize, --prune or --rule")
    return Rules(default, (*found, *((pattern, WeightChoice()) for pattern in skip)))


def unused(rules: Rules, names: Iterable[Iterable[str]]) -> list[str]:
    """Return the patterns that match none of the weights, each given by all its names."""
    known = [name for group in names for name in group]
    return [pattern for pattern, _ in rules.rules if not any(fnmatchcase(name, pattern) for name in known)]


def told(choices: Mapping[str, WeightChoice]) -> str:
    """Return how many weights get what, in words."""
    counts: dict[str, int] = {}
    for choice in choices.values():
        counts[str(choice)] = counts.get(str(choice), 0) + 1
    return ", ".join(f"{count} {text}" for text, count in counts.items())
