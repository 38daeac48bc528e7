# SPDX-License-Identifier: BSD-3-Clause
"""Trains the reference model with PyTorch and prints its speed as one JSON line: the opponent of `shoal train`.

    python bench/torch_train.py --ranks 2 model.heads=4 model.layers=6 batch.local=8 model.seq=256 [key=value ...]

It takes what a competent PyTorch user would: scaled_dot_product_attention, F.cross_entropy, fused AdamW, optionally
torch.compile, and for several ranks FSDP2 over gloo (parameters gathered in bf16, gradients reduced in fp32). Options
choose precision and mode, so that the comparison can take the fastest; see README.md. `--device cuda` trains on one GPU,
from PyTorch's own random weights: they do not change the speed.

A step is everything from reading the batch to the end of the optimizer. Tokens are counted once, over all ranks.
"""

import argparse
import contextlib
import json
import os
import pathlib
import resource
import socket
import statistics
import sys
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "reference"))
import enoki  # noqa: E402


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--threads", type=int, help="per rank; default: the cores of this process divided by ranks")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: one rank, flash attention")
    parser.add_argument("--precision", choices=["fp32", "autocast", "bf16"], default="bf16",
                        help="bf16: the FSDP2 policy on several ranks, autocast on one")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--shard", choices=["fsdp2", "zero2", "ddp"], default="fsdp2",
                        help="several ranks only; zero2: FSDP2 that keeps the gathered parameters until the backward")
    parser.add_argument("--warmup", type=int, default=3, help="steps before the measured ones")
    parser.add_argument("--steps", type=int, default=10, help="measured steps")
    parser.add_argument("--tokens", type=pathlib.Path, help="uint16 token file; default: random tokens")
    parser.add_argument("config", nargs="*", metavar="key=value")
    args = parser.parse_args()
    if args.device == "cuda" and args.ranks > 1:
        parser.error("--device cuda measures one rank")
    return args


def read_config(pairs):
    config = {"run.steps": 1000, "optim.name": "adamw", "optim.lr": 1e-3, "optim.wd": 0.1, "batch.local": 8}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            config[key] = json.loads(value)
        except json.JSONDecodeError:
            config[key] = value
    return config


def read_tokens(path, vocab):
    if path:
        return np.fromfile(path, "<u2")
    return np.random.default_rng(0).integers(0, vocab, 1 << 20).astype(np.uint16)


def shard(model, args):
    """Wraps the model for several ranks; units as in shoal: the embedding, each block, the head."""
    if args.ranks == 1:
        return model
    if args.shard == "ddp":
        return torch.nn.parallel.DistributedDataParallel(model)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
    half = torch.bfloat16 if args.precision == "bf16" else None
    policy = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32)
    mesh = init_device_mesh("cpu", (args.ranks,))
    for unit in (model.embed, *model.block, model.final):
        fully_shard(unit, mesh=mesh, mp_policy=policy, reshard_after_forward=args.shard == "fsdp2")
    return fully_shard(model, mesh=mesh, mp_policy=policy)


def make_optimizer(model, c):
    """Fused AdamW where that is asked for; the DANA family as the reference computes it, compiled per tensor."""
    if c["optim.name"] == "adamw":
        decayed = [p for n, p in model.named_parameters() if enoki.decays(n)]
        spared = [p for n, p in model.named_parameters() if not enoki.decays(n)]
        groups = [{"params": decayed, "weight_decay": c["optim.wd"]}, {"params": spared, "weight_decay": 0.0}]
        return torch.optim.AdamW(groups, lr=c["optim.lr"], betas=(c["optim.beta1"], c["optim.beta2"]), fused=True)
    raise SystemExit("torch_train.py measures optim.name=adamw only")


def init_on_gpu(model, layers):
    with torch.no_grad():
        for name, p in model.named_parameters():
            std = enoki.init_std(name, p.shape, layers)
            p.fill_(1.0 if std is None else 0.0) if not std else p.normal_(std=std)
    return model


def run_rank(rank, args, port):
    if args.ranks > 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(args.ranks))
        dist.init_process_group("gloo")
    torch.set_num_threads(args.threads)
    c = enoki.complete(read_config(args.config))
    if args.device == "cuda":
        torch.set_float32_matmul_precision("high")
        with torch.device("cuda"):
            model = init_on_gpu(enoki.Model(c, fast=True), c["model.layers"])
    else:
        model = enoki.init_(enoki.Model(c, fast=True), c["run.seed"])
    nparameters = sum(p.numel() for p in model.parameters())
    if args.compile and args.ranks > 1:
        # Per unit: the hooks of FSDP2 between them would break a graph of the whole model anyhow.
        for unit in model.block:
            unit.compile()
    model = shard(model, args)
    optimizer = make_optimizer(model, c)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: enoki.schedule_factor(c["optim.schedule"], i + 1, c["run.steps"], c["optim.warmup"]))
    # With FSDP2 the policy already does it in bf16; autocast would convert a second time.
    automatic = args.precision == "autocast" or (args.precision == "bf16" and (args.ranks == 1 or args.shard == "ddp"))

    def cross_entropy(logits, y):
        return F.cross_entropy(logits.flatten(0, 1).float(), y.flatten())

    def loss_of(x, y):
        with torch.autocast(args.device, torch.bfloat16) if automatic else contextlib.nullcontext():
            logits = model(x)
        return cross_entropy(logits, y)

    if args.compile and args.ranks == 1:
        loss_of = torch.compile(loss_of)
    elif args.compile:
        cross_entropy = torch.compile(cross_entropy)
    tokens = read_tokens(args.tokens, c["model.vocab"])
    local, seq = c["batch.local"], c["model.seq"]
    times, loss = [], 0.0
    start = time.perf_counter()
    for step in range(args.warmup + args.steps):
        if step == args.warmup:
            setup = time.perf_counter() - start
        if args.ranks > 1:
            dist.barrier()
        begin = time.perf_counter()
        first = (step * args.ranks + rank) * local
        x, y = (t.to(args.device, non_blocking=True) for t in enoki.batch(tokens, seq, range(first, first + local)))
        loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), c["optim.clip"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler.step()
        if args.ranks > 1:
            dist.barrier()
        if args.device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begin)
    times = times[args.warmup:]
    if rank == 0:
        median = statistics.median(times)
        print(json.dumps({
            "impl": "torch", "torch": torch.__version__, "ranks": args.ranks, "threads": args.threads,
            "shard": args.shard if args.ranks > 1 else "none", "precision": args.precision, "compile": args.compile,
            "d_model": c["model.d_model"], "layers": c["model.layers"], "vocab": c["model.vocab"], "seq": seq,
            "local_batch": local, "parameters": nparameters, "steps": args.steps, "loss": round(loss.item(), 4),
            "step_ms": round(1e3 * median, 1), "step_ms_min": round(1e3 * min(times), 1),
            "step_ms_max": round(1e3 * max(times), 1), "warmup_s": round(setup, 1),
            "device": torch.cuda.get_device_name() if args.device == "cuda" else "cpu",
            "max_gpu_mib": torch.cuda.max_memory_reserved() >> 20 if args.device == "cuda" else 0,
            "max_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "tokens_per_s": round(args.ranks * local * seq / median, 1)}), flush=True)
    if args.ranks > 1:
        dist.destroy_process_group()


def main():
    args = parse_args()
    args.threads = args.threads or max(1, len(os.sched_getaffinity(0)) // args.ranks)
    if args.ranks == 1:
        run_rank(0, args, 0)
        return
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(run_rank, args=(args, port), nprocs=args.ranks)


if __name__ == "__main__":
    main()
