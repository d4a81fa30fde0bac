"""What `make bench-peers` and `make bench-train` share: the machine's description, the file of results, the ends."""

import datetime
import json
import os
import platform
import signal
import sys
from pathlib import Path

from contestants import ROOT, Failure, end, run, running

# CPU flags that stand for units, as /proc/cpuinfo names them on x86-64 and on Arm.
UNITS = {
    "bf16": ("avx512_bf16", "amx_bf16", "bf16", "svebf16"),
    "int8": ("avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "asimddp"),
}
FLAGS = ("avx2", "fma", "f16c", "avx512f", "avx512_fp16", "amx_tile", "asimd", "sve", *UNITS["bf16"], *UNITS["int8"])


def cpu():
    """The CPU's name and those of FLAGS that it has."""
    name, flags = platform.processor() or platform.machine(), set()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = (part.strip() for part in line.partition(":"))
            if key == "model name":
                name = value
            elif key in ("flags", "Features"):
                flags.update(value.split())
    except OSError:
        pass
    return name, [flag for flag in FLAGS if flag in flags]


def now_and_commit():
    """When a document is written, and of which commit of the tree its figures are; None where that is not known."""
    try:
        commit = run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"])[0].strip()
    except Failure:
        commit = None
    return {"time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "commit": commit}


def positive(text):
    """An argument that counts something."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def write(document, path):
    """The document as JSON, whole or not at all."""
    out = Path(path)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(out)
    print(f"written: {os.path.relpath(out)}")


def on_signal(number, _frame):
    raise KeyboardInterrupt(number)


def run_until_stopped(name, benchmark):
    """Runs it and returns the program's exit code; no child process outlives it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    try:
        return benchmark.run()
    except KeyboardInterrupt:
        print(f"\n{name}: stopped; nothing was written", file=sys.stderr)
        return 130
    except Failure as failure:
        print(f"{name}: {failure}", file=sys.stderr)
        return 1
    finally:
        for child in list(running):
            end(child)
