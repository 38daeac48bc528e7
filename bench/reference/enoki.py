# SPDX-License-Identifier: BSD-3-Clause
"""Enoki, its Llama and GPT-2 relatives, and the optimizers that train them, in PyTorch.

This is the second opinion on shoal: the same model, init, data order, schedule and optimizer, written from the
documentation rather than from the C code, and kept readable before fast. `tests/fixtures/make_fixtures.py` records what
it computes; `bench/torch_train.py` takes the model from here, with `fast=True`, as the opponent in the speed comparison.

Configurations are flat dictionaries with shoal's own keys, such as {"model.heads": 4, "optim.name": "adamw"}.

Shapes: B sequences, T positions, C = d_model, H query heads, K key/value heads, D = head_dim, V = vocabulary.
"""

import math

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F

DEFAULTS = {
    "model.arch": "enoki", "model.heads": 4, "model.vocab": 50304, "model.seq": 2048, "model.norm": "layernorm",
    "model.act": "gelu", "model.rope": "interleaved", "model.rope_theta": 10000.0, "model.pos": "none",
    "model.qk_norm": True, "model.bias": False, "model.tied": False, "model.z_loss": 0.0, "model.head_dim": 64,
    "optim.name": "dana-star-mk4", "optim.lr": "auto", "optim.wd": "auto", "optim.clip": 0.5, "optim.beta1": 0.9,
    "optim.beta2": 0.999, "optim.eps": 1e-8, "optim.kappa": 0.85, "optim.snr_clip": 2.0, "optim.delta": 8.0,
    "optim.schedule": "cos_inf", "run.seed": 0, "batch.accumulate": 1, "data.order": "sequential",
}
NORM_EPS = 1e-5


def complete(config):
    """The configuration with every unset key derived or defaulted, as shoal derives it."""
    c = {**DEFAULTS, **config}
    c.setdefault("model.d_model", c["model.heads"] * c["model.head_dim"])
    c.setdefault("model.layers", c["model.heads"] * 3 // 4)
    c.setdefault("model.kv_heads", c["model.heads"])
    c.setdefault("model.ffn", 4 * c["model.d_model"])
    c.setdefault("batch.global", c.get("batch.local", 1) * c["batch.accumulate"])
    c.setdefault("batch.local", c["batch.global"] // c["batch.accumulate"])
    c.setdefault("optim.warmup", c["run.steps"] // 50)
    if c["optim.lr"] == "auto":
        c["optim.lr"] = lr_rule(c["optim.name"], non_embedding_parameters(c), c["batch.global"])
    if c["optim.wd"] == "auto":
        c["optim.wd"] = wd_rule(c["optim.name"], c["optim.lr"], c["run.steps"])
    return c


def non_embedding_parameters(c):
    """Matrix weights of the blocks: 12 d^2 L for Enoki. Norms, biases, embeddings and the head do not count."""
    d, q, kv = c["model.d_model"], c["model.heads"] * c["model.head_dim"], c["model.kv_heads"] * c["model.head_dim"]
    mlp_matrices = 3 if c["model.act"] == "swiglu" else 2
    return c["model.layers"] * (2 * d * q + 2 * d * kv + mlp_matrices * d * c["model.ffn"])


# ---------------------------------------------------------------------------------------------------------------- init


def philox4x32(counter, key):
    """Philox4x32-10 on arrays: counter (n, 4) and key (2,), 32-bit words held in uint64."""
    c0, c1, c2, c3 = (counter[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    mask, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(10):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (p1 >> shift) ^ c1 ^ np.uint64(k0), p1 & mask, (p0 >> shift) ^ c3 ^ np.uint64(k1), p0 & mask
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1)


def normal(name, seed, first, count, std):
    """Elements first .. first + count - 1 of a tensor's initial value, fp32.

    std is rounded to fp32 before it is used, as in base/rng.c; the product is formed in double and rounded once.
    """
    import xxhash  # the speed comparison on a GPU does without
    key = xxhash.xxh3_64_intdigest(name.encode(), seed=seed)
    block = np.arange(first // 4, (first + count + 3) // 4, dtype=np.uint64)
    counter = np.zeros((block.size, 4), np.uint64)
    counter[:, 0], counter[:, 1] = block & np.uint64(0xFFFFFFFF), block >> np.uint64(32)
    a = (philox4x32(counter, (key & 0xFFFFFFFF, key >> 32)).astype(np.float64) + 0.5) * 2.0**-32
    z = np.empty_like(a)
    for pair in (0, 2):
        radius, angle = np.sqrt(-2.0 * np.log(a[:, pair])), 2.0 * math.pi * a[:, pair + 1]
        z[:, pair], z[:, pair + 1] = radius * np.cos(angle), radius * np.sin(angle)
    z = z.reshape(-1)[first % 4:first % 4 + count]
    return (np.float64(np.float32(std)) * z).astype(np.float32)


def init_std(name, shape, layers):
    """ScaledGPT. None: norm weight, all ones; 0: bias."""
    if name.endswith(".bias"):
        return 0.0
    if "norm" in name:
        return None
    if name.startswith("embed."):
        return 1.0 / math.sqrt(shape[1])
    if name.endswith("attn.o.weight") or name.endswith("mlp.down.weight"):
        return 1.0 / math.sqrt(2.0 * shape[1] * layers)
    return 1.0 / math.sqrt(shape[1])


def init_(model, seed):
    with torch.no_grad():
        for name, p in model.named_parameters():
            std = init_std(name, p.shape, model.c["model.layers"])
            if std is None or std == 0.0:
                p.fill_(1.0 if std is None else 0.0)
            else:
                p.copy_(torch.from_numpy(normal(name, seed, 0, p.numel(), std)).view(p.shape))
    return model


# --------------------------------------------------------------------------------------------------------------- model


class RMSNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n))

    def forward(self, x):
        y = x if x.dtype == torch.float64 else x.float()
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + NORM_EPS)
        return (y * self.weight).to(x.dtype)


def make_norm(c, n, bias):
    """bias applies to LayerNorm alone: RMSNorm never has one."""
    return RMSNorm(n) if c["model.norm"] == "rmsnorm" else nn.LayerNorm(n, eps=NORM_EPS, bias=bias)


def rope_tables(seq, head_dim, theta):
    """cos and sin, (T, D/2), of position * theta^(-2i/D), formed in double."""
    freq = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    angle = torch.outer(torch.arange(seq, dtype=torch.float64), freq)
    return angle.cos(), angle.sin()


def rotate(x, cos, sin, kind):
    """x (B, H, T, D). interleaved turns pairs (2i, 2i+1), half turns pairs (i, i + D/2)."""
    if kind == "interleaved":
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)


class Attention(nn.Module):
    def __init__(self, c, fast):
        super().__init__()
        d, hd, bias = c["model.d_model"], c["model.head_dim"], c["model.bias"]
        self.heads, self.kv_heads, self.head_dim, self.rope, self.fast = \
            c["model.heads"], c["model.kv_heads"], hd, c["model.rope"], fast
        self.q = nn.Linear(d, self.heads * hd, bias=bias)
        self.k = nn.Linear(d, self.kv_heads * hd, bias=bias)
        self.v = nn.Linear(d, self.kv_heads * hd, bias=bias)
        self.o = nn.Linear(self.heads * hd, d, bias=bias)
        if c["model.qk_norm"]:
            # LayerNorm whatever model.norm says: what shoal's headprep op computes.
            self.qnorm, self.knorm = (nn.LayerNorm(hd, eps=NORM_EPS, bias=False) for _ in range(2))

    def forward(self, x, cos, sin):
        B, T, _ = x.shape
        q = self.q(x).view(B, T, self.heads, self.head_dim)
        k = self.k(x).view(B, T, self.kv_heads, self.head_dim)
        v = self.v(x).view(B, T, self.kv_heads, self.head_dim).transpose(1, 2)
        if hasattr(self, "qnorm"):
            q, k = self.qnorm(q), self.knorm(k)
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        if self.rope != "none":
            q, k = rotate(q, cos, sin, self.rope), rotate(k, cos, sin, self.rope)
        # Key/value head j serves the query heads j * H/K .. (j + 1) * H/K - 1.
        group = self.heads // self.kv_heads
        if group > 1:
            k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        if self.fast:
            y = F.scaled_dot_product_attention(q, k.to(v.dtype), v, is_causal=True) if q.dtype == v.dtype else \
                F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True)
        else:
            scores = (q @ k.transpose(-1, -2)) / math.sqrt(self.head_dim)
            future = torch.ones(T, T, dtype=torch.bool, device=x.device).triu(1)
            y = scores.masked_fill(future, -math.inf).softmax(-1) @ v
        return self.o(y.transpose(1, 2).reshape(B, T, self.heads * self.head_dim))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, ffn, bias, self.act = c["model.d_model"], c["model.ffn"], c["model.bias"], c["model.act"]
        if self.act == "swiglu":
            self.gate, self.up = nn.Linear(d, ffn, bias=bias), nn.Linear(d, ffn, bias=bias)
        else:
            self.fc = nn.Linear(d, ffn, bias=bias)
        self.down = nn.Linear(ffn, d, bias=bias)

    def forward(self, x):
        if self.act == "swiglu":
            return self.down(F.silu(self.gate(x)) * self.up(x))
        return self.down(F.gelu(self.fc(x), approximate="tanh" if self.act == "gelu_tanh" else "none"))


class Block(nn.Module):
    def __init__(self, c, fast):
        super().__init__()
        self.norm1, self.attn = make_norm(c, c["model.d_model"], c["model.bias"]), Attention(c, fast)
        self.norm2, self.mlp = make_norm(c, c["model.d_model"], c["model.bias"]), MLP(c)

    def forward(self, x, cos, sin):
        x = x + self.attn(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class Embed(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.tok = nn.Parameter(torch.empty(c["model.vocab"], c["model.d_model"]))
        if c["model.pos"] == "learned":
            self.pos = nn.Parameter(torch.empty(c["model.seq"], c["model.d_model"]))

    def forward(self, tokens):
        x = F.embedding(tokens, self.tok)
        return x + self.pos[:tokens.shape[1]] if hasattr(self, "pos") else x


class Final(nn.Module):
    """Last norm and head. The head has no bias; a tied model has no head of its own."""

    def __init__(self, c):
        super().__init__()
        self.norm = make_norm(c, c["model.d_model"], c["model.bias"])
        if not c["model.tied"]:
            self.head = nn.Linear(c["model.d_model"], c["model.vocab"], bias=False)

    def forward(self, x, tied_weight=None):
        x = self.norm(x)
        return self.head(x) if tied_weight is None else F.linear(x, tied_weight)


class Model(nn.Module):
    """named_parameters() gives shoal's tensor names: embed.tok, block.0.attn.q.weight, final.head.weight, ..."""

    def __init__(self, c, fast=False):
        super().__init__()
        self.c = c
        self.embed, self.final = Embed(c), Final(c)
        self.block = nn.ModuleList(Block(c, fast) for _ in range(c["model.layers"]))
        cos, sin = rope_tables(c["model.seq"], c["model.head_dim"], c["model.rope_theta"])
        self.register_buffer("cos", cos.float(), persistent=False)
        self.register_buffer("sin", sin.float(), persistent=False)

    def double(self):
        """To fp64, with rotary tables that were never rounded to fp32."""
        super().double()
        self.cos, self.sin = rope_tables(self.c["model.seq"], self.c["model.head_dim"], self.c["model.rope_theta"])
        return self

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.block:
            x = block(x, self.cos, self.sin)
        return self.final(x, self.embed.tok if self.c["model.tied"] else None)


def token_losses(logits, targets, z_coeff):
    """Per token: cross-entropy + z_coeff * logsumexp^2, in fp32 or better."""
    logits = logits.flatten(0, 1)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    losses = F.cross_entropy(logits, targets.flatten(), reduction="none")
    return losses + z_coeff * torch.logsumexp(logits, -1).square() if z_coeff else losses


# ---------------------------------------------------------------------------------------------------------------- data


def sample_starts(ntokens, seq, samples):
    """First token of each global sample: windows of seq tokens, (ntokens - 1) // seq of them, used again in a circle."""
    windows = (ntokens - 1) // seq
    return [(g % windows) * seq for g in samples]


def batch(tokens, seq, samples):
    """Inputs and targets, (len(samples), T)."""
    rows = np.stack([tokens[s:s + seq + 1] for s in sample_starts(len(tokens), seq, samples)]).astype(np.int64)
    return torch.from_numpy(rows[:, :-1].copy()), torch.from_numpy(rows[:, 1:].copy())


# ----------------------------------------------------------------------------------------------- schedule and lr rule


def schedule_factor(kind, t, steps, warmup):
    """s_t for t = 1 .. steps (and beyond).

    All kinds: for t <= warmup, 1/100 + 99/100 * (t - 1)/warmup, so that the first step has 1/100 and step warmup + 1
    has 1. After that:
      constant  1
      cos       1/2 (1 + cos(pi x)),             x = min(1, (t - warmup - 1) / max(1, steps - warmup - 1))
      cos_inf   1/10 + 9/20 (1 + cos(pi x)),     the same x: 1/10 at t = steps and after it
      wsd       with D = max(1, floor(steps / 5)): 1 while t <= steps - D, then max(0, (steps - t) / D)
    """
    if t <= warmup:
        return 0.01 + 0.99 * (t - 1) / warmup
    if kind == "constant":
        return 1.0
    if kind == "wsd":
        decay = max(1, steps // 5)
        return 1.0 if t <= steps - decay else max(0.0, (steps - t) / decay)
    x = min(1.0, (t - warmup - 1) / max(1, steps - warmup - 1))
    wave = 0.5 * (1.0 + math.cos(math.pi * x))
    return {"cos": wave, "cos_inf": 0.1 + 0.9 * wave}[kind]


LR_RULES = {  # (a, b, e) of a (b + N)^e, for a batch of 32 and of 512 sequences of 2048 tokens
    32: {"adamw": (12.8, 1.67e4, -0.515), "adana": (22.5, 1.22e5, -0.618), "dana-mk4": (23.0, 1.46e4, -0.627),
         "dana-star": (223.0, 2.40e6, -0.724), "dana-star-mk4": (223.0, 2.40e6, -0.724)},
    512: {"adamw": (16.7, 1.58e7, -0.464), "adana": (85.3, 3.04e4, -0.654), "dana-mk4": (2470.0, 2.24e7, -0.826),
          "dana-star-mk4": (310.0, 1.40e4, -0.701)},
}


def lr_rule(name, n, sequences):
    """The rule for 512 sequences from 256 in the batch on, whatever their length. KeyError where none was published."""
    a, b, e = LR_RULES[512 if sequences >= 256 else 32][name]
    return a * (b + n) ** e


def decay_scale(steps):
    """ts, the time scale in steps of DANA's weight decay."""
    return max(1.0, steps / 10.0)


def wd_rule(name, lr, steps):
    """4/(lr steps) for AdamW. DANA's 4/ts is held to 1: below 40 steps the first factors would be negative."""
    return 4.0 / (lr * steps) if name == "adamw" else min(1.0, 4.0 / decay_scale(steps))


# ---------------------------------------------------------------------------------------------------------- optimizers


def decays(name):
    """Weight decay spares norms, biases and embeddings (token, position, and a tied head, which is the embedding)."""
    return not (name.endswith(".bias") or "norm" in name or name.startswith("embed."))


def adamw_(p, g, s, t, factor, wd, c):
    lr, b1, b2 = c["optim.lr"] * factor, c["optim.beta1"], c["optim.beta2"]
    p.mul_(1.0 - lr * wd)
    s["m"].mul_(b1).add_(g, alpha=1.0 - b1)
    s["v"].mul_(b2).addcmul_(g, g, value=1.0 - b2)
    denominator = s["v"].sqrt().div_(math.sqrt(1.0 - b2**t)).add_(c["optim.eps"])
    p.sub_(lr / (1.0 - b1**t) * s["m"] / denominator)


def dana_(p, g, s, t, factor, wd, c):
    """adana, dana-mk4, dana-star, dana-star-mk4. m, v and tau are updated first and the new values used throughout."""
    name, kappa = c["optim.name"], c["optim.kappa"]
    alpha, lr = c["optim.delta"] / (c["optim.delta"] + t), c["optim.lr"] * factor
    snr_clip = c["optim.snr_clip"] if name.endswith("-mk4") else math.inf
    m, v = s["m"], s["v"]
    m.add_(g - m, alpha=alpha)
    v.mul_(1.0 - alpha).addcmul_(g, g, value=alpha)
    D = v.sqrt() + c["optim.eps"]
    if "star" in name:
        tau = s["tau"]
        tau.add_(g.abs() / (g.abs() + D) - tau, alpha=alpha)
        half = tau.clamp(max=0.5)
        R = (half / (1.0 - half)).clamp(min=1.0 / (1.0 + t))
        time = (tau * t).clamp(min=1.0)
        n = R.sqrt() / D
        f = (time ** (1.0 - kappa) * m.abs() * n / R).clamp(max=snr_clip)
        drive = R * f + m.abs() * n
    else:
        n = 1.0 / D
        f = ((1.0 + t) ** (1.0 - kappa) * m.abs() * n).clamp(max=snr_clip)
        drive = f + m.abs() * n
    p.sub_(lr * (g * n + m.sign() * drive))
    p.mul_(1.0 - factor * wd / (1.0 + t / decay_scale(c["run.steps"])))


class Optimizer:
    """Holds the state of every parameter. step() clips, updates, and returns the norm before clipping."""

    def __init__(self, model, c):
        self.c, self.t, self.params = c, 0, dict(model.named_parameters())
        keys = {"adamw": "m v"}.get(c["optim.name"], "m v tau" if "star" in c["optim.name"] else "m v").split()
        self.state = {n: {k: torch.zeros_like(p) for k in keys} for n, p in self.params.items()}

    @torch.no_grad()
    def step(self):
        c = self.c
        self.t += 1
        norm = math.sqrt(sum(p.grad.double().square().sum().item() for p in self.params.values()))
        coef = min(1.0, c["optim.clip"] / (norm + 1e-6)) if c["optim.clip"] > 0 else 1.0
        factor = schedule_factor(c["optim.schedule"], self.t, c["run.steps"], c["optim.warmup"])
        update = adamw_ if c["optim.name"] == "adamw" else dana_
        for name, p in self.params.items():
            update(p, p.grad * coef, self.state[name], self.t, factor, c["optim.wd"] if decays(name) else 0.0, c)
            p.grad = None
        return norm


# ------------------------------------------------------------------------------------------------------------ training


def train(config, tokens, compute="fp32"):
    """Trains run.steps steps as one rank; returns a dictionary of what happened. compute: fp32, fp64 or bf16 (autocast)."""
    c = complete(config)
    model = init_(Model(c), c["run.seed"])
    if compute == "fp64":
        model.double()
    optimizer = Optimizer(model, c)
    seq, local, count = c["model.seq"], c["batch.local"], c["batch.global"]
    out = {"losses": [], "grad_norms": [], "first_grad_norms": {}}
    for step in range(c["run.steps"]):
        total = 0.0
        for first in range(step * count, (step + 1) * count, local):
            x, y = batch(tokens, seq, range(first, min(first + local, (step + 1) * count)))
            with torch.autocast("cpu", torch.bfloat16, enabled=compute == "bf16"):
                logits = model(x)
            losses = token_losses(logits, y, c["model.z_loss"])
            (losses.sum() / (count * seq)).backward()
            total += losses.detach().double().sum().item()
        out["losses"].append(total / (count * seq))
        if step == 0:
            out["first_grad_norms"] = {n: p.grad.double().norm().item() for n, p in model.named_parameters()}
        out["grad_norms"].append(optimizer.step())
    out["final_norms"] = {n: p.detach().double().norm().item() for n, p in model.named_parameters()}
    return out
