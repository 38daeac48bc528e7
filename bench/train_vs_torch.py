# SPDX-License-Identifier: BSD-3-Clause
"""Trains the same model with shoal and with PyTorch on this machine, in turns, and compares tokens per second.

    python bench/train_vs_torch.py --shoal PATH [--sizes small medium] [--ranks 1 2 4] [--rounds 4] [--out FILE]

For every size, number of ranks and way to shard, PyTorch's candidates (precision x eager or compiled) first run once each
and the fastest of them plays; so does shoal's fastest precision. Then the two take turns, A B A B, so that whatever else the
machine does falls on both. A round's value is the median over its steps; a table gives the median over rounds, the
lowest and highest round, and the ratio. --out takes every round as one JSON line.

A run that fails ends the comparison of its row, with what it has said, and the exit status is 1 once the other rows are done.
"""

import argparse
import array
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SIZES = {  # heads, layers, vocabulary, sequence, sequences per rank; the width is 64 heads
    "tiny": (2, 2, 256, 128, 8),
    "small": (4, 6, 8192, 256, 8),
    "medium": (8, 6, 8192, 256, 8),
    "wide-head": (4, 6, 50304, 256, 8),
    "enoki-28": (28, 21, 50304, 2048, 8),
    "enoki-28-b32": (28, 21, 50304, 2048, 32),
    "smollm-135m": (9, 30, 49152, 2048, 16),
}
MORE = {"smollm-135m": ["model.arch=llama", "model.kv_heads=3", "model.d_model=576", "model.head_dim=64", "model.ffn=1536",
                        "model.norm=rmsnorm", "model.act=swiglu", "model.rope=half", "model.qk_norm=false",
                        "model.tied=true"]}
SHARDS = {"full": "fsdp2", "grad": "zero2", "none": "ddp"}  # shoal's name and torch_train.py's
# By default glibc gives every large buffer back to the kernel and faults it in again, which slows PyTorch on a CPU. Its users
# know the remedy, so it gets it.
TORCH_ENV = {"MALLOC_TRIM_THRESHOLD_": str(1 << 34), "MALLOC_MMAP_THRESHOLD_": str(1 << 34)}


class Failure(Exception):
    """A run that did not end with figures; the text says which, and why."""


def at_least(least):
    def parse(text):
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"{text}: expects {least} or more")
        return int(text)
    parse.__name__ = "number"
    return parse


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shoal", type=pathlib.Path, help="the binary; without it only PyTorch runs")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "medium"])
    parser.add_argument("--ranks", nargs="+", type=at_least(1), default=[1, 2, 4])
    parser.add_argument("--shards", nargs="+", choices=SHARDS, default=["full"], help="on several ranks")
    parser.add_argument("--rounds", type=at_least(1), default=4)
    parser.add_argument("--warmup", type=at_least(0), default=3)
    parser.add_argument("--steps", type=at_least(1), default=8)
    parser.add_argument("--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"])
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--compiled-only", action="store_true", help="leave PyTorch's eager mode out")
    parser.add_argument("--timeout", type=at_least(1), default=600, help="seconds for one run")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that has torch")
    parser.add_argument("--out", type=pathlib.Path)
    return parser.parse_args()


class Contender:
    """One way to train: run() gives {"tokens_per_s": ..., "step_ms": ..., ...}, or raises Failure."""

    def __init__(self, args, size, ranks, work):
        self.args, self.ranks, self.work = args, ranks, work
        heads, layers, vocab, seq, local = SIZES[size]
        ramp = min(10, args.warmup + args.steps)  # steps in which the learning rate rises: a run may be shorter than 10
        self.keys = [f"model.heads={heads}", f"model.layers={layers}", f"model.vocab={vocab}", f"model.seq={seq}",
                     f"batch.local={local}", "optim.name=adamw", "optim.lr=0.001", "optim.wd=0.1",
                     "optim.schedule=constant", f"optim.warmup={ramp}", "data.order=sequential", *MORE.get(size, [])]

    def call(self, command, env=None):
        try:
            done = subprocess.run(command, env={**os.environ, **(env or {})}, capture_output=True, text=True,
                                  timeout=self.args.timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"{self.label}: no end after {self.args.timeout} s") from None
        except OSError as error:
            raise Failure(f"{self.label}: {error}") from None
        if done.returncode != 0:
            raise Failure(f"{self.label}: exit {done.returncode}: {done.stderr.strip()[-2000:]}")
        return done.stdout


class Torch(Contender):
    def __init__(self, args, size, ranks, work, precision, compiled, shard):
        super().__init__(args, size, ranks, work)
        self.precision, self.options = precision, ["--precision", precision, "--shard", SHARDS[shard]]
        self.options += ["--compile"] if compiled else []
        self.label = " ".join(["torch", precision, "compiled" if compiled else "eager"])

    def run(self):
        out = self.call([self.args.python, HERE / "torch_train.py", "--ranks", str(self.ranks), "--tokens",
                         self.work / "tokens.bin", "--device", self.args.device, "--warmup", str(self.args.warmup), "--steps", str(self.args.steps),
                         *self.options, *self.keys], TORCH_ENV)
        lines = [line for line in out.splitlines() if line.startswith("{")]
        if not lines:
            raise Failure(f"{self.label}: it ended without figures")
        return json.loads(lines[-1])


class Shoal(Contender):
    def __init__(self, args, size, ranks, work, precision, shard):
        super().__init__(args, size, ranks, work)
        self.precision, self.shard = precision, shard
        self.label = f"shoal {precision}"

    def run(self):
        """Rank files rather than the summary, so that both sides discard the same warm-up and time steps the same way."""
        directory = self.work / "run"
        shutil.rmtree(directory, ignore_errors=True)
        steps = self.args.warmup + self.args.steps
        config = self.work / "bench.conf"
        config.write_text("")  # every key is on the command line
        self.call([self.args.shoal, "train", "-n", str(self.ranks), config, *self.keys, f"run.steps={steps}",
                   f"run.dir={directory}", f"run.device={self.args.device}", f"data.train={self.work / 'tokens.bin'}",
                   f"parallel.shard={self.shard}", f"precision.compute={self.precision}",
                   f"precision.gather={self.precision}", "precision.reduce=fp32"])
        ranks = [[json.loads(line) for line in path.read_text().splitlines()][self.args.warmup:]
                 for path in sorted(directory.glob("rank-*.jsonl"))]
        times = [max(line["step_ms"] for line in step) for step in zip(*ranks)]  # the slowest rank ends a step
        tokens = sum(rank[0]["tokens"] for rank in ranks)
        median = statistics.median(times)
        return {"impl": "shoal", "ranks": self.ranks, "precision": self.precision, "loss": ranks[0][-1]["loss"],
                "step_ms": median, "step_ms_min": min(times), "step_ms_max": max(times),
                "tokens_per_s": 1e3 * tokens / median}


def fastest(contenders, note):
    """Runs each once and returns the best."""
    best, speed = None, 0.0
    for contender in contenders:
        result = contender.run()
        note(contender, "trial", result)
        print(f"  trial {contender.label:22} {result['tokens_per_s']:10.0f} tokens/s", flush=True)
        if result["tokens_per_s"] > speed:
            best, speed = contender, result["tokens_per_s"]
    return best


def compare(args, size, ranks, shard, work, note):
    where = f"{size:10} {ranks} ranks {shard if ranks > 1 else '':5}"
    print(where, flush=True)
    compiled = [False] if args.no_compile else [True] if args.compiled_only else [False, True]
    torch = fastest([Torch(args, size, ranks, work, p, c, shard) for c in compiled for p in args.precisions], note)
    shoal = fastest([Shoal(args, size, ranks, work, p, shard) for p in args.precisions], note) if args.shoal else None
    players = [p for p in (shoal, torch) if p]
    speeds = {p.label: [] for p in players}
    for round_number in range(args.rounds):
        for player in players:
            result = player.run()
            note(player, round_number, result)
            speeds[player.label].append(result["tokens_per_s"])
    medians = []
    for label, values in speeds.items():
        medians.append(statistics.median(values))
        print(f"{where} {label:22} {medians[-1]:10.0f} tokens/s  ({min(values):.0f} .. {max(values):.0f})")
    if len(medians) == 2:
        print(f"{where} ratio shoal / torch {medians[0] / medians[1]:.2f}", flush=True)


def write_tokens(path, vocab):
    ids = array.array("H", random.Random(0).choices(range(vocab), k=1 << 20))
    if sys.byteorder == "big":
        ids.byteswap()
    path.write_bytes(ids.tobytes())


def main():
    args = parse_args()
    if args.shoal:
        args.shoal = args.shoal.resolve()
    out = args.out.open("a") if args.out else None
    failures = 0
    busy = os.getloadavg()[0]
    if busy > 0.5:
        # Two OpenMP threads that share a core wait for each other at every loop: such a ratio can be off tenfold.
        print(f"warning: the machine is busy (load {busy:.1f}): the figures will say little", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        for size in args.sizes:
            write_tokens(work / "tokens.bin", SIZES[size][2])
            for ranks, shard in ((r, s) for r in args.ranks for s in (args.shards if r > 1 else ["full"])):
                def note(contender, round_name, result):
                    if out:
                        print(json.dumps({"size": size, "ranks": ranks, "shard": shard, "contender": contender.label,
                                          "round": round_name, "load": os.getloadavg()[0], "result": result}),
                              file=out, flush=True)
                try:
                    compare(args, size, ranks, shard, work, note)
                except Failure as failure:
                    failures += 1
                    print(f"{size} {ranks} ranks {shard}: not compared: {failure}", file=sys.stderr, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
