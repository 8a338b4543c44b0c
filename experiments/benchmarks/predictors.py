"""How close agents come to the best network of a table, and how long a search takes them.

    python experiments/benchmarks/predictors.py [--recipe FILE] [--agents NAME ...] [--figures FOLDER] [--KEY VALUE ...]

Agents, target and attributes are the recipe's (`experiments/predictors/nasbench201.yaml` without one), whose table must
have the whole space. Further options replace its values, as of ``catchmark run``. A row has the mean regret, the best
of the table less the best found, with its standard error over trials and the share of the trials that found the best;
and the processor's seconds that the agent's own work took, for one trial of those that advance together. ``--figures``
draws the mean regret by evaluation, with the interval of two standard errors.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

AFTER = (20, 30, 50, 75, 100, 200)
"""Evaluations after which a search is looked at."""
RECIPE = Path(__file__).resolve().parents[1] / "predictors" / "nasbench201.yaml"


def main() -> None:
    """Print a row for each agent and target."""
    parser = argparse.ArgumentParser(
        description=__doc__, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--agents", nargs="*", help="those of the recipe to run; all without it")
    parser.add_argument("--figures", type=Path, help="a folder for curves as SVG and PDF")
    chosen, rest = parser.parse_known_args()
    overrides = {key.removeprefix("--"): value for key, value in zip(rest[::2], rest[1::2], strict=True)}

    import torch

    from search.recipes.recipe import load_recipe
    from search.reports.line_chart import line_chart, mean_line
    from search.reports.svg import kept_in
    from search.studies.experiment import Experiment

    study, _ = load_recipe(chosen.recipe, overrides)
    assert isinstance(study, Experiment)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads; {study.trials} trials, seed {study.seed}")
    for target, task in study.targets.items():
        scores = task.all_scores()  # type: ignore[attr-defined]
        if scores is None:
            raise SystemExit(f"{target}: the table lacks architectures of the space, so there is no regret")
        everything = torch.tensor(list(study.space.enumerate()))
        of_code = torch.zeros(int(study.space.code(everything).max()) + 1, dtype=torch.float64)
        of_code[study.space.code(everything)] = scores
        best = scores[~scores.isnan()].max()
        lines, skipped = [], min(4, study.budget - 1)  # the first regrets are far above all that is to be seen
        for name in chosen.agents or study.agent_names:
            agent = study.agent(name, task=task)
            begun = time.process_time()
            agent.begin_task(study.budget, adapting=True)
            found = []
            for _ in range(study.budget):
                archs = agent.ask(1)
                found.append(of_code[study.space.code(archs)])
                agent.tell(archs, found[-1])
            seconds = (time.process_time() - begun) / study.trials
            regret = best - torch.cat(found, 1).nan_to_num(-torch.inf).cummax(1).values
            row = [f"{target}/{name}".ljust(28)]
            for count in (each for each in AFTER if each <= study.budget):
                there = regret[:, count - 1]
                error = float(there.std()) / len(there) ** 0.5
                row.append(f"{count}: {there.mean():.3f} ± {error:.3f} ({(there < 1e-6).double().mean():.2f})")
            print(" | ".join([*row, f"{seconds:.2f} s"]), flush=True)
            evaluations = range(skipped + 1, study.budget + 1)
            lines.append(mean_line(name, evaluations, regret[:, skipped:].numpy(), len(lines)))
        if chosen.figures is None:
            continue
        with kept_in(chosen.figures):
            line_chart(lines, "evaluations", f"regret on {target}, points of accuracy", y_range=(0.0, max(lines[0].y)))


if __name__ == "__main__":
    main()
