#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Counts the instructions per element of the CUDA kernels' hot paths; needs nvcc and nvdisasm, but no GPU.

A kernel's hot path is found in the control-flow graph of its machine code: the blocks that go round with the widest
store to global memory where there is such a loop (the smallest one), or else all blocks on a way from the entry over that
store to an exit. The ways over a call are left out: those are the slow paths of divisions and roots, which no ordinary number
takes. What else branches counts in full, for a warp whose lanes disagree issues both sides; an inner loop counts once.

    bench/kernel_instructions.py [--root TREE] [--arch sm_90] [NAME ...]

prints, per kernel: instructions per element, and of those loads and stores, fp32, special function, conversion, integer and
the rest; registers; bytes spilled; and the most elements per second that --sms multiprocessors at --ghz could issue
and could serve from the special functions' units (128 and 16 lanes a clock) beside what --gbs of memory allow.
Compare two trees with --root.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile

# name: file, mangled name, elements per thread and pass, bytes per element
KERNELS = {
    "adamw": ("optim", r"optim_kernelIL8family_t0ELi4Et", 4, 30),
    "dana": ("optim", r"optim_kernelIL8family_t1ELi4Et", 4, 30),
    "dana-star": ("optim", r"optim_kernelIL8family_t2ELi4Et", 4, 38),
    "gelu": ("act", r"gelu_kernelItLi8ELb0ELb0E", 8, 4),
    "gelu-bwd": ("act", r"gelu_kernelItLi8ELb0ELb1E", 8, 6),
    "gelu-fp32": ("act", r"gelu_kernelIfLi4ELb0ELb0E", 4, 8),
    "gelu-fp32-bwd": ("act", r"gelu_kernelIfLi4ELb0ELb1E", 4, 12),
    "gelu-tanh": ("act", r"gelu_kernelItLi8ELb1ELb0E", 8, 4),
    "gelu-tanh-bwd": ("act", r"gelu_kernelItLi8ELb1ELb1E", 8, 6),
    "swiglu": ("act", r"swiglu_kernelItLi8E", 8, 6),
    "swiglu-bwd": ("act", r"swiglu_bwd_kernelItLi8E", 8, 10),
    "norm": ("norm", r"11norm_kernelIt", 32, 8),
    "norm-bwd": ("norm", r"15norm_bwd_kernelIt", 16, 8),
    "headprep": ("headprep", r"15headprep_kernelIt", 16, 4),
    "headprep-bwd": ("headprep", r"19headprep_bwd_kernelIt", 16, 6),
}

CLASSES = (
    ("memory", r"LDG|STG|LDS|STS|LDL|STL|LD|ST"),
    ("special", r"MUFU"),
    ("convert", r"F2F|F2FP|F2I|I2F|I2FP|PRMT"),
    ("fp32", r"FADD|FMUL|FFMA|FMNMX|FSEL|FSETP|FSET|FCHK|HFMA2|HADD2"),
    ("integer", r"IADD3|IMAD|IMNMX|ISETP|LEA|LOP3|SHF|SEL|MOV|IABS|VIADD|PLOP3|UIADD3|UMOV|ULDC|USHF|ULOP3|UIMAD"),
)


def fail(message):
    sys.exit("kernel_instructions: " + message)


def compile_kernel(root, name, arch, directory):
    """Machine code of one .cu file as nvdisasm prints it, and what ptxas says: {mangled name: (registers, spilled bytes)}."""
    cubin = os.path.join(directory, name + ".cubin")
    source = os.path.join(root, "kernels", "cuda", name + ".cu")
    command = ["nvcc", "-std=c++17", "-O3", "-arch=" + arch, "-cubin", "-Xptxas", "-v", "-I", root, source, "-o", cubin]
    compiled = subprocess.run(command, text=True, capture_output=True, check=False)
    if compiled.returncode != 0:
        fail("nvcc cannot compile " + source + "\n" + compiled.stderr)
    used, kernel, spilled = {}, None, 0
    for line in compiled.stderr.splitlines():
        if match := re.search(r"Compiling entry function '(\w+)'", line):
            kernel, spilled = match[1], 0
        elif match := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
            spilled += int(match[1]) + int(match[2])
        elif match := re.search(r"Used (\d+) registers", line):
            used[kernel] = (int(match[1]), spilled)
    return subprocess.run(["nvdisasm", "-c", cubin], text=True, capture_output=True, check=True).stdout, used


def functions(listing):
    """{mangled name: its lines} of a listing."""
    found, lines = {}, []
    for line in listing.splitlines():
        if match := re.match(r"//-+ \.text\.(\w+) -+", line):
            lines = found.setdefault(match[1], [])
        lines.append(line)
    return found


def blocks_of(lines):
    """Basic blocks: (instructions, indices of the blocks that follow). A call ends its block, and leads nowhere."""
    blocks, labels, ends = [[]], {}, []
    for line in lines:
        if match := re.match(r"(\.L_x_\d+|\$\S+):", line):
            if blocks[-1]:
                blocks.append([])
            labels[match[1]] = len(blocks) - 1
        elif match := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?) ?;", line):
            blocks[-1].append(match[1])
            if re.search(r"\b(BRA|EXIT|RET|CALL|BRX|JMP)\b", match[1]):
                blocks.append([])
    for i, block in enumerate(blocks):
        last, follow = block[-1] if block else "", [i + 1] if i + 1 < len(blocks) else []
        always = not last.startswith("@")
        if match := re.search(r"\bBRA\b.*`\((\S+)\)", last):
            # Between the guard and the target a branch may name one more predicate, which makes it conditional.
            always = always and re.search(r"BRA(\.\S+)* `", last) is not None
            follow = ([] if always else follow) + ([labels[match[1]]] if match[1] in labels else [])
        elif re.search(r"\b(CALL|RET|EXIT|BRX|JMP)\b", last) and (always or "EXIT" not in last):
            follow = []
        ends.append(follow)
    return list(zip(blocks, ends))


def reachable(edges, starts):
    seen, todo = set(starts), list(starts)
    while todo:
        for i in edges.get(todo.pop(), ()):
            if i not in seen:
                seen.add(i)
                todo.append(i)
    return seen


def width(instruction):
    """Bits that a store to global memory writes; 0: it is none."""
    match = re.search(r"\bSTG\.E(?:\.\w+)*?(?:\.(U8|U16|64|128))?(?:\.\w+)* ", instruction + " ")
    return {None: 32, "U8": 8, "U16": 16, "64": 64, "128": 128}[match[1]] if match else 0


def hot_path(lines):
    """(instructions of the hot path, whether it is a loop)."""
    blocks = blocks_of(lines)
    forth = {i: follow for i, (_, follow) in enumerate(blocks)}
    back = {}
    for i, follow in forth.items():
        for j in follow:
            back.setdefault(j, []).append(i)
    widest = max(width(x) for block, _ in blocks for x in block)
    stores = [i for i, (block, _) in enumerate(blocks) if any(width(x) == widest for x in block)]
    loops = []
    for store in stores:
        # Blocks that go round with the store: the inner loops of other stores are not among them, an outer loop would be.
        round_trip = reachable(forth, forth[store]) & reachable(back, back.get(store, []))
        if store in round_trip:
            loops.append(round_trip)
    if loops:
        chosen = max(loops, key=len) if len(set(map(len, loops))) == 1 else min(loops, key=len)
    else:
        chosen = {i for s in stores for i in reachable(forth, [s]) | reachable(back, [s])}
        chosen &= reachable(forth, [0])
        narrow = [i for i in chosen if i not in stores and any(width(x) for x in blocks[i][0])]
        tails = set(narrow) if narrow else set()
        chosen = {i for i in chosen if i not in tails}
    return [x for i in sorted(chosen) for x in blocks[i][0] if not x.startswith(("NOP", "BRA `(.L_x_end"))], bool(loops)


def classify(instructions):
    counts = {name: 0 for name, _ in CLASSES}
    counts["other"] = 0
    for instruction in instructions:
        opcode = re.sub(r"^@!?U?P\w+\s+", "", instruction).split(" ")[0].split(".")[0]
        name = next((n for n, pattern in CLASSES if re.fullmatch(pattern, opcode)), "other")
        counts[name] += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of " + ", ".join(KERNELS))
    parser.add_argument("--root", default=os.path.dirname(os.path.dirname(os.path.abspath(__file__))), help="a source tree")
    parser.add_argument("--arch", default="sm_90")
    parser.add_argument("--sms", type=float, default=132, help="multiprocessors (default: %(default)s)")
    parser.add_argument("--ghz", type=float, default=1.75, help="their clock (default: %(default)s)")
    parser.add_argument("--gbs", type=float, default=4100, help="memory, GB/s (default: %(default)s, an H200's)")
    parser.add_argument("--list", action="store_true", help="print the hot path itself too")
    arguments = parser.parse_args()
    names = arguments.names or list(KERNELS)
    for name in names:
        if name not in KERNELS:
            fail(f"no kernel {name}; there are {', '.join(KERNELS)}")
    for tool in ("nvcc", "nvdisasm"):
        if shutil.which(tool) is None:
            fail(f"{tool} is not in PATH; it comes with the CUDA toolkit")
    classes = [name for name, _ in CLASSES] + ["other"]
    columns = "".join(f"{c:>9}" for c in ["all"] + classes)
    print(f"{'per element':14}{columns}{'regs':>6}{'spill':>6}   Gelem/s: {'issue':>6} {'special':>7} {'memory':>6}")
    with tempfile.TemporaryDirectory() as directory:
        compiled = {}
        for name in names:
            source, pattern, elements, nbytes = KERNELS[name]
            if source not in compiled:
                listing, used = compile_kernel(arguments.root, source, arguments.arch, directory)
                compiled[source] = functions(listing), used
            found, used = compiled[source]
            kernel = next((k for k in found if re.search(pattern, k)), None)
            if kernel is None:
                fail(f"{source}.cu has no kernel {pattern}")
            path, _ = hot_path(found[kernel])
            counts = classify(path)
            per = [len(path) / elements] + [counts[c] / elements for c in classes]
            clocks = arguments.sms * arguments.ghz
            special = clocks * 16 / per[2] if per[2] else float("inf")
            print(f"{name:14}" + "".join(f"{x:9.2f}" for x in per) + f"{used[kernel][0]:6}{used[kernel][1]:6}"
                  f"            {clocks * 128 / per[0]:6.0f} {special:7.0f} {arguments.gbs / nbytes:6.0f}")
            if arguments.list:
                print("\n".join("    " + x for x in path))


if __name__ == "__main__":
    main()
