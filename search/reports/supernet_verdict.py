"""What a study of supernets found, in plain words that its numbers bear out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search.reports.page import decimals_for, number, p_equals
from search.reports.verdict import listed
from search.statistics.intervals import mean_interval
from search.statistics.significance import FEWEST_PAIRS, SIGNIFICANT, holm, paired_test

if TYPE_CHECKING:
    from search.studies.supernet_study import SupernetStudy

DECIMALS = 3


def verdict(summary: Mapping[str, Any], pairs: Sequence[tuple[str, str]], measured: int) -> list[str]:
    """What a study found, in paragraphs of plain words that the numbers bear out.

    All methods are measured on the same architectures in each trial, so they are compared trial by trial.

    Args:
        summary: of `search.results.supernet_study.summarise_study`.
        pairs: (method, the same method with landmarks).
        measured: architectures whose ranking is measured.
    """
    methods, trials = summary["methods"], summary["trials"]
    means = {name: mean for name, entry in methods.items() if (mean := entry["s_kdt"]["mean"]) is not None}
    if not means:
        if any(entry["trials"] for entry in methods.values()):
            return ["S-KdT can't be computed: all stand-alone results fall into one bin."]
        return ["No supernet has been trained to the end yet: there is nothing to compare."]
    ranked = sorted(means, key=lambda name: -means[name])
    order = _order(methods, ranked, measured)
    if waiting := [name for name, entry in methods.items() if entry["trials"] < trials]:
        them = f"{listed(waiting)} {'has' if len(waiting) == 1 else 'have'}"
        return [f"{order} {them} not finished, so the methods can't be compared yet."]
    values = {name: methods[name]["s_kdt"]["trials"] for name in ranked}
    paragraphs = [f"{order} {_lead(ranked, values)}".strip()]
    if effects := _effects([pair for pair in pairs if set(pair) <= values.keys()], values):
        paragraphs.append(effects)
    paragraphs.append(_against_references(summary, ranked))
    paragraphs.append(_returned(methods))
    paragraphs.append(_truth_agreement(summary))
    if trials == 1:
        paragraphs.append("With a single trial nothing can be tested: another seed may turn any order here round.")
    elif trials < FEWEST_PAIRS:
        paragraphs.append(
            f"With {trials} trials nothing can be tested, a comparison trial by trial takes at least {FEWEST_PAIRS}: "
            "any difference here may be luck."
        )
    return [each for each in paragraphs if each]


def landmark_pairs(study: SupernetStudy) -> list[tuple[str, str]]:
    """Methods that differ in nothing but landmarks: (without, with)."""
    kinship = {name: study.kinship(name) for name in study.methods}
    plain: dict[str, str] = {}
    for name, method in study.methods.items():
        if method.landmarks is None:
            plain.setdefault(kinship[name], name)
    return [
        (plain[kinship[name]], name)
        for name, method in study.methods.items()
        if method.landmarks is not None and kinship[name] in plain
    ]


def _order(methods: Mapping[str, Any], ranked: Sequence[str], measured: int) -> str:
    epochs = sorted({methods[name]["rounds"][-1]["epoch"] for name in ranked})
    span = " to ".join(f"{epoch:,}" for epoch in dict.fromkeys((epochs[0], epochs[-1])))
    best = methods[ranked[0]]["s_kdt"]
    first = [name for name in ranked if methods[name]["s_kdt"]["mean"] == best["mean"]]
    one = len(first) == 1
    rest = listed([f"{name} ({short(methods[name]['s_kdt']['mean'])})" for name in ranked[len(first) :]] or [""])
    details = ""
    if best["interval"] is not None:
        details = f" (mean of {len(best['trials'])} trials, 95% interval {ends_in_words(best['interval'])})"
    return (
        f"After {span} epoch{'' if epochs == [1] else 's'}, {listed(first)} order{'s' if one else ''} {measured:,} "
        f"architectures {'most ' if rest else ''}like stand-alone training does with an S-KdT of "
        f"{short(best['mean'])}{details}{', before ' if rest else ''}{rest}."
        f"{' That is no better than an order drawn by lot.' if best['mean'] <= 0 else ''}"
    )


def _lead(ranked: Sequence[str], values: Mapping[str, Sequence[float]]) -> str:
    """Whether the first one is shown to be ahead; empty where nothing can be tested."""
    # The leader was picked after the fact, so the correction counts every pair, not only the leader's.
    pairs = [(a, b) for k, a in enumerate(ranked) for b in ranked[k + 1 :]]
    tests = dict(zip(pairs, holm([_compared(values[a], values[b])[-1] for a, b in pairs]), strict=True))
    known = {b: p for (a, b), p in tests.items() if a == ranked[0] and p is not None}
    ahead = [name for name, p in known.items() if p < SIGNIFICANT]
    level = [name for name in known if name not in ahead]
    words = []
    if ahead:
        worst = p_equals(max(known[name] for name in ahead))
        words.append(
            f"{ranked[0]} is ahead of {listed(ahead)} by more than luck (paired randomisation test: p {worst})."
        )
    if level:
        best = p_equals(min(known[name] for name in level))
        if _cannot_tell(len(values[ranked[0]]), len(pairs)):
            words.append(
                f"In {len(pairs)} comparisons at once so few trials can show no difference (p {best} at best)."
            )
        else:
            words.append(f"Between {ranked[0]} and {listed(level)} the trials show no difference (p {best}).")
    return " ".join(words)


def _cannot_tell(trials: int, comparisons: int) -> bool:
    """Whether even differences of one sign in every trial are not significant, corrected for so many comparisons."""
    return 2 / 2**trials * comparisons >= SIGNIFICANT


def _effects(pairs: Sequence[tuple[str, str]], values: Mapping[str, Sequence[float]]) -> str:
    """What landmarks change, in a sentence for each pair."""
    found = [_compared(values[more], values[plain]) for plain, more in pairs]
    words = []
    for (plain, more), (mean, details, _), p in zip(pairs, found, holm([each[-1] for each in found]), strict=True):
        change = "raise" if mean > 0 else "lower"
        by = f"by {short(abs(mean))} ({more}{details}){_shown(p)}"
        if p is not None and p >= SIGNIFICANT and _cannot_tell(len(values[plain]), len(found)):
            by += f", and so few trials can show nothing in {len(found)} comparisons"
        words.append(f"Landmarks {change} the S-KdT of {plain} {by}." if mean else f"Landmarks leave {plain} as it is.")
    return " ".join(words)


def _more_landmarks(summary: Mapping[str, Any]) -> str:
    """Where methods have different landmarks, that the models have had all of them."""
    together = max(summary["landmarks_of_trials"], default=0)
    most = max((count for method in summary["methods"].values() for count in method["landmarks"]), default=0)
    if together <= most or not most:
        return ""
    return (
        f"Those on the landmarks are fitted to all {together:,} of a trial, where no method has more than {most:,}: "
        "the table has beside each method what the process makes of its own."
    )


def _against_references(summary: Mapping[str, Any], ranked: Sequence[str]) -> str:
    """Which supernets are above all rankings that need none, by the score, by the loss, and with the process."""
    methods, references = summary["methods"], summary["without_supernet"]
    means = {name: entry["s_kdt"]["mean"] for name, entry in references.items() if entry["s_kdt"]["mean"] is not None}
    if not means:
        return ""
    order = sorted(means, key=lambda name: -means[name])
    words = [f"Rankings without a supernet reach {listed([f'{short(means[name])} ({name})' for name in order])}."]
    if more := _more_landmarks(summary):
        words.append(more)
    best = references[order[0]]["s_kdt"]["trials"]
    for key, opening in (
        ("s_kdt", ""),
        ("s_kdt_by_loss", "By the loss of the shared weights"),
        ("s_kdt_with_process", "By that loss and the Gaussian process on the landmarks together"),
    ):
        found = {name: _compared(methods[name][key]["trials"], best) for name in ranked if _known(methods[name], key)}
        if not found:
            continue
        corrected = dict(zip(found, holm([each[-1] for each in found.values()]), strict=True))
        above = [f"{n} (by {short(f[0])}{f[1]}){_shown(corrected[n])}" for n, f in found.items() if f[0] > 0]
        below = [name for name, each in found.items() if each[0] <= 0]
        if above:
            rest = f"; {listed(below)} {'is' if len(below) == 1 else 'are'} not" if below else ""
            said = f"above the best of them {'is' if len(above) == 1 else 'are'} {listed(above)}{rest}."
        else:
            said = "no supernet is." if opening else "no supernet is above the best of them."
        words.append(f"{opening}, {said}" if opening else said[0].upper() + said[1:])
    return " ".join(words)


def _truth_agreement(summary: Mapping[str, Any]) -> str:
    """How far the truth agrees with itself, where that is known."""
    agreement = summary["truth_agreement"]
    if agreement["mean"] is None:
        return ""
    trials = agreement["trials"]
    ends = f" ({ends_in_words([min(trials), max(trials)])} in {len(trials)} trials)" if len(trials) > 1 else ""
    return (
        "Trained once more with another seed, the same architectures stand in an order whose Kendall's tau-b with the "
        f"first is {short(agreement['mean'])}{ends}: the rest is luck. The truth here is the mean of the seeds, which "
        "is steadier than either."
    )


def _known(method: Mapping[str, Any], key: str) -> bool:
    """Whether a method was ranked in this way, in any trial."""
    return key in method and method[key]["mean"] is not None


def _returned(methods: Mapping[str, Any]) -> str:
    """Which method's own choice has the highest stand-alone score."""
    found = {name: best for name, each in methods.items() if (best := each["found_best"]["mean"]) is not None}
    if not found:
        return ""
    decimals = worth_decimals(methods)
    order = sorted(found, key=lambda name: -found[name])
    first = [name for name in order if found[name] == found[order[0]]]
    ranks, trials = (methods[order[0]][key]["trials"] for key in ("found_best_rank", "found_best"))
    median = "median rank" if len(ranks) > 1 else "rank"
    place = f" ({median} {np.median(ranks):,.0f} of the space)" if ranks else ""
    rest = listed([f"{number(found[name], decimals)} ({name})" for name in order[len(first) :]] or [""])
    return (
        f"Of the architectures that {listed(first)} return{'s' if len(first) == 1 else ''}, the best scores "
        f"{number(found[order[0]], decimals)} stand-alone{' on average' if len(trials) > 1 else ''}{place}"
        f"{'; with the other methods it is ' if rest else ''}{rest}."
    )


def _compared(a: Sequence[float], b: Sequence[float]) -> tuple[float, str, float | None]:
    """How far ``a`` is above ``b`` on average, details of it trial by trial, and the p-value of their difference."""
    if len(a) != len(b):  # a trial without a correlation: what belongs together is not known
        return float(np.mean(a) - np.mean(b)), "", None
    differences = np.array(a) - np.array(b)
    mean, interval = float(differences.mean()), mean_interval(differences, (-2.0, 2.0))
    details = ""
    if interval is not None:
        agree = int((differences * mean > 0).sum())
        details = f", so in {agree} of {len(a)} trials, 95% interval {ends_in_words(interval)}"
    return mean, details, paired_test(differences)


def _shown(p_value: float | None) -> str:
    """What a test says, in words to stand behind a difference."""
    if p_value is None:
        return ""
    return f", {'more than luck' if p_value < SIGNIFICANT else 'which may be luck'} (p {p_equals(p_value)})"


def short(value: float) -> str:
    """A correlation to three decimals."""
    return number(value, DECIMALS)


def worth_decimals(methods: Mapping[str, Any]) -> int:
    """Decimals that tell what methods found apart."""
    return decimals_for(each[key]["mean"] for each in methods.values() for key in ("found_mean", "found_best"))


def ends_in_words(ends: Sequence[float], by: str = " to ") -> str:
    """An interval in words."""
    return by.join(map(short, ends))
