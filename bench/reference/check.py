# SPDX-License-Identifier: BSD-3-Clause
"""Checks the reference itself: python bench/reference/check.py. The exit code is the verdict.

The optimizers are compared with two steps worked out by hand on one parameter (p = 1, g = 0.3 and then -0.4), AdamW
also with torch.optim, the generator with Random123's published vectors, the gradients of every model with finite
differences, and the two attention paths with each other.
"""

import math

import numpy as np
import torch

import enoki

STEPS, LR, WD = 20, 0.01, 0.05  # ts = 2
BASE = {"optim.name": "adamw", "optim.lr": LR, "optim.wd": WD, "run.steps": STEPS, "optim.schedule": "constant", "optim.warmup": 2,
        "optim.clip": 0.0, "optim.snr_clip": 0.9, "model.seq": 8, "batch.local": 2}


def by_hand(name):
    """The two steps with every intermediate on its own line. Factors are 0.01 and 0.505: warm-up of two steps."""
    if name == "adamw":
        p = 1.0 * (1 - 0.0001 * 0.05)
        p -= 0.0001 * 0.3 / (0.3 + 1e-8)                 # step 1: m/c1 = g, v/c2 = g^2
        m, v = 0.9 * 0.03 - 0.04, 0.999 * 0.00009 + 0.00016
        p *= 1 - 0.00505 * 0.05
        return p - 0.00505 * (m / 0.19) / (math.sqrt(v / 0.001999) + 1e-8)
    # alpha_1 = 8/9, alpha_2 = 8/10
    m1, v1 = 8 / 9 * 0.3, 8 / 9 * 0.09
    m2, v2 = 0.2 * m1 - 0.32, 0.2 * v1 + 0.8 * 0.16      # -0.26666.. and 0.144
    assert abs(m2 + 0.8 / 3) < 1e-15 and abs(v2 - 0.144) < 1e-15
    D1, D2 = math.sqrt(v1) + 1e-8, math.sqrt(v2) + 1e-8
    if "star" not in name:
        f1, f2 = 2**0.15 * m1 / D1, 3**0.15 * -m2 / D2   # 1.0461.., 0.8286..
        if name == "dana-mk4":
            f1 = 0.9
        p = 1.0 - 0.0001 * (0.3 / D1 + (f1 + m1 / D1))
        p *= 1 - 0.01 * 0.05 / 1.5
        p -= 0.00505 * (-0.4 / D2 - (f2 + -m2 / D2))
        return p * (1 - 0.505 * 0.05 / 2)
    tau1 = 8 / 9 * (0.3 / (0.3 + D1))                    # 0.4575..: below 1/2
    R1 = tau1 / (1 - tau1)                               # 0.8434..: above 1/2
    n1 = math.sqrt(R1) / D1
    f1 = 1.0 * m1 * n1 / R1                              # T = max(tau, 1) = 1; 1.0266..
    if name == "dana-star-mk4":
        f1 = 0.9
    p = 1.0 - 0.0001 * (0.3 * n1 + (R1 * f1 + m1 * n1))
    p *= 1 - 0.01 * 0.05 / 1.5
    tau2 = tau1 + 0.8 * (0.4 / (0.4 + D2) - tau1)        # 0.5020..: above 1/2, so R = 1 and T = 2 tau
    n2 = 1.0 / D2
    f2 = (2 * tau2)**0.15 * -m2 * n2                     # 0.7031..: below both clips
    p -= 0.00505 * (-0.4 * n2 - (f2 + -m2 * n2))
    return p * (1 - 0.505 * 0.05 / 2)


class One(torch.nn.Module):
    def __init__(self, n=1):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(n, dtype=torch.float64))


def check_optimizers():
    for name in ("adamw", "adana", "dana-mk4", "dana-star", "dana-star-mk4"):
        model = One()
        optimizer = enoki.Optimizer(model, enoki.complete({**BASE, "optim.name": name}))
        for g in (0.3, -0.4):
            model.w.grad = torch.tensor([g], dtype=torch.float64)
            optimizer.step()
        print(f"{name:14} {model.w.item():.15f}  by hand {by_hand(name):.15f}")
        assert abs(model.w.item() - by_hand(name)) < 1e-14, name


def check_adamw_and_clip():
    torch.manual_seed(1)
    mine, theirs = One(50), One(50)
    c = enoki.complete({**BASE, "optim.name": "adamw", "optim.warmup": 0, "optim.clip": 0.5})
    a, b = enoki.Optimizer(mine, c), torch.optim.AdamW(theirs.parameters(), lr=LR, weight_decay=WD)
    for _ in range(20):
        mine.w.grad = torch.randn(50, dtype=torch.float64)
        theirs.w.grad = mine.w.grad.clone()
        theirs_norm = torch.nn.utils.clip_grad_norm_([theirs.w], 0.5)
        norm = a.step()
        b.step()
        assert abs(norm - theirs_norm.item()) < 1e-12
    assert (mine.w - theirs.w).abs().max() < 1e-13


def check_generator():
    ones = np.full((1, 4), 0xFFFFFFFF, np.uint64)
    for counter, key, expect in (
            (np.zeros((1, 4), np.uint64), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
            (ones, (0xFFFFFFFF, 0xFFFFFFFF), "408f276d 41c83b0e a20bc7c6 6d5451fd")):
        assert " ".join(f"{w:08x}" for w in enoki.philox4x32(counter, key)[0]) == expect
    x = enoki.normal("x", 3, 0, 1 << 16, 2.0)
    assert abs(x.mean()) < 0.03 and abs(x.std() - 2) < 0.02
    assert (enoki.normal("x", 3, 1001, 50, 2.0) == x[1001:1051]).all()


MODELS = {
    "enoki": {},
    "llama": {"model.norm": "rmsnorm", "model.act": "swiglu", "model.kv_heads": 2, "model.rope": "half",
              "model.tied": True, "model.qk_norm": False, "model.ffn": 24},
    "gpt2": {"model.pos": "learned", "model.bias": True, "model.act": "gelu_tanh", "model.tied": True,
             "model.qk_norm": False, "model.rope": "none", "model.z_loss": 1e-2},
}


def check_models():
    torch.manual_seed(2)
    x, y = torch.randint(0, 11, (2, 8)), torch.randint(0, 11, (2, 8))
    for name, knobs in MODELS.items():
        c = enoki.complete({**BASE, "model.heads": 4, "model.head_dim": 4, "model.layers": 2, "model.vocab": 11, **knobs})
        model = enoki.init_(enoki.Model(c), 1).double()
        fast = enoki.Model(c, fast=True).double()
        fast.load_state_dict(model.state_dict())
        assert (model(x) - fast(x)).abs().max() < 1e-12, name
        future = x.clone()
        future[:, 5:] = (future[:, 5:] + 1) % 11
        assert (model(x)[:, :5] == model(future)[:, :5]).all(), name

        def loss():
            return enoki.token_losses(model(x), y, c["model.z_loss"]).mean()

        loss().backward()
        for tensor, p in model.named_parameters():
            direction = torch.randn_like(p)
            with torch.no_grad():
                p.add_(direction, alpha=1e-6)
                above = loss()
                p.sub_(direction, alpha=2e-6)
                slope = (above - loss()) / 2e-6
                p.add_(direction, alpha=1e-6)
            assert abs(slope - (p.grad * direction).sum()) < 1e-7, (name, tensor)


def check_schedules():
    f = enoki.schedule_factor
    for kind, last in (("constant", 1.0), ("cos", 0.0), ("cos_inf", 0.1), ("wsd", 0.0)):
        assert f(kind, 1, 100, 2) == 0.01 and f(kind, 3, 100, 2) == 1.0 and abs(f(kind, 100, 100, 2) - last) < 1e-15
        assert abs(f(kind, 500, 100, 2) - last) < 1e-15
    assert f("wsd", 80, 100, 2) == 1.0 and f("wsd", 81, 100, 2) == 0.95


if __name__ == "__main__":
    check_generator()
    check_schedules()
    check_optimizers()
    check_adamw_and_clip()
    check_models()
    print("ok")
