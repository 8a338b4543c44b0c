"""What CAS trades for what: latency, price and mean IoU of what was found with each weight of the latency.

    catchmark run experiments/cas/camvid_reduced.yaml
    python experiments/cas/front.py runs/camvid_reduced/latest --figures figures

Reads the run's journal and trains nothing; run it where the recipe ran, beside the file of measured operators. Prints
Markdown; random architectures that were trained alike stand below. ``--figures`` draws mean IoU over latency.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from search.attributes.operator_latency import OperatorLatency
from search.evaluation import Architecture
from search.recipes.recipe import load_recipe
from search.recipes.trust import granted
from search.reports.line_chart import Line, line_chart
from search.reports.svg import kept_in
from search.results.found_networks import found_and_drawn
from search.studies.supernet_study import SupernetStudy
from search.tasks.trained import TrainedTask


def main() -> None:
    """Read and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--lookup", default="cas_camvid_latency.json", help="the recipe's file of measured operators")
    parser.add_argument("--resolution", type=int, nargs=2, default=(72, 96), help="of the timed image, in pixels")
    parser.add_argument("--figures", type=Path, help="a folder for the front as SVG and PDF")
    given = parser.parse_args()
    study, _ = load_recipe(given.run / "config.yaml", trust=granted())
    assert isinstance(study, SupernetStudy) and isinstance(study.truth, TrainedTask)
    settings = {"resolution": list(given.resolution)}
    cost = OperatorLatency(study.space, given.lookup, study.truth.build_arguments(), settings)  # type: ignore[arg-type]
    by_method, alone = found_and_drawn(given.run, study)
    found = {
        name: [(each.architecture, each.evaluation.metrics["stand_alone"]) for each in records]
        for name, records in by_method.items()
    }
    drawn = [(each.architecture, each.evaluation.score) for each in alone]
    print("| | latency (ms) | mean IoU (%) |\n|---|---|---|")
    points = [_row(cost, name, networks) for name, networks in found.items()]
    rivals = [_row(cost, "random", [each]) for each in drawn]
    if given.figures is None:
        return
    with kept_in(given.figures):
        lines = [_line("found, by lambda", points, 0), _line("random", rivals, 1)]
        line_chart(lines, "latency, ms", "mean IoU (%)", points=True)


def _row(cost: OperatorLatency, name: str, networks: list[tuple[Architecture, float]]) -> tuple[float, float]:
    """Print the mean of what was found, and return it."""
    milliseconds = float(cost.values(torch.tensor([architecture for architecture, _ in networks])).mean())
    quality = sum(score for _, score in networks) / len(networks)
    print(f"| {name} | {milliseconds:.2f} | {quality:.2f} |")
    return milliseconds, quality


def _line(label: str, points: list[tuple[float, float]], color: int) -> Line:
    at, scores = zip(*sorted(set(points)), strict=True)
    return Line(label, at, scores, color=color)


if __name__ == "__main__":
    main()
