"""The benchmarks' tables, their JSON, and their plots in docs/."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import orjson

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_DOCS = Path(__file__).parents[1] / "docs"


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
    _plot(rates, _DOCS / "bench.png")
    print(f"\nwritten: {directory}/bench.json, {_DOCS}/bench.png")


def write_growth(name: str, steps: Sequence[Any], directory: Path) -> None:
    """Add the steps of one kind of ids to growth.json in `directory`, and plot all kinds that are in it."""
    file = directory / "growth.json"
    kinds = orjson.loads(file.read_bytes()) if file.exists() else {}
    kinds[name] = [step._asdict() for step in steps]
    file.write_bytes(orjson.dumps(kinds, option=orjson.OPT_INDENT_2))
    figure, axes = plt.subplots(1, 2, figsize=(8, 3))
    titles = {"per_second": "messages per second", "cpu_seconds_per_million": "PostgreSQL, CPU seconds a million"}
    for (field, title), place in zip(titles.items(), axes, strict=True):
        for kind, points in kinds.items():
            place.plot([one["millions"] for one in points], [one[field] for one in points], marker=".", label=kind)
        place.set_title(title, fontsize=10)
        place.set_xlabel("millions stored")
        place.set_ylim(bottom=0)
        place.spines[["top", "right"]].set_visible(False)
    axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(_DOCS / "growth.png", dpi=150)


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
