"""What does the contrastive loss in strips cost, in memory and time, beside the plain one?

Each measurement is a process of its own: forward and backward pass of ``InfoNCE`` once, after a small one that is not
counted. Memory is the peak over what the process had before, inputs included (resident on the CPU, where it needs
Linux; allocated on an accelerator). The two take turns. Prints a table and, last, one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

MEMORY_LIMIT = 10.0  # times less
TIME_LIMIT = 1.3  # times the plain loss's seconds
KINDS = ("plain", "tiled")
AGREEMENT = 1e-4  # of loss and gradient norms in float32
WARM_UP = 256  # rows


def main() -> None:
    """Measure both kinds ``--rounds`` times."""
    arguments = parsed()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments)))
        return
    results: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    for number in range(arguments.rounds):
        for kind in KINDS[:: 1 if number % 2 else -1]:
            results[kind].append(in_new_process(kind, sys.argv[1:]))
    report(results, arguments)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("batch", 16_384), ("dim", 512), ("tile", 1024), ("rounds", 5), ("threads", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--measure", choices=KINDS, help="measure once, in this process")
    return parser.parse_args()


def in_new_process(kind: str, arguments: Sequence[str]) -> dict[str, float]:
    """What a fresh process measures."""
    command = [sys.executable, __file__, *arguments, "--measure", kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(kind: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds, extra bytes, the mean loss and the norms of its gradients."""
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    import torch
    from antmmf.device import choose_device, peak_memory
    from antmmf_tasks.losses.infonce import InfoNCE
    from torch.nn.functional import normalize

    torch.set_num_threads(arguments.threads)
    device = choose_device("auto")
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.batch, arguments.dim)
    video, text = (normalize(torch.randn(shape, generator=generator)).to(device).requires_grad_() for _ in range(2))
    owner = torch.arange(arguments.batch, device=device)
    loss = InfoNCE(learned=True, tile=arguments.tile if kind == "tiled" else None).to(device)

    def step(rows: int) -> float:
        term = loss(video[:rows], text[:rows], owner[:rows])
        mean = term.sum / term.count
        mean.backward()
        return float(mean.detach())  # waits for the device

    step(WARM_UP)
    loss.zero_grad()
    video.grad = text.grad = None
    before = memory_now(device.type)
    started, cpu_started = time.perf_counter(), time.process_time()
    value = step(arguments.batch)
    norms = [0.0 if of.grad is None else float(of.grad.norm()) for of in (video, text, *loss.parameters())]
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    result = {"seconds": seconds, "cpu_seconds": cpu_seconds, "extra": peak_memory(device) - before, "loss": value}
    return {**result, **{f"norm{number}": norm for number, norm in enumerate(norms)}}


def memory_now(device: str) -> int:
    """Bytes in use; peaks are counted from here."""
    import torch

    if device != "cpu":
        torch.accelerator.reset_peak_memory_stats()
        return int(torch.accelerator.memory_allocated())
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def report(results: dict[str, list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    """Print the table and the JSON line; the ratio of times is the median over pairs of neighbours."""
    columns = {name: {kind: [one[name] for one in results[kind]] for kind in KINDS} for name in results["plain"][0]}
    seconds, cpu_seconds, extra = (columns.pop(name) for name in ("seconds", "cpu_seconds", "extra"))
    times = [tiled / plain for plain, tiled in zip(seconds["plain"], seconds["tiled"], strict=True)]
    time_ratio = statistics.median(times)
    memory_ratio = statistics.median(extra["plain"]) / statistics.median(extra["tiled"])
    off = max(abs(column["tiled"][0] / column["plain"][0] - 1) for column in columns.values())
    print(
        f"batch {arguments.batch:,}, dim {arguments.dim}, tile {arguments.tile}, {arguments.threads} threads, "
        f"{arguments.rounds} rounds"
    )
    print(f"{'loss':<8} {'minimum':>9} {'median':>9} {'maximum':>9} {'of cores':>10} {'extra memory':>14}")
    for kind in KINDS:
        values, mib = seconds[kind], statistics.median(extra[kind]) / 2**20
        low, middle, high = min(values), statistics.median(values), max(values)
        cores = statistics.median(cpu_seconds[kind])
        print(f"{kind:<8} {low:>7.2f} s {middle:>7.2f} s {high:>7.2f} s {cores:>8.2f} s {mib:>10,.0f} MiB")
    print(f"time of tiled: {time_ratio:.3f} of plain ({min(times):.3f} to {max(times):.3f})")
    print(f"loss and gradient norms agree to {off:.1e}")
    result = {
        "benchmark": "contrastive_memory",
        "value": round(memory_ratio, 2),
        "limit": MEMORY_LIMIT,
        "time_value": round(time_ratio, 4),
        "time_limit": TIME_LIMIT,
        "time_spread": [round(min(times), 4), round(max(times), 4)],
        "time_of_minima": round(min(seconds["tiled"]) / min(seconds["plain"]), 4),
        "cpu_time_value": round(statistics.median(cpu_seconds["tiled"]) / statistics.median(cpu_seconds["plain"]), 4),
        "seconds_median": {kind: round(statistics.median(seconds[kind]), 3) for kind in KINDS},
        "extra_mib": {kind: round(statistics.median(extra[kind]) / 2**20, 1) for kind in KINDS},
        "agreement": off,
        "pass": memory_ratio >= MEMORY_LIMIT and time_ratio <= TIME_LIMIT and off <= AGREEMENT,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
