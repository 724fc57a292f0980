"""The benchmark's table, its JSON, and its plot in docs/."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import orjson

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_PLOT = Path(__file__).parents[1] / "docs" / "bench.png"


def write(figures: Sequence[Any], directory: Path, messages: int) -> None:
    """Print the table; write bench.json into `directory`, and the plot of docs/performance.md."""
    rates = {one.name: one.per_second for one in figures}
    bases = [next((rate for name, rate in rates.items() if name.startswith(f"({letter})")), None) for letter in "abd"]
    print(f"\n{'':27} {'messages/s':>11} {'/(a)':>7} {'/(b)':>6} {'/(d)':>6} {'CPU s/M':>8} {'peak MiB':>9} complete")
    for one in figures:
        ratios = [f"{one.per_second / base:.2f}" if base else "-" for base in bases]
        cpu = sum(one.cpu_seconds_per_million.values())
        row = f"{one.name:27} {one.per_second:>11,.0f} {ratios[0]:>7} {ratios[1]:>6} {ratios[2]:>6} {cpu:>8.1f}"
        print(f"{row} {one.peak_mib_together:>9.0f} {'yes' if one.complete else 'NO'}")
    print("\nCPU seconds per million messages, and peak memory (PSS, MiB), by process:")
    for one in figures:
        print(
            f"  {one.name}: "
            + ", ".join(f"{name} {value}" for name, value in sorted(one.cpu_seconds_per_million.items()))
        )
        print("    memory: " + ", ".join(f"{name} {value}" for name, value in sorted(one.peak_mib.items())))
    directory.mkdir(parents=True, exist_ok=True)
    content = {"messages": messages, "runs": [asdict(one) for one in figures]}
    (directory / "bench.json").write_bytes(orjson.dumps(content, option=orjson.OPT_INDENT_2))
    _plot(rates, _PLOT)
    print(f"\nwritten: {directory}/bench.json, {_PLOT}")


def _plot(rates: dict[str, float], file: Path) -> None:
    figure, axes = plt.subplots(figsize=(8, 3.2))
    bars = axes.barh(list(rates), list(rates.values()), color="#4477aa")
    axes.bar_label(bars, fmt="{:,.0f}", padding=4)
    axes.invert_yaxis()
    axes.set_xlabel("messages per second, Kafka to PostgreSQL, 2 cores with all servers")
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(file, dpi=150)
