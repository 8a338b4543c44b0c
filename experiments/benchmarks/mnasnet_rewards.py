"""MnasNet's rewards on Once-for-all's space: where the evaluations of a search lie around the target latency.

    python experiments/benchmarks/mnasnet_rewards.py [--budget 2000] [--batch 1] [--agents NAME ...] [--figures FOLDER]

Searches by `experiments/mnasnet/ofa_25ms.yaml`, without a journal. A row has, as mean ± standard deviation over trials,
the highest predicted accuracy at no more than 25 ms and its latency, the latency of the highest reward, and of the last
quarter of the evaluations the quartiles of the latency and the share within a tenth of the target. First comes the
ablation of the space: the best of all 135 networks of one repeated cell, which are looked at one by one.
``--figures`` draws both ablations: where the first agent's late evaluations lie around the target, by reward, and
the best within the limit by evaluation beside the best of one repeated cell.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

RECIPE = Path(__file__).resolve().parents[1] / "mnasnet" / "ofa_25ms.yaml"
TARGET = 25.0


def main() -> None:
    """Print a row for each target and agent."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=1, help="evaluations that are asked for together")
    parser.add_argument("--agents", nargs="*")
    parser.add_argument("--targets", nargs="*")
    parser.add_argument("--figures", type=Path, help="a folder for both ablations as SVG and PDF")
    given = parser.parse_args()

    import torch

    from search.recipes.recipe import load_recipe
    from search.reports.line_chart import Line, line_chart
    from search.reports.svg import kept_in
    from search.spaces.ofa_mobilenetv3 import OFAMobileNetV3
    from search.studies.experiment import Experiment
    from search.tasks.ofa_predictor import OFAPredictorTask
    from search.tasks.reward import RewardTask

    repeated = OFAPredictorTask(OFAMobileNetV3(repeated=True))
    accuracy, latency = repeated.predict(torch.tensor(list(repeated.space.enumerate())))
    best = torch.where(latency <= TARGET, accuracy, -torch.inf).argmax()
    print(f"one repeated cell, all 135: {accuracy[best]:.2f}% at {latency[best]:.2f} ms")

    study, _ = load_recipe(RECIPE, {key: str(getattr(given, key)) for key in ("trials", "seed", "budget")})
    assert isinstance(study, Experiment)
    spread: list[Line] = []
    climbing: list[Line] = []
    bins = torch.arange(15.0, 35.0, 0.5, dtype=torch.float64)
    for target, task in study.targets.items():
        assert isinstance(task, RewardTask) and isinstance(task.task, OFAPredictorTask)
        for name in (given.agents or study.agent_names) if target in (given.targets or study.targets) else ():
            agent, begun = study.agent(name, task=task), time.process_time()
            agent.begin_task(study.budget, adapting=True)
            known = []
            for _ in range(study.budget // given.batch):
                archs = agent.ask(given.batch)
                quality, milliseconds = task.task.predict(archs.flatten(0, 1))
                rewards = quality * torch.stack([task.terms[0].weigh(each) for each in milliseconds])
                if task.objectives["latency_ms"].limit is not None:  # what misses it is below all that keeps it
                    rewards = torch.where(milliseconds <= TARGET, rewards, TARGET - milliseconds)
                known.append(torch.stack([quality, milliseconds, rewards]).view(3, *archs.shape[:2]))
                agent.tell(archs, known[-1][2])
            quality, milliseconds, rewards = torch.cat(known, dim=2)
            feasible = torch.where(milliseconds <= TARGET, quality, -torch.inf)
            top, place = feasible.max(1)
            late = milliseconds[:, -study.budget // 4 :]
            if name == (given.agents or study.agent_names)[0]:
                shares = [((late >= low) & (late < low + 0.5)).double().mean().item() for low in bins]
                spread.append(Line(target, (bins + 0.25).tolist(), shares, color=len(spread)))
            if target == "limit":
                best_yet = feasible.cummax(1).values
                by = range(given.batch, study.budget + 1, given.batch)
                band = torch.stack([best_yet.amin(0), best_yet.amax(0)], 1)[given.batch - 1 :: given.batch].tolist()
                means = best_yet.mean(0)[given.batch - 1 :: given.batch].tolist()
                climbing.append(Line(name, by, means, band, color=len(climbing)))
            chosen = milliseconds.gather(1, rewards.argmax(1, keepdim=True)).squeeze(1)
            quartiles = torch.quantile(late.flatten(), torch.tensor([0.25, 0.5, 0.75], dtype=late.dtype)).tolist()
            within = ((late / TARGET - 1).abs() <= 0.1).double().mean(1)
            print(
                f"{target}/{name}".ljust(20),
                f"best within {TARGET:g} ms {_spread(top)}% at {milliseconds.gather(1, place[:, None]).mean():.2f} ms",
                f"highest reward at {_spread(chosen)} ms",
                "late quartiles " + " ".join(f"{each:.1f}" for each in quartiles),
                f"within a tenth {within.mean():.2f}",
                f"{(time.process_time() - begun) / study.trials:.0f} s a trial",
                sep=" | ",
                flush=True,
            )
    if given.figures is None:
        return
    with kept_in(given.figures):
        late_label = "share of the last quarter of the evaluations, by half a millisecond"
        line_chart(spread, "latency, ms", late_label, begins={"T": TARGET})
        level = {"one repeated cell": float(accuracy[best])}
        low = float(accuracy[best]) - 1.5
        line_chart(climbing, "evaluations", f"best within {TARGET:g} ms, %", levels=level, y_range=(low, low + 4.0))


def _spread(values) -> str:  # type: ignore[no-untyped-def] # torch is imported late
    return f"{values.mean():.2f}" + (f" ± {values.std():.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
