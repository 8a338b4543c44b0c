"""What a run found, in plain words that its numbers bear out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from search.reports.page import decimals_for, duration, number, p_equals, share
from search.statistics.clusters import clustered_rank_test, described_trials, independent_values
from search.statistics.significance import FEWEST_TRIALS, SIGNIFICANT, holm


def verdict(
    target: str,
    score_name: str,
    agents: Mapping[str, Mapping[str, Any]],
    finals: Mapping[str, np.ndarray],
    unfinished: Sequence[str] = (),
    budget_seconds: float | None = None,
) -> str:
    """What was found on a target, in plain words that the numbers bear out.

    Args:
        target: its name.
        score_name: what the score is.
        agents: what `search.results.search.summarise_search` says, by agent.
        finals: each trial's best score by agent: float64 ``[trials]``, NaN where none succeeded.
        unfinished: agents that have evaluations left to do.
        budget_seconds: a trial's limit of time, if it has one.
    """
    scores = {agent: finals[agent][~np.isnan(finals[agent])] for agent in agents}
    ranked = sorted((agent for agent in agents if len(scores[agent])), key=lambda agent: -scores[agent].mean())
    if not ranked:
        return f"On {target}, no evaluation has succeeded so far: there is nothing to compare."
    decimals = decimals_for(shown_values(agents))
    unit = "%" if score_name.endswith("(%)") else ""
    trials = max(len(finals[agent]) for agent in agents)
    found: list[str] = []
    for agent in ranked:
        interval, n = agents[agent]["best_score_interval"], len(scores[agent])
        words = f"{agent} {'' if found else 'found '}{number(scores[agent].mean(), decimals)}{'' if found else unit}"
        shared = agents[agent].get("meta_trainings")
        details = [] if interval is None or (found and shared is None) else [f"mean of {described_trials(n, shared)}"]
        if n < trials:
            details = [f"in {n} of {trials} trials, the others found nothing"]
        if interval is not None:
            low, high = (number(end, decimals) for end in interval)
            details.append(f"{'' if found else '95% interval '}{low} to {high}")
        found.append(f"{words} ({', '.join(details)})" if details else words)
    spent = _spent([agents[agent] for agent in ranked], " a trial" if trials > 1 else "", budget_seconds)
    sentences = [f"{spent} on {target}, {listed(found)}."]
    if nothing := [agent for agent in agents if agent not in ranked]:
        sentences.append(f"{listed(nothing)} found nothing: every evaluation failed.")
    if unfinished:
        sentences.append(
            f"{listed(list(unfinished))} {'has' if len(unfinished) == 1 else 'have'} not finished here, so the agents "
            "can't be compared yet."
        )
    elif len(ranked) > 1:
        sentences.append(_comparison(ranked, finals, agents, trials))
    elif trials == 1:
        sentences.append("With a single trial no interval can be given: another seed may find more, or less.")
    if (best := agents[ranked[0]].get("best_possible")) is not None:
        shares = {agent: agents[agent]["found_best"] for agent in ranked}
        most = max(shares.values())
        finders = listed([agent for agent in ranked if shares[agent] == most])
        if most == 0:
            outcome = "no trial found it"
        elif trials == 1:
            outcome = f"{finders} found it"
        else:
            often = "" if len(ranked) == 1 else " most often,"
            outcome = f"{finders} found it{often} in {share(most)} of the trials"
        sentences.append(f"The best architecture of the whole space has {number(best, decimals)}{unit}: {outcome}.")
    return " ".join(sentences)


def _spent(agents: Sequence[Mapping[str, Any]], each: str, budget_seconds: float | None) -> str:
    """What the agents had to find it, for instance ``After 50 evaluations a trial``."""
    if budget_seconds is None:
        counts = sorted({agent["evaluations"] for agent in agents})
        return f"After {_range([f'{count:,}' for count in counts])} evaluation{'' if counts == [1] else 's'}{each}"
    means = sorted(agent.get("evaluations_mean", agent["evaluations"]) for agent in agents)
    words = list(dict.fromkeys(f"{mean:,.1f}".removesuffix(".0") for mean in means))
    average = " on average" if each else ""
    plural = "evaluation" if words == ["1"] else "evaluations"
    return f"In {duration(budget_seconds)} of evaluating{each}, enough for {_range(words)} {plural}{average},"


def _range(ascending: Sequence[str]) -> str:
    return ascending[0] if len(ascending) == 1 else f"{ascending[0]} to {ascending[-1]}"


def _comparison(
    ranked: Sequence[str], finals: Mapping[str, np.ndarray], agents: Mapping[str, Mapping[str, Any]], trials: int
) -> str:
    """Whether the first of ``ranked`` is shown to be ahead of the others."""
    leader, others = ranked[0], list(ranked[1:])
    shared = {agent: agents[agent].get("meta_trainings") for agent in ranked}
    # What a test has to go by: trials, or meta-trainings.
    fewest = min(len(independent_values(finals[agent], shared[agent])) for agent in ranked)
    units = "trials" if not any(shared.values()) else "meta-trainings"
    if fewest == 1 and trials > 1:
        return "An agent of which a single trial found anything can't be compared with others."
    if fewest == 1:
        return (
            "With a single trial no interval can be given, and another seed may turn the order round: this does not "
            "show that one agent is better than another."
        )
    if fewest < FEWEST_TRIALS:
        ends = {agent: agents[agent]["best_score_interval"] for agent in ranked}
        apart = [agent for agent in others if ends[agent][1] < ends[leader][0]]
        near = [agent for agent in others if agent not in apart]
        words = []
        if near:
            overlap = "the intervals overlap" if len(others) == 1 else f"its interval overlaps that of {listed(near)}"
            words.append(f"{overlap[0].upper()}{overlap[1:]}, so {fewest} {units} don't show a difference.")
            if len(others) > 1:
                words[-1] = f"{leader} has the highest mean, but {overlap}: {fewest} {units} show no difference there."
        if apart:
            words.append(
                f"The interval of {leader} lies above that of {listed(apart)}, which points to a difference; "
                f"{fewest} {units} are too few for a rank test to confirm it."
            )
        return " ".join(words)
    # The leader was picked after the fact, so the correction counts every pair, not only the leader's.
    pairs = [(a, b) for k, a in enumerate(ranked) for b in ranked[k + 1 :]]
    tests = [clustered_rank_test(finals[a], finals[b], (shared[a], shared[b])) for a, b in pairs]
    p_values = dict(zip(pairs, holm(tests), strict=True))
    against = {agent: p_values[leader, agent] for agent in others}
    behind = [agent for agent, p in against.items() if p is not None and p < SIGNIFICANT]
    level = [agent for agent in others if agent not in behind]
    test = "Mann-Whitney U test" if len(pairs) == 1 else f"Mann-Whitney U tests, corrected for {len(pairs)} comparisons"
    if any(shared.values()):
        test += " over means of the trials of a meta-training"
    words = []
    if behind:
        largest = p_equals(max(p for agent in behind if (p := against[agent]) is not None))
        words.append(f"{leader} is ahead of {listed(behind)} ({test}: p {largest}).")
    if level:
        smallest = p_equals(min(p for agent in level if (p := against[agent]) is not None))
        it = leader if not behind else "it"
        source = f"{test}: " if not behind else ""
        words.append(
            f"Between {it} and {listed(level)} the trials don't show a difference ({source}p {smallest}"
            f"{' or more' if len(level) > 1 else ''})."
        )
    return " ".join(words)


def listed(words: Sequence[str]) -> str:
    """``a, b and c``."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def shown_values(agents: Mapping[str, Mapping[str, Any]]) -> Iterable[float | None]:
    """The scores that words and tables about these agents show; None where there is none."""
    for entry in agents.values():
        yield entry["best_score_mean"]
        yield from entry["best_score_interval"] or ()
