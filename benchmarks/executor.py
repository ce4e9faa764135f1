"""How fast is tlkit's executor? Latency of a converted f16 package beside the PyTorch module it came from.

    python benchmarks/executor.py [NETWORK ...] [--rounds 15] [--calls 5] [--threads N] [--no-compile] [--json]

Contenders, all on the CPU of one process with the same thread count, taking turns round by round:

* ``pytorch``      the original module in eager mode, f32, under ``torch.inference_mode`` (the yardstick, 1.00)
* ``tlkit``        the f16 package, faithful to f16, eager
* ``tlkit f32``    the same with the rounding skipped
* ``compile``      the f16 package with ``--engine compile``
* ``onnxruntime``  the module exported to ONNX, where the exporter manages it

In a round each contender makes one call that nobody times, then ``--calls`` timed ones, of which the median counts. A
ratio is taken within a round, so that a busy moment of the machine hits both sides; shown are the median of the
rounds' ratios and their quartiles. On a machine with other work to do, look at the last column: the fastest call of all
beside the yardstick's fastest.
"""

from __future__ import annotations

import argparse
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
from fixtures.networks import NETWORKS, Network
from tlkit.host.machine import describe_machine, versions
from tlkit.host.quiet import quiet

Call = Callable[[], object]
YARDSTICK = "pytorch"


def main() -> None:
    """Measure the networks asked for, and print a table as each is done."""
    options = _options()
    if options.threads:
        torch.set_num_threads(options.threads)
    console = Console(stderr=options.json)
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
    if options.json:
        facts = {"machine": asdict(describe_machine()), "versions": versions(), "rounds": results}
        sys.stdout.write(json.dumps(facts) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(NETWORKS)}; all by default")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", action="store_true", help="print the raw seconds of every call")
    options = parser.parse_args()
    unknown = [name for name in options.networks if name not in NETWORKS]
    if unknown:
        parser.error(f"there is no network {unknown[0]}: it is one of {', '.join(NETWORKS)}")
    options.networks = options.networks or list(NETWORKS)
    return options


def _contenders(network: Network, folder: Path, with_compile: bool, console: Console) -> Iterable[tuple[str, Call]]:
    module, inputs = network
    yield YARDSTICK, _eager(module, inputs)
    package = folder / "network.mlpackage"
    ports = {f"x{index}": f"{'x'.join(map(str, x.shape))}:{_dtype(x)}" for index, x in enumerate(inputs)}
    tlkit.core.convert.convert.convert(module, package, inputs=ports, verify=False)
    arrays = {f"x{index}": x.numpy() for index, x in enumerate(inputs)}
    kinds = [("tlkit", "eager", "f16"), ("tlkit f32", "eager", "f32")]
    for name, engine, precision in [*kinds, *([("compile", "compile", "f16")] if with_compile else [])]:
        model = tlkit.core.model.load.load_model(package, engine=engine, precision=precision)
        yield name, model.bind(arrays)
    exported = _onnxruntime(module, inputs, folder / "network.onnx", console)
    if exported:
        yield "onnxruntime", exported


def _eager(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> Call:
    def call() -> object:
        with torch.inference_mode():
            return module(*inputs)

    return call


def _dtype(tensor: torch.Tensor) -> str:
    return "f32" if tensor.is_floating_point() else "i32"


def _onnxruntime(
    module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], file: Path, console: Console
) -> Call | None:
    try:
        import onnxruntime

        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with quiet(), torch.no_grad():
            torch.onnx.export(module, inputs, str(file), input_names=[f"x{i}" for i in range(len(inputs))])
    except Exception as error:  # an export that fails is a column less, whatever the reason
        console.print(f"no onnxruntime column: {type(error).__name__}: {str(error).splitlines()[0]}", style="yellow")
        return None
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(file), settings, providers=["CPUExecutionProvider"])
    feeds = {item.name: x.numpy() for item, x in zip(session.get_inputs(), inputs, strict=True)}
    return lambda: session.run(None, feeds)


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
