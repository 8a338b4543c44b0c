"""IRLAS' claim on NAS-Bench-201: are networks that were searched with a topology reward faster, at equal accuracy?

    python experiments/benchmarks/irlas_devices.py [--trials 100] [--targets NAME ...] [--figures FOLDER]

Searches by `experiments/irlas/nasbench201.yaml`, without a journal, and looks up what each trial found: the one
of the highest reward. A row has its mean accuracies on CIFAR-10, of validation after 12 epochs and of test after 200,
each with its standard error, and FLOPs; and the latency as a share of what the same agent found without a term in the
same trial: the geometric mean over 27 devices with a 95% interval over trials, and on how many devices it is below 1.
``--figures`` draws test accuracy over that share for the last agent, a line a term and a point a strength.
"""

from __future__ import annotations

import argparse
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[1] / "irlas" / "nasbench201.yaml"


def main() -> None:
    """Print a row for each agent and target."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="*", help="those of the recipe besides none; all without it")
    parser.add_argument("--figures", type=Path, help="a folder for the figure as SVG and PDF")
    given = parser.parse_args()

    import torch

    from search.recipes.recipe import load_recipe
    from search.reports.line_chart import Line, line_chart
    from search.reports.svg import kept_in
    from search.studies.experiment import Experiment
    from search.tables.latency import read_latency
    from search.tables.table import find_table, read_columns

    study, _ = load_recipe(RECIPE, {"trials": str(given.trials), "seed": str(given.seed)})
    assert isinstance(study, Experiment)
    space = study.space
    latency = read_latency("nasbench201_latency.npz", space)
    table = read_columns(
        find_table("nasbench201.npz"), ["cifar10_test_acc_200ep", "cifar10_valid_val_acc_12ep", "flops_m"]
    )
    order = space.code(torch.from_numpy(table.arch).long()).argsort()
    columns = {name: torch.from_numpy(each)[order].double() for name, each in table.columns.items()}
    print(f"{study.trials} trials, seed {study.seed}, {study.budget} evaluations, {len(latency.devices)} devices")
    plain: dict[str, torch.Tensor] = {}
    drawn: dict[str, dict[float, float]] = {}
    for target, task in study.targets.items():
        if given.targets is not None and target not in ("none", *given.targets):
            continue
        scores = task.all_scores()  # type: ignore[attr-defined]
        for name in study.agent_names:
            agent = study.agent(name, task=task)
            agent.begin_task(study.budget, adapting=True)
            asked = []
            for _ in range(study.budget):
                archs = agent.ask(1)
                asked.append(space.code(archs))
                agent.tell(archs, scores[asked[-1]])
            codes = torch.cat(asked, 1)
            found = codes.gather(1, scores[codes].argmax(1, keepdim=True)).squeeze(1)
            plain.setdefault(name, found)
            shares = (latency.milliseconds[found] / latency.milliseconds[plain[name]]).log()
            by_trial, by_device = shares.nanmean(1), shares.nanmean(0)
            accuracies = columns["cifar10_test_acc_200ep"][found]
            if name == study.agent_names[-1]:
                drawn.setdefault(target.split("_")[0], {})[float(by_trial.mean().exp())] = float(accuracies.mean())
            error = 1.96 * float(by_trial.std()) / len(by_trial) ** 0.5
            interval = [round(float((by_trial.mean() + sign * error).exp()), 3) for sign in (-1, 1)]
            row = [
                f"{target}/{name}".ljust(24),
                *(_mean(columns[each][found]) for each in ("cifar10_valid_val_acc_12ep", "cifar10_test_acc_200ep")),
                f"{columns['flops_m'][found].mean():.0f} M",
                f"latency x {float(by_trial.mean().exp()):.3f} {interval}",
                f"lower on {int((by_device < 0).sum())} of {len(by_device)}",
                f"{len(found.unique())} different",
            ]
            print(" | ".join(row), flush=True)
    if given.figures is None:
        return
    begin = drawn.pop("none")
    lines = []
    for color, (term, points) in enumerate(drawn.items()):
        at, accuracy = zip(*sorted({**points, **begin}.items()), strict=True)
        lines.append(Line(term, at, accuracy, color=color))
    with kept_in(given.figures):
        label, ends = "latency as a share of that without a term", (min(line.x[0] for line in lines) - 0.02, 1.0)
        line_chart(lines, label, "test accuracy on CIFAR-10 (%)", points=True, x_range=ends)


def _mean(values) -> str:  # type: ignore[no-untyped-def] # torch is imported late
    return f"{values.mean():.2f} ± {values.std() / len(values) ** 0.5:.2f}"


if __name__ == "__main__":
    main()
