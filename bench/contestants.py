"""What `make bench-peers` runs: every contestant as a Step that measures itself, and the child processes for it."""

import json
import os
import re
import signal
import statistics
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GEOMETRY = "llava-1.5-7b"
N_EMBD, N_FF, N_VOCAB = 4096, 11008, 32000
IMAGE_TOKENS = 576  # of one picture; LLaVA-NeXT's 2,880 are five of them, as its five tiles are
N_DECODED = 16


class Failure(Exception):
    """A step that did not work; str() is one line for the reader."""


# ---- child processes -------------------------------------------------------------------------------------------

running = []  # every child is the leader of a process group


def start(argv, **options):
    try:
        child = subprocess.Popen(argv, start_new_session=True, text=True, errors="replace", **options)
    except OSError as error:
        raise Failure(f"{argv[0]}: {error.strerror}") from None
    running.append(child)
    return child


def end(child):
    """Ends the child and what it started, if they have not ended by themselves."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if child.poll() is None:
            try:
                os.killpg(child.pid, number)
                child.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                pass
    if child in running:
        running.remove(child)


def run(argv):
    """Standard output and standard error of a program that must succeed."""
    child = start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = child.communicate()
    finally:
        end(child)
    if child.returncode != 0:
        lines = [line for line in (err or out).splitlines() if line.strip()]
        raise Failure(lines[-1] if lines else f"{argv[0]} ended with status {child.returncode}")
    return out, err


def memory(field):
    """A figure of /proc/meminfo in GiB."""
    try:
        found = re.search(rf"^{field}: *(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
        return int(found.group(1)) / 2**20 if found else None
    except OSError:
        return None


# ---- what is measured ------------------------------------------------------------------------------------------


def schedule(n_layers):
    """Four equal stages, lambda 0.5, as far as the depth allows: ([2, 4, 6], [0.5, 0.25, 0.125]) for 8 layers."""
    drops = {n_layers * stage // 4: 0.5**stage for stage in (1, 2, 3) if n_layers * stage // 4 > 0}
    return list(drops), list(drops.values())


def stage_rows(n_image, n_text, n_layers):
    """Live rows of every layer."""
    rows, n = [], n_image
    layer_list, ratios = schedule(n_layers)
    for layer in range(n_layers):
        if layer in layer_list:
            n = int(n_image * ratios[layer_list.index(layer)])
        rows.append(n + n_text)
    return rows


def prefill_gflop(rows):
    """Of the decoder layers over rows[layer] live rows, attention being causal."""
    return sum(2e-9 * n * (4 * N_EMBD**2 + 3 * N_EMBD * N_FF + n * N_EMBD) for n in rows)


class Step:
    """One run of one contestant. measure() gives {figure: value}; every value is a rate: more is better."""

    def __init__(self, contestant, label, gflop):
        self.contestant, self.label, self.gflop = contestant, label, gflop
        self.rounds, self.seconds, self.failure, self.remark = [], None, None, None

    def values(self, figure):
        return [figures[figure] for figures in self.rounds if figure in figures]

    def median(self, figure):
        values = self.values(figure)
        return statistics.median(values) if values else 0.0

    def measure(self):
        raise NotImplementedError


class Ours(Step):
    """pdrop bench: a warm-up and a counted round, the dense model and then the pyramid in each."""

    def __init__(self, bench, model, n_images, n_text, compute, n_decoded):
        self.bench, self.model, self.compute = bench, model, compute
        self.computed = compute  # as the program tells, which takes the next best where it lacks what was asked for
        n = n_images * IMAGE_TOKENS + n_text
        dense = prefill_gflop([n] * bench.layers)
        pyramid = prefill_gflop(stage_rows(n_images * IMAGE_TOKENS, n_text, bench.layers)) if n_images else dense
        super().__init__(f"pdrop {compute}", f"pdrop bench, {model}, {n} tokens, {compute}", 2 * (dense + pyramid))
        self.n, self.n_images, self.n_text, self.n_decoded = n, n_images, n_text, n_decoded

    def vision_arguments(self):
        if not self.n_images:
            return ["--no-drop"]
        layer_list, ratios = (str(values).replace(" ", "") for values in schedule(self.bench.layers))
        arguments = ["--mmproj", str(self.bench.mmproj()), "--images", str(self.n_images), "--no-vision"]
        return [*arguments, "--layer_list", layer_list, "--image_token_ratio_list", ratios]

    def result(self):
        command = [self.bench.pdrop, "bench", "-m", str(self.bench.model(self.model)), "-r", "1", "--json", "-q"]
        command += ["-t", str(self.bench.threads), "--text-tokens", str(self.n_text), "-n", str(self.n_decoded)]
        command += self.vision_arguments()
        result = json.loads(run(command + self.bench.compute_arguments(self.compute))[0])
        self.computed = result.get("compute", self.compute)
        if self.computed.split()[0] != self.compute and not self.rounds:
            self.remark = f"asked for {self.compute}, pdrop computed in {self.computed}"
        return result

    def measure(self):
        result = self.result()
        if result["n_prompt_tokens"] != self.n:
            raise Failure(f"pdrop bench ran {result['n_prompt_tokens']} prompt tokens, expected {self.n}")
        figures = {}
        for name in ("dense", "pyramid") if self.n_images else ("dense",):
            figures[f"{name} prefill"] = 1e3 * self.n / result[name]["prefill_ms"]
            if result[name]["decode_ms"] > 0:
                figures[f"{name} decode"] = 1e3 / result[name]["decode_ms"]
        return figures


class OurVision(Ours):
    """The same, of the vision tower: one picture over a decoder of one layer."""

    def __init__(self, bench, compute):
        super().__init__(bench, "one layer", 0, 2, compute, 0)
        self.label, self.gflop = f"pdrop bench, ViT-L/14-336, {compute}", 4 * 380.0

    def vision_arguments(self):
        return ["--mmproj", str(self.bench.mmproj()), "--no-drop"]

    def measure(self):
        result = self.result()
        # The two contestants encode a picture of their own each.
        return {"encode": statistics.median(1e3 / result[name]["vit_ms"] for name in ("dense", "pyramid"))}


class Llama(Step):
    """llama-bench: a prompt of `n`, or N_DECODED tokens after it, with or without flash attention."""

    def __init__(self, bench, model, n, decode, flash):
        self.bench, self.model, self.n, self.decode, self.flash = bench, model, n, decode, flash
        test = f"tg{N_DECODED} @ d{n}" if decode else f"pp{n}"
        gflop = prefill_gflop([n] * bench.layers) * (1 if decode else 2)
        super().__init__("llama.cpp", f"llama-bench {test}, -fa {flash}, {model}", gflop)

    def measure(self):
        shape = ["-p", "0", "-n", str(N_DECODED), "-d", str(self.n)] if self.decode else ["-p", str(self.n), "-n", "0"]
        command = [self.bench.llama_bench, "-m", str(self.bench.model(self.model).resolve()), *shape, "-r", "1"]
        command += ["-t", str(self.bench.threads), "-ngl", "0", "-dev", "none", "-fa", str(self.flash), "-o", "json"]
        out, err = run(command)
        backend = re.search(r"loaded CPU backend from (\S+)", err)
        if backend:
            self.bench.versions["llama.cpp CPU backend"] = Path(backend.group(1)).name
        return {"decode" if self.decode else "prefill": json.loads(out)[0]["avg_ts"]}


class Torch(Step):
    """One prefill of bench/peer_torch.py, which stays loaded between the rounds."""

    def __init__(self, bench, n_images, n_text):
        self.bench, self.n_image, self.n_text = bench, n_images * IMAGE_TOKENS, n_text
        rows = stage_rows(self.n_image, n_text, bench.layers)
        super().__init__("PyTorch", f"PyTorch + PyramidDrop, {rows[0]} tokens", 2 * prefill_gflop(rows))

    def measure(self):
        result = self.bench.torch.ask(f"{self.n_image} {self.n_text}")
        expected = list(dict.fromkeys(stage_rows(self.n_image, self.n_text, self.bench.layers)))
        if result["n_rows"] != expected:
            raise Failure(f"peer_torch.py ran the rows {result['n_rows']}, expected {expected}")
        return {"prefill": 1e3 * (self.n_image + self.n_text) / result["ms"]}


class TorchProcess:
    """bench/peer_torch.py, started when it is first asked."""

    def __init__(self, bench, python):
        self.bench, self.python, self.child, self.dtype = bench, python, None, None

    def start(self):
        parameters = (N_EMBD**2 * 4 + 3 * N_EMBD * N_FF) * self.bench.layers + 2 * N_EMBD * N_VOCAB
        needed = parameters * (2 if self.bench.units["bf16"] else 4) / 2**30 + 1
        available = memory("MemAvailable")  # beside it there must be room for the others
        if available and available < needed + 4:
            raise Failure(f"PyTorch's weights take {needed:.0f} GiB, and {available:.0f} GiB of memory are free")
        self.log = open(self.bench.build / "peers/torch.log", "w+", errors="replace")
        layer_list, ratios = schedule(self.bench.layers)
        command = [self.python, str(ROOT / "bench/peer_torch.py"), "--layers", str(self.bench.layers)]
        command += ["--threads", str(self.bench.threads), "--layer_list", ",".join(map(str, layer_list))]
        command += ["--image_token_ratio_list", ",".join(map(str, ratios))]
        command += ["--dtype", "bf16" if self.bench.units["bf16"] else "auto"]
        self.child = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log)
        ready = self.line()
        self.dtype = ready["dtype"]
        self.bench.versions.update({"torch": ready["torch"], "transformers": ready["transformers"]})

    def line(self):
        text = self.child.stdout.readline()
        if text:
            return json.loads(text)
        self.log.seek(0)
        lines = self.log.read().split("\n")
        raise Failure(next((line for line in reversed(lines) if line.strip()), "bench/peer_torch.py ended early"))

    def ask(self, line):
        if not self.child:
            self.start()
        try:
            self.child.stdin.write(line + "\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            pass
        return self.line()
