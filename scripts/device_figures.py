#!/usr/bin/env python3
"""Prints the figures that have a goal as a Markdown table, from what device_check.sh measured.

    device_figures.py RESULTS      with kernels.csv, step_graph.txt, collectives/bench.json and
                                   nccl_tests.txt, each as far as it is there

A figure that nothing there tells is "not yet run".
"""

import csv
import json
import re
import statistics
import sys
from collections import defaultdict
from pathlib import Path

ENGINE, OWN, PORTABLE = "cuBLASLt", "gemm tma bf16", "gemm bf16"
NOT_YET = "not yet run"


def kernel_rates(path):
    """Median rate of each contender at each work, as the inverse of its median time."""
    times = defaultdict(list)
    if path.is_file():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                times[row["work"], row["contender"]].append(float(row["seconds"]))
    return {key: 1 / statistics.median(found) for key, found in times.items()}


def over(rates, works, contender, reference):
    """The worst and the median of a contender's rate over the reference's, over works."""
    found = [
        rates[work, contender] / rates[work, reference]
        for work in works
        if (work, contender) in rates and (work, reference) in rates
    ]
    return (min(found), statistics.median(found)) if found else None


def step_over_graph(path):
    text = path.read_text() if path.is_file() else ""
    found = re.search(r"^wall: .*step over graph ([0-9.]+)", text, re.MULTILINE)
    return float(found.group(1)) if found else None


def all_reduce_over_nccl_tests(bench, peer):
    """Our times of calls back to back over those of nccl-tests at equal sizes: the one that is
    furthest from theirs, and the median."""
    if not (bench.is_file() and peer.is_file()):
        return None
    theirs = {}
    for line in peer.read_text().splitlines():
        words = line.split()
        if len(words) > 5 and words[0].isdigit():
            # size, count, type, reduction, root, time in us out of place.
            theirs[int(words[0])] = float(words[5]) * 1e-6
    ratios = [
        point["back_to_back_s"] / theirs[point["bytes"]]
        for point in json.loads(bench.read_text())["collectives"]
        if point["collective"] == "all_reduce" and point["placement"] == "out_of_place"
        and point["bytes"] in theirs
    ]
    if not ratios:
        return None
    return max(ratios, key=lambda ratio: abs(ratio - 1)), statistics.median(ratios)


def figures(folder):
    rates = kernel_rates(folder / "kernels.csv")
    layers = {
        name: sorted({work for work, _ in rates if work.startswith(name)})
        for name in ("llama3-8b", "llama3-70b")
    }
    square = ["8192 cubed"]
    shapes = square + layers["llama3-8b"] + layers["llama3-70b"]
    at_least = lambda goal: (f"at least {goal}", lambda value: value >= goal)
    at_most = lambda goal: (f"at most {goal}", lambda value: value <= goal)
    within = ("within 0.02 of 1", lambda value: abs(value - 1) <= 0.02)
    own = lambda works: over(rates, works, OWN, ENGINE)
    yield "own GEMM over cuBLASLt, bf16, 8192 cubed", at_least(0.8), own(square)
    for name in layers:
        label = f"own GEMM over cuBLASLt, layers of {name}, worst (median)"
        yield label, at_least(0.8), own(layers[name])
    label = "portable GEMM over cuBLASLt, all of these, worst (median)"
    yield label, at_least(0.5), over(rates, shapes, PORTABLE, ENGINE)
    copies = over(rates, ["copy"], "stream kernel", "driver")
    yield "stream kernel over the driver's copy", at_least(0.95), copies
    graph = step_over_graph(folder / "step_graph.txt")
    yield "step of a run over the same step as one CUDA graph", at_most(1.02), graph
    peer = folder / "nccl_tests.txt"
    reduced = all_reduce_over_nccl_tests(folder / "collectives" / "bench.json", peer)
    label = "all_reduce over nccl-tests' time, two GPUs or more, worst (median)"
    yield label, within, reduced


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    print("| figure | goal | value | outcome |")
    print("|---|---|---|---|")
    for label, (goal, reaches), value in figures(Path(sys.argv[1])):
        if value is None:
            print(f"| {label} | {goal} | | {NOT_YET} |")
            continue
        worst, middle = value if isinstance(value, tuple) else (value, None)
        several = middle is not None and "worst" in label
        shown = f"{worst:.3f} ({middle:.3f})" if several else f"{worst:.3f}"
        print(f"| {label} | {goal} | {shown} | {'pass' if reaches(worst) else 'miss'} |")


if __name__ == "__main__":
    main()
