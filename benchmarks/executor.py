"""How fast is tlkit's executor? Latency of a converted f16 package beside the PyTorch module it came from.

    python benchmarks/executor.py [NETWORK ...] [--rounds 15] [--calls 5] [--threads N] [--no-compile]
                                  [--json | --markdown]

Contenders, all on the CPU of one process with the same thread count, taking turns round by round:

* ``pytorch``                the original module in eager mode, f32 (the yardstick, 1.00)
* ``ENGINE PRECISION``       the f16 package by that engine of tlkit: auto, eager, compile, openvino, onnxruntime in f16
  (faithful), f32 (no rounding) and, with OpenVINO where the processor has it, bf16 (not faithful)
* ``source RUNTIME ...``     the original module, exported to ONNX by torch.onnx, by ONNX Runtime in f32 and OpenVINO in
  f32 and bf16: what the package is held to

The last lines compare: auto in f16 and in f32 with the better runtime of the source in f32 (the one whose median over
all rounds is less: the lesser of two in each round would be less than both), and bf16 with OpenVINO's own. Every one of
tlkit's runs the f16 package; only a column of bf16 or f32 is not faithful to it. The network ``minilm`` is there where
``transformers`` is installed.

In a round each contender makes one call that nobody times, then ``--calls`` timed ones, of which the median counts. A
ratio is taken within a round, so that a busy moment of the machine hits both sides; shown are the median of the
rounds' ratios and their quartiles. On a machine with other work to do, look at the last column: the fastest call of all
beside the yardstick's fastest.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter

import torch
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import tlkit.core.convert.convert
import tlkit.core.model.load
from fixtures.networks import NETWORKS as OWN
from fixtures.networks import Network, minilm
from tlkit.errors import TlkitError
from tlkit.host.machine import describe_machine, versions
from tlkit.host.quiet import quiet

Call = Callable[[], object]
NETWORKS = {**OWN, **({"minilm": minilm} if importlib.util.find_spec("transformers") else {})}
YARDSTICK = "pytorch"
SOURCE = "source "
OURS = (
    ("auto", "f16"),
    ("auto", "f32"),
    ("eager", "f16"),
    ("eager", "f32"),
    ("compile", "f16"),
    ("openvino", "f16"),
    ("openvino", "f32"),
    ("openvino", "bf16"),
    ("onnxruntime", "f16"),
    ("onnxruntime", "f32"),
)
GOALS = {"auto f16": ("f32", 1.08), "auto f32": ("f32", 1.0), "openvino bf16": ("bf16", 1.0)}
"""What each is held to: the better of the source's runtimes in that precision, times the limit."""


def main() -> None:
    """Measure the networks asked for, and print a table as each is done."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(stderr=options.json or options.markdown)
    results = {}
    for name in options.networks:
        console.print(f"{name}: converting", style="dim")
        with tempfile.TemporaryDirectory() as folder:
            network = NETWORKS[name]()
            contenders = dict(_contenders(network, Path(folder), options.compile, console))
            rounds = [_round(contenders, options.calls) for _ in range(options.rounds)]
        results[name] = rounds
        console.print(_describe(name, network), style="bold")
        console.print(_table(rounds))
        for line in _goals(rounds):
            console.print(line)
    if options.json:
        facts = {"machine": asdict(describe_machine()), "versions": versions(), "rounds": results}
        sys.stdout.write(json.dumps(facts) + "\n")
    if options.markdown:
        sys.stdout.write("\n".join(_markdown(results)) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", action="store_true", help="print the raw seconds of every call")
    parser.add_argument("--markdown", action="store_true", help="print the tables of docs/engines.md")
    options = parser.parse_args()
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown:
        parser.error(f"there is no network {unknown[0]}: it is one of {', '.join(NETWORKS)}")
    options.networks = options.networks or list(NETWORKS)
    return options


def _contenders(network: Network, folder: Path, with_compile: bool, console: Console) -> Iterable[tuple[str, Call]]:
    module, inputs = network
    yield YARDSTICK, _eager(module, inputs)
    yield from _sources(module, inputs, folder / "network.onnx", console)
    package = folder / "network.mlpackage"
    ports = {f"x{index}": f"{'x'.join(map(str, x.shape))}:{_dtype(x)}" for index, x in enumerate(inputs)}
    tlkit.core.convert.convert.convert(module, package, inputs=ports, verify=False)
    arrays = {f"x{index}": x.numpy() for index, x in enumerate(inputs)}
    for engine, precision in OURS:
        if engine != "compile" or with_compile:
            try:
                model = tlkit.core.model.load.load_model(package, engine=engine, precision=precision, cache=False)
                call = model.bind(arrays)
                if engine == "auto":
                    console.print(f"auto {precision}: {getattr(model.engine, 'why', '')}", style="dim")
                yield f"{engine} {precision}", call
            except TlkitError as error:
                console.print(f"no {engine} {precision}: {error.message}", style="yellow")


def _eager(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Call:
    def call() -> object:
        with torch.inference_mode():
            return module(*inputs)

    return call


def _dtype(tensor: torch.Tensor) -> str:
    return "f32" if tensor.is_floating_point() else "i32"


def _sources(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], file: Path, console: Console
) -> Iterable[tuple[str, Call]]:
    """Yield what runs torch.onnx's export of the module: nothing where it has none."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with quiet(), torch.no_grad():
            torch.onnx.export(module, inputs, str(file), input_names=[f"x{i}" for i in range(len(inputs))])
    except Exception as error:  # an export that fails is a column less, whatever the reason
        console.print(f"no source columns: {type(error).__name__}: {str(error).splitlines()[0]}", style="yellow")
        return
    for name, make in ((f"{SOURCE}onnxruntime", _onnxruntime), (f"{SOURCE}openvino", _openvino)):
        try:
            yield f"{name} f32", make(file, inputs, "f32")
            if make is _openvino and _has_bf16():
                yield f"{name} bf16", make(file, inputs, "bf16")
        except ImportError as error:
            console.print(f"no {name}: {error}", style="yellow")


def _has_bf16() -> bool:
    from tlkit.engines.openvino.runtime import has_bf16

    return has_bf16()


def _onnxruntime(file: Path, inputs: tuple[torch.Tensor, ...], precision: str) -> Call:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    feeds = {item.name: x.numpy() for item, x in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: session.run(None, feeds)


def _openvino(file: Path, inputs: tuple[torch.Tensor, ...], precision: str) -> Call:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    threads = {"INFERENCE_NUM_THREADS": torch.get_num_threads()}
    core = openvino.Core()
    request = core.compile_model(core.read_model(file), "CPU", settings | threads).create_infer_request()
    feeds = {place: x.numpy() for place, x in enumerate(inputs)}
    return lambda: request.infer(feeds, share_inputs=True, share_outputs=True)


def _round(contenders: dict[str, Call], calls: int) -> dict[str, list[float]]:
    return {name: _time(call, calls) for name, call in contenders.items()}


def _time(call: Call, calls: int) -> list[float]:
    call()
    seconds = []
    for _ in range(calls):
        start = perf_counter()
        call()
        seconds.append(perf_counter() - start)
    return seconds


def _describe(name: str, network: Network) -> str:
    parameters = sum(p.numel() for p in network[0].parameters())
    shapes = ", ".join("x".join(map(str, x.shape)) for x in network[1])
    return f"{name}: {parameters / 1e6:.1f} M parameters, input {shapes}, threads: {torch.get_num_threads()}"


def _goals(rounds: list[dict[str, list[float]]]) -> Iterable[str]:
    """Yield a line for each goal: the median over the rounds of the ratio to the better source."""
    middle = {name: [statistics.median(single[name]) for single in rounds] for name in rounds[0]}
    for name, (precision, limit) in GOALS.items():
        sources = [other for other in middle if other.startswith(SOURCE) and other.endswith(f" {precision}")]
        if name in middle and sources:
            best = min(sources, key=lambda other: statistics.median(middle[other]))
            ratio = statistics.median(ours / theirs for ours, theirs in zip(middle[name], middle[best], strict=True))
            yield f"{name} / {best}: {ratio:.2f}, held to {limit:.2f}"


def _markdown(results: dict[str, list[dict[str, list[float]]]]) -> Iterable[str]:
    """Yield the lines of two tables: ratios to PyTorch and milliseconds, a column for each network; and the goals."""
    names = list(dict.fromkeys(name for rounds in results.values() for name in rounds[0]))
    for title, scale in (("over PyTorch eager f32", False), ("ms", True)):
        yield f"| {title} | {' | '.join(results)} |"
        yield "|---" * (len(results) + 1) + "|"
        for name in names:
            cells = [_cell(rounds, name, scale) if name in rounds[0] else "" for rounds in results.values()]
            yield f"| {name} | {' | '.join(cells)} |"
        yield ""
    for network, rounds in results.items():
        yield from (f"{network}: {line}" for line in _goals(rounds))


def _cell(rounds: list[dict[str, list[float]]], name: str, milliseconds: bool) -> str:
    if milliseconds:
        return f"{1e3 * statistics.median(second for single in rounds for second in single[name]):.1f}"
    ratio = statistics.median(statistics.median(one[name]) / statistics.median(one[YARDSTICK]) for one in rounds)
    return f"{ratio:.2f}"


def _table(rounds: list[dict[str, list[float]]]) -> Table:
    table = Table()
    for column in ("contender", "median ms", "/ pytorch", "quartiles", "best / best"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    every = {name: [second for single in rounds for second in single[name]] for name in rounds[0]}
    for contender, times in every.items():
        ratios = [statistics.median(single[contender]) / statistics.median(single[YARDSTICK]) for single in rounds]
        best = f"{min(times) / min(every[YARDSTICK]):.2f}"
        low, middle, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        table.add_row(
            contender, f"{1e3 * statistics.median(times):.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}", best
        )
    return table


if __name__ == "__main__":
    main()
