#!/usr/bin/env python3
"""make bench-train: a training step, forward and backward and AdamW, of our trainer and of PyTorch on the same shapes, in turn.

Ours is bench/training.c, dense and with the pyramid; PyTorch is bench/peer_train.py in eager mode, in bf16
autocast, or, on a CPU without bf16 units, in the faster of that and f32.
Every contestant is a process of its own, so that its peak memory is its own, and takes one step a round, after a warm-up.
Figures are medians over the rounds. The result is written to bench/out/train.json.

A peer that cannot be had is reported, and its rows are left out. Exit status: 0 when our program ran, 1 when it failed, 2 for
wrong use, 130 when stopped by a signal (nothing is written then).
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from contestants import ROOT, Failure, end, run, start
from side_by_side import UNITS, cpu, now_and_commit, positive, run_until_stopped, write

# The proportions of the two models over 8 layers of a width that fits; the frozen tower's share of a dense step's work is
# LLaVA-1.5-7B's, where ViT-L/14's forward pass is 1.5 % of it.
GEOMETRY = {"layers": 8, "embd": 1024, "ff": 2752, "heads": 16, "kv-heads": 16, "vocab": 32000, "text-tokens": 80}
TOWER = {"tower-layers": 6, "tower-embd": 256, "tile-side": 24, "patch": 14}
SCHEDULE = ["--layer-list", "2,4,6", "--ratios", "0.5,0.25,0.125"]
SHAPES = {
    "llava-1.5": ({"image-tokens": 576, "batch": 2}, 0.62),
    "llava-next": ({"image-tokens": 2880, "batch": 1}, 0.50),
}
TIMES_FASTER = 1.2
TRIAL = "--layers 2 --embd 256 --ff 704 --heads 4 --kv-heads 4 --vocab 512 --image-tokens 256 --random-features".split()


class Contestant:
    """A program that takes one step for every line it is sent (--wait)."""

    def __init__(self, name, command, log):
        self.name, self.command, self.log_path = name, command, log
        self.ms, self.cpu_ms, self.result, self.child, self.failure = [], [], None, None, None

    def start(self):
        with open(self.log_path, "w", errors="replace") as log:
            self.child = start(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        self.line()

    def line(self):
        text = self.child.stdout.readline()
        if text:
            return json.loads(text)
        lines = [line for line in Path(self.log_path).read_text().split("\n") if line.strip()]
        raise Failure(lines[-1] if lines else f"{self.name} ended early")

    def step(self):
        try:
            self.child.stdin.write("step\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self.line()
        self.ms.append(answer["ms"])
        self.cpu_ms.append(answer["cpu_ms"])

    def finish(self):
        """What it tells at the end of its input; then it ends."""
        self.child.stdin.close()
        answer = self.line()
        self.result = answer.get("result", answer)
        end(self.child)

    def median(self):
        return statistics.median(self.ms)

    def cpu_median(self):
        return statistics.median(self.cpu_ms)


class Bench:
    def __init__(self, options):
        self.options = options
        self.build = Path(options.build).resolve()
        self.training = str(self.build / "training")
        self.cpu_name, self.flags = cpu()
        self.has_bf16 = any(flag in self.flags for flag in UNITS["bf16"])
        self.notes, self.rows, self.versions = [], [], {}
        self.python = self.dtype = None

    def note(self, text):
        print(f"note: {text}", flush=True)
        self.notes.append(text)

    def find_torch(self):
        self.python = os.environ.get("PD_PEER_PYTHON")
        if self.python:
            return
        venv = self.build / "peers/venv"
        child = start(["sh", str(ROOT / "bench/fetch_torch.sh"), str(venv)], stdin=subprocess.DEVNULL)
        try:
            status = child.wait()
        finally:
            end(child)
        if status == 0:
            self.python = str(venv / "bin/python")
        else:
            self.note("PyTorch cannot be had here: the rows against it are left out")

    def choose_dtype(self):
        """bf16 where the CPU multiplies it, else the faster of bf16 and f32, found by a trial."""
        if self.has_bf16 or not self.python:
            return "bf16"
        peer = [self.python, str(ROOT / "bench/peer_train.py"), *TRIAL, "--steps", "3", "--threads", str(self.options.threads)]
        ms = {dtype: json.loads(run([*peer, "--dtype", dtype])[0])["cpu_ms"] for dtype in ("f32", "bf16")}
        best = min(ms, key=ms.get)
        self.note(f"the CPU has no bf16 units: ours computes in f32, and so PyTorch is given the faster of its own two, {best} "
                  f"(a small trial: f32 {ms['f32']:.0f} ms of CPU time, bf16 autocast {ms['bf16']:.0f})")
        return best

    # -- one shape

    def contestants(self, shape, random_features):
        sizes = {**GEOMETRY, **shape, "threads": self.options.threads, "warmup": 1}
        tower = ["--random-features"] if random_features else []
        if not random_features:
            sizes.update(TOWER)
        arguments = [word for name, value in sizes.items() for word in (f"--{name}", str(value))] + tower
        logs = self.build / "peers"
        logs.mkdir(exist_ok=True)
        ours = [self.training, *arguments, "--wait"]
        found = [
            Contestant("dense", ours, logs / "train-dense.log"),
            Contestant("pyramid", ours + SCHEDULE, logs / "train-pyramid.log"),
        ]
        if self.python:
            peer = [self.python, str(ROOT / "bench/peer_train.py"), *arguments, *SCHEDULE, "--wait"]
            command = [*peer, "--dtype", self.dtype]
            found.append(Contestant(f"PyTorch {self.dtype}", command, logs / "train-torch.log"))
        return found

    def run_one(self, contestant, first):
        try:
            if first:
                contestant.start()
            contestant.step()
        except (Failure, ValueError, KeyError) as failure:
            contestant.failure = str(failure) or type(failure).__name__
            self.note(f"{contestant.name}: {contestant.failure}")
            if contestant.child:
                end(contestant.child)
            return
        print(f"{contestant.name} {contestant.ms[-1]:.0f} ms", end="  ", flush=True)

    def run_shape(self, name, shape, bar, random_features):
        print(f"\n{name}{', no tower' if random_features else ''}: {shape['image-tokens']} image + {GEOMETRY['text-tokens']} "
              f"text tokens, batch {shape['batch']}", flush=True)
        everyone = self.contestants(shape, random_features)
        for number in range(self.options.rounds):
            print(f"[round {number + 1}/{self.options.rounds}]", end=" ", flush=True)
            for contestant in everyone:
                if contestant.failure or contestant.result:
                    continue
                self.run_one(contestant, number == 0)
            print(flush=True)
        for contestant in everyone:
            if not contestant.failure and not contestant.result:
                contestant.finish()
        self.add_rows(name + (", no tower" if random_features else ""), everyone, None if random_features else bar)

    # -- the result

    def add(self, name, unit, ours, peer, ratio, bar, more, **rest):
        met = None if bar is None else ratio >= bar if more else ratio <= bar
        self.rows.append({"name": name, "unit": unit, "ours": ours, "peer": peer, "ratio": ratio, "bar": bar,
                          "bar_is": "at least" if more else "at most", "met": met, **rest})

    def add_rows(self, name, everyone, bar):
        there = {one.name: one for one in everyone if one.result}
        dense, pyramid = there.get("dense"), there.get("pyramid")
        if not dense or not pyramid:
            raise Failure("our own program failed")
        self.versions["compute"] = self.versions.get("compute") or dense.result.get("compute")
        ratios = [b / a for a, b in zip(dense.ms, pyramid.ms)]
        self.add(f"{name}: pyramid over dense, time of a step", "ms", pyramid.median(), dense.median(),
                 pyramid.median() / dense.median(), bar, False, ratio_rounds=ratios,
                 cpu_ratio=pyramid.cpu_median() / dense.cpu_median())
        self.add(f"{name}: pyramid over dense, peak memory", "MiB", pyramid.result["peak_mib"], dense.result["peak_mib"],
                 pyramid.result["peak_mib"] / dense.result["peak_mib"], None, False)
        peer = there.get(f"PyTorch {self.dtype}")
        if not peer:
            return
        self.versions.update({"torch": peer.result["torch"], "transformers": peer.result["transformers"]})
        if peer.result["n_rows"][0] * self.batch_of(peer) != pyramid.result["n_rows"]:
            raise Failure(f"{peer.name} ran {peer.result['n_rows'][0]} rows a sample, ours {pyramid.result['n_rows']} in all")
        self.add(f"{name}: against {peer.name}, time of a step, pyramid", "ms", pyramid.median(), peer.median(),
                 peer.median() / pyramid.median(), TIMES_FASTER if self.dtype == "bf16" else None, True, peer_name=peer.name,
                 cpu_ratio=peer.cpu_median() / pyramid.cpu_median(),
                 ratio_rounds=[b / a for a, b in zip(pyramid.ms, peer.ms)])
        self.add(f"{name}: against {peer.name}, peak memory, pyramid", "MiB", pyramid.result["peak_mib"],
                 peer.result["peak_mib"], pyramid.result["peak_mib"] / peer.result["peak_mib"], 1.0, False,
                 peer_name=peer.name)

    @staticmethod
    def batch_of(contestant):
        return int(contestant.command[contestant.command.index("--batch") + 1])

    def run(self):
        print(f"{self.cpu_name}; {self.options.threads} threads")
        load = os.getloadavg()[0]
        if load > 0.3:
            self.note(f"load average {load:.2f}: other work is running, or has just been; look at the spread of the rounds")
        self.find_torch()
        self.dtype = self.choose_dtype()
        for name, (shape, bar) in SHAPES.items():
            if self.options.only and name != self.options.only:
                continue
            for random_features in (True,) if self.options.no_tower else (False, True):
                self.run_shape(name, shape, bar, random_features)
        self.finish(load)
        return 0

    def finish(self, load):
        width = max(len(row["name"]) for row in self.rows)
        print(f"\n{'medians':{width}}  {'ours':>9} {'peer':>9} {'ratio':>7} {'of CPU time':>11} {'rounds':>13}  bar")
        for row in self.rows:
            rounds = row.get("ratio_rounds")
            spread = f"{min(rounds):.2f} - {max(rounds):.2f}" if rounds else "-"
            cpu = f"{row['cpu_ratio']:.3f}" if "cpu_ratio" in row else "-"
            bar = f"{row['bar_is']} {row['bar']:.2f} {'met' if row['met'] else 'MISSED'}" if row["bar"] else "-"
            print(f"{row['name']:{width}}  {row['ours']:9.4g} {row['peer']:9.4g} {row['ratio']:7.3f} {cpu:>11} {spread:>13}  "
                  f"{bar}")
        document = {
            **now_and_commit(),
            "geometry": {**GEOMETRY, **TOWER},
            "rounds": self.options.rounds,
            "machine": {"cpu": self.cpu_name, "flags": self.flags, "cores": os.cpu_count(), "threads": self.options.threads,
                        "load_average": load, "versions": {**self.versions, "python": platform.python_version()}},
            "notes": self.notes,
            "rows": self.rows,
        }
        write(document, self.options.out)


def main():
    parser = argparse.ArgumentParser(prog="make bench-train", description=__doc__.split("\n")[0])
    parser.add_argument("build", nargs="?", default="build", help="the build directory (default: build)")
    parser.add_argument("--rounds", metavar="N", type=positive, default=5, help="steps of every contestant (default: 5)")
    parser.add_argument("--threads", metavar="N", type=positive, default=2, help="of every contestant (default: 2)")
    parser.add_argument("--only", choices=list(SHAPES), help="one of the shapes")
    parser.add_argument("--no-tower", action="store_true", help="the decoder alone, not also with the tower")
    parser.add_argument("--out", metavar="FILE", default=str(ROOT / "bench/out/train.json"),
                        help="default: bench/out/train.json")
    options = parser.parse_args()
    return run_until_stopped("bench-train", Bench(options))


if __name__ == "__main__":
    sys.exit(main())
