#!/usr/bin/env python3
"""make bench-peers: our program and its peers on the same shapes in the same run, in turn.

The peers are llama.cpp's llama-bench on the same GGUF files, PyTorch with the same schedule (bench/peer_torch.py), and
for the vision tower our own program on ggml's kernels alone. PyTorch cannot read GGUF: it runs random weights of its
own, of the same shapes, in its own numbers. Every round runs every contestant once, each after a warm-up of its own;
figures are medians over the rounds. The result is written to bench/out/peers.json; with --only the rows of that file
which were not measured stay as they are, each with the run that it is of.

A peer that cannot be had is reported, and its rows are left out. Exit status: 0 when our program ran, 1 when it
failed, 2 for wrong use, 130 when stopped by a signal (nothing is written then).
"""

import argparse
import dataclasses
import functools
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from contestants import (
    GEOMETRY,
    IMAGE_TOKENS,
    N_DECODED,
    ROOT,
    Failure,
    Llama,
    Ours,
    OurVision,
    Step,
    Torch,
    TorchProcess,
    end,
    memory,
    run,
    start,
)
from side_by_side import UNITS, cpu, now_and_commit, positive, run_until_stopped, write

SHAPES = ((1, 64), (5, 64))  # pictures and text tokens of the prompts
BAR_LAYERS = 8  # the bars are meant for this depth

# ---- rows --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the result: a figure of ours over the same of the peer, in the fastest of its ways."""

    name: str
    unit: str
    ours: Step
    figure: str
    peers: tuple  # of Steps
    peer_figure: str
    bar: float  # of the ratio, or None
    needs: tuple = ()  # the units that the bar is meant for


# ---- the file of results ---------------------------------------------------------------------------------------


def run_of(document):
    """What a row must say of the run that it is of."""
    machine = document["machine"]
    return {
        **{key: document[key] for key in ("time", "commit", "rounds", "notes")},
        **{key: machine[key] for key in ("load_average", "versions")},
    }


def setting(document):
    """What two runs must have in common for their rows to stand in one file."""
    machine = document["machine"]
    return {
        **{key: document[key] for key in ("geometry", "layers")},
        **{key: machine[key] for key in ("cpu", "flags", "threads")},
    }


def read_earlier(path):
    """The document of an earlier run, its rows with the run that they are of; None where there is none."""
    try:
        document = json.loads(Path(path).read_text())
        for row in document["rows"]:
            row.update(name=row["name"], run=row.get("run") or run_of(document))
        setting(document)
        document["left_out"] = list(document["left_out"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Failure(
            f"{path}: expected a result of bench-peers to add rows to, found {type(error).__name__}: {error} "
            "(--out names another file)"
        ) from None
    return document


def expect_same_setting(path, earlier, now):
    for key, value in setting(earlier).items():
        if value != now[key]:
            raise Failure(
                f"{path}: its rows are of {key} {value!r}, this run's of {now[key]!r}: they cannot stand in one file "
                "(--out names another file)"
            )


def merge(document, earlier):
    """`document` with the rows of `earlier` that it has not measured."""
    new = {row["name"]: row for row in document["rows"]}
    old = [row["name"] for row in earlier["rows"]]
    document["rows"] = [new.get(row["name"], row) for row in earlier["rows"]]
    document["rows"] += [row for name, row in new.items() if name not in old]
    named = {row["name"] for row in document["rows"]}
    left_out = [*earlier["left_out"], *document["left_out"]]
    document["left_out"] = [name for name in dict.fromkeys(left_out) if name not in named]


# ---- the benchmark ---------------------------------------------------------------------------------------------


class Bench:
    def __init__(self, options):
        self.options = options
        self.layers, self.threads = options.layers, options.threads
        self.build = Path(options.build).resolve()
        self.pdrop = str(self.build / "pdrop")
        self.cpu_name, self.flags = cpu()
        self.units = {unit: any(flag in self.flags for flag in flags) for unit, flags in UNITS.items()}
        self.versions, self.notes = {}, []
        self.rates = {}  # GFLOP/s by contestant, for expected times
        self.llama_bench = self.torch = None
        self.computes = self.compute_choices()

    def note(self, text):
        print(f"note: {text}", flush=True)
        self.notes.append(text)

    # -- our program

    def compute_choices(self):
        try:
            text = run([self.pdrop, "bench", "--help"])[0]
            self.versions["pdrop"] = run([self.pdrop, "--version"])[0].split("\n")[0].strip()
        except Failure as failure:
            raise Failure(f"{failure} (make build)") from None
        for library in ("ggml", "dnnl"):
            try:
                self.versions[library] = run(["pkg-config", "--modversion", library])[0].strip()
            except Failure:
                pass  # not found that way, or not used
        found = re.search(r"^ +--compute ([a-z0-9|]+)", text, re.M)
        return found.group(1).split("|") if found else []

    def compute_arguments(self, compute):
        if not self.computes:
            return []
        # Without memory for packed weights a row must fail, and not be ggml's.
        return ["--compute", compute, *([] if compute == "ggml" else ["--compute-strict"])]

    def compute_for(self, wanted):
        """The compute type that stands for `wanted` on this machine."""
        if not self.computes:
            return "ggml"
        return "f32" if wanted == "bf16" and not self.units["bf16"] else wanted

    # -- files

    @functools.cache
    def synth(self, type, layers):
        """Random weights of GEOMETRY; scripts/bench.sh shares those of type q4_K."""
        suffix = "" if type == "q4_K" else f"-{type}"
        prefix = self.build / "bench" / f"{GEOMETRY}-{layers}-layers{suffix}"
        done = Path(f"{prefix}.done")
        if not done.exists():
            prefix.parent.mkdir(parents=True, exist_ok=True)
            print(f"making {prefix.name}.gguf ...", flush=True)
            run([self.pdrop, "synth", GEOMETRY, "-q", "-o", str(prefix), "--layers", str(layers), "--type", type])
            if type != "q4_K" or layers != self.layers:
                Path(f"{prefix}-mmproj.gguf").unlink()  # all share one
            done.touch()
        return prefix

    def model(self, name):
        if name == "one layer":
            return Path(f"{self.synth('q4_K', 1)}.gguf")
        return Path(f"{self.synth(name, self.layers)}.gguf")

    def mmproj(self):
        return Path(f"{self.synth('q4_K', self.layers)}-mmproj.gguf")

    # -- peers

    def find_llama(self):
        found = shutil.which("llama-bench")
        if found:
            lines = "".join(run([found, "--version"])).splitlines()
            self.versions["llama.cpp"] = next((line for line in lines if "version" in line), found)
        else:
            directory = self.build / "peers/llama"
            self.fetch("llama.cpp", ["sh", str(ROOT / "bench/fetch_llama.sh"), str(directory)])
            found = str(directory / "llama-bench")
            self.versions["llama.cpp"] = (directory / "version").read_text().strip()
        self.llama_bench = found

    def find_torch(self):
        python = os.environ.get("PD_PEER_PYTHON")
        if not python:
            venv = self.build / "peers/venv"
            self.fetch("PyTorch", ["sh", str(ROOT / "bench/fetch_torch.sh"), str(venv)])
            python = str(venv / "bin/python")
        (self.build / "peers").mkdir(exist_ok=True)
        self.torch = TorchProcess(self, python)

    def fetch(self, name, command):
        child = start(command, stdin=subprocess.DEVNULL)
        try:
            status = child.wait()
        finally:
            end(child)
        if status != 0:
            raise Failure(f"{name} cannot be had here")

    # -- rows

    @functools.cache
    def ours(self, model, n_images, n_text, compute, n_decoded):
        return Ours(self, model, n_images, n_text, compute, n_decoded)

    @functools.cache
    def vision(self, compute):
        return OurVision(self, compute)

    @functools.cache
    def llama(self, model, n, decode):
        return tuple(Llama(self, model, n, decode, flash) for flash in (0, 1))

    @functools.cache
    def torch_step(self, n_images, n_text):
        return (Torch(self, n_images, n_text),)

    def all_rows(self):
        """Every row. The order of the rows gives the order of the steps: ours, then the peer it is held against."""
        rows = []

        def called(wanted):
            compute = self.compute_for(wanted)
            return wanted if compute == wanted else f"{compute} for {wanted}"

        for n_images, n_text in SHAPES:
            n_image = n_images * IMAGE_TOKENS
            n = n_image + n_text
            step = {c: self.ours("q4_K", n_images, n_text, self.compute_for(c), N_DECODED) for c in ("bf16", "int8")}
            prompt, answer = self.llama("q4_K", n, False), self.llama("q4_K", n, True)
            torch = self.torch_step(n_images, n_text)

            for c, bar in zip(("bf16", "int8"), ((1.4, 2.4) if n == 640 else (1.8, 3.0))):
                name = f"dense prefill, q4_K, {n} tokens, {called(c)}"
                rows.append(Row(name, "tokens/s", step[c], "dense prefill", prompt, "prefill", bar, (c,)))

            bar = 4.5 if n == 640 else 6.5
            name = f"pyramid prefill, q4_K, {n_image} image + {n_text} text tokens, {called('int8')}"
            rows.append(Row(name, "tokens/s", step["int8"], "pyramid prefill", prompt, "prefill", bar, ("int8",)))

            for kind, bar in (("dense", 1.0 if n == 640 else None), ("pyramid", 1.0 if n == 640 else 1.2)):
                name = f"decode, q4_K, {N_DECODED} tokens after {n}, {kind}"
                rows.append(Row(name, "tokens/s", step["int8"], f"{kind} decode", answer, "decode", bar))

            for c, bar in (("bf16", 1.2), ("int8", 2.0)):
                name = f"pyramid prefill against PyTorch, {n_image} image + {n_text} text tokens, {called(c)}"
                rows.append(Row(name, "tokens/s", step[c], "pyramid prefill", torch, "prefill", bar, ("bf16", c)))

            if n != 640:
                continue
            ours, peers = self.ours("f16", 0, n, self.compute_for("bf16"), 0), self.llama("f16", n, False)
            name = f"dense prefill, f16, {n} tokens, {called('bf16')}"
            rows.append(Row(name, "tokens/s", ours, "dense prefill", peers, "prefill", 3.0, ("bf16",)))
            if self.computes:
                ours, peers = self.vision(self.compute_for("bf16")), (self.vision("ggml"),)
                name = f"ViT-L/14-336, f16, {called('bf16')} against ggml"
                rows.append(Row(name, "pictures/s", ours, "encode", peers, "encode", 5.0, ("bf16",)))
        return [row for row in rows if self.options.only.search(row.name)]

    def bar_of(self, row):
        """The row's bar, or None, and why there is none."""
        if row.bar is None:
            return None, "none is set"
        lacking = sorted({unit for unit in row.needs if not self.units[unit]})
        if lacking:
            return None, f"the CPU has no {' and no '.join(lacking)} units"
        if self.layers != BAR_LAYERS:
            return None, f"it is meant for {BAR_LAYERS} layers"
        if self.compute_arguments("int8") == [] and row.needs:
            return None, "this pdrop has no --compute"
        return row.bar, None

    # -- running

    def expected_seconds(self, step):
        if step.seconds:
            return step.seconds
        guess = self.rates.get(step.contestant) or statistics.median(self.rates.values() or [60.0 * self.threads])
        return 2 + step.gflop / guess

    def run_step(self, step, where):
        print(f"{where} {step.label}: about {self.expected_seconds(step):.0f} s ... ", end="", flush=True)
        began = time.monotonic()
        try:
            figures = step.measure()
        except (Failure, ValueError, KeyError, IndexError, ZeroDivisionError) as failure:
            step.failure = str(failure) or type(failure).__name__
            print(f"left out: {step.failure}", flush=True)
            self.notes.append(f"{step.label}: {step.failure}")
            return
        step.seconds = time.monotonic() - began
        self.rates[step.contestant] = step.gflop / step.seconds
        step.rounds.append(figures)
        text = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        print(f"{text} ({step.seconds:.0f} s)", flush=True)
        if step.remark and len(step.rounds) == 1:
            self.note(f"{step.label}: {step.remark}")

    def worth_running(self, step, rows):
        """Not where it failed; of two ways to run a peer, not the one that the first round shows to be far slower."""
        if step.failure:
            return False
        for row in rows:
            rates = [peer.median(row.peer_figure) for peer in row.peers]
            if step in row.peers and max(rates) > 1.25 * step.median(row.peer_figure) > 0:
                return False
        return True

    def prepare(self, rows):
        """Finds the peers; gives the rows that can be measured and their steps, in order."""
        steps = list(dict.fromkeys(step for row in rows for step in (row.ours, *row.peers)))
        for kind, name, find in ((Llama, "llama.cpp", self.find_llama), (Torch, "PyTorch", self.find_torch)):
            if not any(isinstance(step, kind) for step in steps):
                continue
            try:
                find()
            except Failure as failure:
                self.note(f"{failure}: the rows against {name} are left out")
                rows = [row for row in rows if not any(isinstance(peer, kind) for peer in row.peers)]
        return rows, list(dict.fromkeys(step for row in rows for step in (row.ours, *row.peers)))

    def run(self):
        self.introduce()
        self.earlier()  # fails now rather than when all is measured
        wanted = self.all_rows()
        if not wanted:
            print(f"bench-peers: no row's name matches --only {self.options.only.pattern}", file=sys.stderr)
            return 2
        if not self.computes:
            self.note("this pdrop bench has no --compute: it computes with ggml's kernels, and the ViT row is left out")
        rows, steps = self.prepare(wanted)
        for model in dict.fromkeys(step.model for step in steps if isinstance(step, (Ours, Llama))):
            self.model(model)
        total = self.options.rounds * sum(self.expected_seconds(step) for step in steps)
        if steps:
            rounds = f"{self.options.rounds} round{'s' if self.options.rounds > 1 else ''}"
            print(f"\n{len(rows)} rows, {len(steps)} steps a round, {rounds}: about {total / 60:.0f} minutes")
        for number in range(self.options.rounds):
            now = [step for step in steps if self.worth_running(step, rows)]
            for index, step in enumerate(now):
                self.run_step(step, f"[round {number + 1}/{self.options.rounds}, {index + 1}/{len(now)}]")
        self.finish(wanted)
        ours_failed = any(isinstance(step, Ours) and step.failure for step in steps)
        return 1 if ours_failed else 0

    def introduce(self):
        print(f"{self.cpu_name}; {self.threads} threads; flags that matter: {' '.join(self.flags) or 'none'}")
        for unit, there in self.units.items():
            print(f"  {unit} units: {'yes' if there else 'no: rows that need them are measured without a bar'}")
        try:
            self.load = os.getloadavg()[0]
        except OSError:
            self.load = None
        if self.load is not None and self.load > 0.3:
            self.note(
                f"load average {self.load:.2f}: other work is running, or has just been. Ratios suffer less "
                "than figures, since rounds alternate; look at the spread of the rounds"
            )

    # -- the result

    def earlier(self):
        """What the rows are added to: the file that is there, unless all rows were asked for."""
        if not self.options.only.pattern:
            return None
        document = read_earlier(self.options.out)
        if document:
            now = {"geometry": GEOMETRY, "layers": self.layers, "cpu": self.cpu_name, "flags": self.flags}
            expect_same_setting(self.options.out, document, {**now, "threads": self.threads})
        return document

    def result(self, row):
        """The row as it is written, or None where a side has no figure."""
        peers = [peer for peer in row.peers if peer.rounds]
        if not row.ours.rounds or not peers:
            return None
        peer = max(peers, key=lambda p: p.median(row.peer_figure))
        ours, theirs = row.ours.values(row.figure), peer.values(row.peer_figure)
        bar, why = self.bar_of(row)
        ratio = statistics.median(ours) / statistics.median(theirs)
        return {
            "name": row.name,
            "unit": row.unit,
            "ours": statistics.median(ours),
            "peer": statistics.median(theirs),
            "ratio": ratio,
            "bar": bar,
            "met": ratio >= bar if bar else None,
            "no_bar_because": why,
            "compute": row.ours.computed,
            "peer_name": f"{peer.label}, {self.torch.dtype}" if isinstance(peer, Torch) else peer.label,
            "ours_rounds": ours,
            "peer_rounds": theirs,
            "ratio_rounds": [a / b for a, b in zip(ours, theirs)],
        }

    def finish(self, rows):
        found = [(row, self.result(row)) for row in rows]
        results = [result for _, result in found if result]
        width = max([len(result["name"]) for result in results], default=0)
        print(f"\n{'medians':{width}}  {'ours':>9} {'peer':>9} {'ratio':>7} {'rounds':>13} {'bar'}")
        for r in results:
            spread = f"{min(r['ratio_rounds']):.2f} - {max(r['ratio_rounds']):.2f}"
            bar = f">= {r['bar']:.1f} {'met' if r['met'] else 'MISSED'}" if r["bar"] else "-"
            figures = f"{r['ours']:9.4g} {r['peer']:9.4g} {r['ratio']:7.2f} {spread:>13} {bar:<13}"
            print(f"{r['name']:{width}}  {figures} {r['unit']}, {r['peer_name']}")
        left_out = [row.name for row, result in found if not result]
        for name in left_out:
            print(f"left out: {name}")
        for why in dict.fromkeys(r["no_bar_because"] for r in results if r["no_bar_because"]):
            print(f"no bar in {sum(r['no_bar_because'] == why for r in results)} rows: {why}")
        machine = {
            "cpu": self.cpu_name,
            "flags": self.flags,
            "units": self.units,
            "cores": os.cpu_count(),
            "threads": self.threads,
            "memory_gib": memory("MemTotal"),
            "kernel": platform.release(),
            "load_average": self.load,
            "versions": {**self.versions, "python": platform.python_version()},
        }
        document = {
            **now_and_commit(),
            "geometry": GEOMETRY,
            "layers": self.layers,
            "rounds": self.options.rounds,
            "machine": machine,
            "notes": self.notes,
            "rows": results,
            "left_out": left_out,
        }
        for result in results:
            result["run"] = run_of(document)
        earlier = self.earlier()
        if earlier:
            merge(document, earlier)
            kept = len(document["rows"]) - len(results)
            print(f"{kept} rows of earlier runs stay in {os.path.relpath(self.options.out)}")
        write(document, self.options.out)


def pattern(text):
    try:
        return re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{error}") from None


def main():
    parser = argparse.ArgumentParser(prog="make bench-peers", description=__doc__.split("\n")[0])
    parser.add_argument("build", nargs="?", default="build", help="the build directory (default: build)")
    parser.add_argument(
        "--only", metavar="REGEX", type=pattern, default=re.compile(""), help="only rows whose name matches"
    )
    parser.add_argument("--rounds", metavar="N", type=positive, help="rounds (default: 3)")
    parser.add_argument("--threads", metavar="N", type=positive, default=2, help="of every contestant (default: 2)")
    parser.add_argument("--layers", metavar="N", type=positive, help=f"decoder layers (default: {BAR_LAYERS})")
    parser.add_argument("--quick", action="store_true", help="2 layers, one round: to try the tool itself")
    parser.add_argument(
        "--out", metavar="FILE", default=str(ROOT / "bench/out/peers.json"), help="default: bench/out/peers.json"
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.layers = options.layers or (2 if options.quick else BAR_LAYERS)
    if options.layers < 2:
        parser.error("argument --layers: a pyramid takes at least 2")
    return run_until_stopped("bench-peers", Bench(options))


if __name__ == "__main__":
    sys.exit(main())
