"""The search loop: resumed anywhere it finds what it would have found, and no task can bring it down unrecorded."""

import dataclasses
import functools
import math
import re

import numpy as np
import pytest
import torch

from search.agents.base import Agent
from search.agents.random_search import RandomSearch
from search.agents.regularized_evolution import RegularizedEvolution
from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation
from search.loop.run_search import run_search
from search.loop.search import Listener, Search, Stage
from search.randomness import derive_seed
from search.recipes.catalogue import find_classes
from search.runs.journal import Journal
from search.tasks.base import OneByOne
from tests.search.agents.toy_agents import toy_options
from tests.search.agents.toy_spaces import Grid, integer_reward
from tests.search.exact_text import exact_text

AGENTS = find_classes("search.agents", Agent)
# 24 evaluations a trial: 9 on one task to learn from, 15 on another, whose end needs a shorter batch of 4.
FIRST, SECOND = 9, 15
SAVE_ALWAYS, SAVE_ONCE = math.inf, 1e-12


class Toy(OneByOne):
    """Additive rewards; some architectures have none. Counts its evaluations, and stops at one of them."""

    honours = frozenset({"epochs", "parent", "stop_below"})  # agents ask for these; they change nothing

    def __init__(self, label="toy", stop_at=None, instant=False, evaluated=None):
        self.space, self.label, self.stop_at, self.instant = Grid(), label, stop_at, instant
        self.evaluated = [] if evaluated is None else evaluated

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        if len(self.evaluated) == self.stop_at:
            raise KeyboardInterrupt
        self.evaluated.append((architecture, seed))
        score = integer_reward(self.space, torch.tensor(architecture), seed=len(self.label)).item()
        if score % 5 == 0:
            return Evaluation.failed(f"{score} is divisible by 5", 2.0)
        return Evaluation(score + seed / 2**31, {"seed": seed}, 1.0)


class Ear(Listener):
    """Hears everything; dies when it has heard of so many evaluations."""

    def __init__(self, dies_at=None, journal=None):
        self.began, self.heard, self.ended, self.dies_at, self.journal = [], [], 0, dies_at, journal

    def search_began(self, search, records):
        self.began += records

    def evaluated(self, search, records):
        self.heard += records
        if self.journal is not None:
            assert repr(self.heard) == repr(list(self.journal.records(search.name)))  # safe before it is heard of
        if self.dies_at is not None and len(self.heard) >= self.dies_at:
            raise ConnectionError("a listener that fails")

    def search_ended(self, search):
        self.ended += 1


def attempt(
    path,
    agent_name,
    batch=1,
    trials=1,
    share=0.1,
    dies_at=None,
    stop_at=None,
    instant=False,
    evaluated=None,
    seconds=None,
    kind=Toy,
):
    """Run a search on, or until it is interrupted; the evaluations heard of, and the evaluations made."""
    evaluated = [] if evaluated is None else evaluated
    make = functools.partial(kind, stop_at=stop_at, instant=instant, evaluated=evaluated)
    stages = [
        Stage("first", lambda: make("first"), FIRST, adapting=False),
        Stage("second", lambda: make("second"), SECOND, adapting=False),
    ]
    agent = AGENTS[agent_name](Grid(), trials=trials, seed=3, **toy_options(AGENTS[agent_name]))
    search = Search("tasks/agent", agent, stages, 5, batch, most_failures=100, saving_share=share, seconds=seconds)
    journal, ear = Journal(path), Ear(dies_at)
    try:
        run_search(search, journal, [ear])
    except (KeyboardInterrupt, ConnectionError):
        assert dies_at is not None or stop_at is not None
    finally:
        journal.close()
    return ear, evaluated


def outcome(path):
    """Records and final state, as text that is equal only where every bit is."""
    journal = Journal(path, writable=False)
    try:
        return exact_text(list(journal.records("tasks/agent"))), exact_text(journal.state("tasks/agent"))
    finally:
        journal.close()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """Searches that nothing interrupts, each once."""

    @functools.cache
    def run(agent_name, batch, trials):
        path = tmp_path_factory.mktemp("reference") / "journal.sqlite"
        ear, evaluated = attempt(path, agent_name, batch, trials)
        assert len(ear.heard) == len(evaluated) == 24 * trials and ear.ended == 1
        return outcome(path)

    return run


every_agent = pytest.mark.parametrize("agent_name", AGENTS)


def shapes_and_shares(shapes, shares):
    """For every agent each shape once and each share of the time that saving may take; over all agents every pair."""
    return pytest.mark.parametrize(
        ("agent_name", "batch", "trials", "share"),
        [
            (agent_name, *shape, shares[(k + number) % len(shares)])
            for number, agent_name in enumerate(AGENTS)
            for k, shape in enumerate(shapes)
        ],
    )


@shapes_and_shares([(1, 1), (3, 2), (4, 1)], [SAVE_ALWAYS, SAVE_ONCE, 0.1])
def test_resuming_past_half_way_changes_nothing(agent_name, batch, trials, share, reference, tmp_path):
    path = tmp_path / "journal.sqlite"
    before, evaluated = attempt(path, agent_name, batch, trials, share, dies_at=17 * trials)
    assert 17 * trials <= len(before.heard) < 24 * trials
    after, evaluated = attempt(path, agent_name, batch, trials, share, evaluated=evaluated)
    assert repr(after.began) == repr(before.heard)
    assert len(before.heard) + len(after.heard) == 24 * trials == len(evaluated)  # nothing is paid for twice
    assert outcome(path) == reference(agent_name, batch, trials)


@every_agent
def test_resuming_again_and_again_in_the_middle_of_steps(agent_name, reference, tmp_path):
    path, evaluated = tmp_path / "journal.sqlite", []
    for stop_at, share in [(2, SAVE_ALWAYS), (7, SAVE_ONCE), (20, SAVE_ONCE), (21, 0.1), (29, SAVE_ONCE), (47, 0.1)]:
        ear, _ = attempt(path, agent_name, 3, 2, share, stop_at=stop_at, evaluated=evaluated)
        assert len(evaluated) == stop_at and ear.ended == 0
        # The last evaluation of a step waits for the state after it; every other one is safe at once.
        assert len(ear.began) + len(ear.heard) == stop_at
    attempt(path, agent_name, 3, 2, evaluated=evaluated)
    assert len(evaluated) == len(set(evaluated)) == 48
    assert outcome(path) == reference(agent_name, 3, 2)


@every_agent
def test_instant_tasks_lose_the_unfinished_step_only(agent_name, reference, tmp_path):
    path = tmp_path / "journal.sqlite"
    ear, evaluated = attempt(path, agent_name, 3, 2, stop_at=20, instant=True)
    assert len(ear.heard) == 18 and len(evaluated) == 20
    ear, evaluated = attempt(path, agent_name, 3, 2, instant=True)
    assert len(ear.began) == 18 and len(evaluated) == 30
    assert outcome(path) == reference(agent_name, 3, 2)


def test_a_finished_search_is_not_run_again(tmp_path):
    path = tmp_path / "journal.sqlite"
    attempt(path, "RegularizedEvolution")
    before = outcome(path)
    ear, evaluated = attempt(path, "RegularizedEvolution")
    assert (len(ear.began), ear.heard, ear.ended, evaluated) == (24, [], 1, [])
    assert outcome(path) == before


def test_a_finished_search_hands_over_what_it_learned(tmp_path):
    """Another search may start from it, so a meta-training's last state is loaded even if nothing is left to do."""
    states = []
    for _ in range(2):
        agent = RegularizedEvolution(Grid(), seed=0)
        journal = Journal(tmp_path / "journal.sqlite")
        run_search(Search("a", agent, [Stage("toy", Toy, 12, adapting=False)], 0), journal)
        states.append(repr(agent.state_dict()))
        journal.close()
    assert states[0] == states[1] != repr(RegularizedEvolution(Grid(), seed=0).state_dict())


# ---- a limit of time ---------------------------------------------------------------------------------------------

# A trial's evaluations cost 0.75 to 1.75 s: it makes 9 to 20 of them, so the search ends on the second task.
TIME = 15.5


class Timed(Toy):
    """Evaluations that take unlike times, which the seed and so the trial decides."""

    def evaluate_one(self, proposal):
        seed = proposal.seed
        evaluation = super().evaluate_one(proposal)
        return dataclasses.replace(evaluation, cost_seconds=0.75 + seed % 9 / 8)


@pytest.fixture(scope="module")
def timed_reference(tmp_path_factory):
    """Searches with a limit of time that nothing interrupts, each once: the outcome and the number of evaluations."""

    @functools.cache
    def run(agent_name, batch, trials):
        path = tmp_path_factory.mktemp("timed") / "journal.sqlite"
        ear, evaluated = attempt(path, agent_name, batch, trials, seconds=TIME, kind=Timed)
        assert ear.ended == 1 and len(ear.heard) == len(evaluated)
        return outcome(path), len(evaluated), ear.heard

    return run


@pytest.mark.parametrize("batch, trials", [(1, 1), (1, 3), (2, 3)])
def test_a_search_ends_with_the_step_in_which_the_last_trial_runs_out_of_time(batch, trials, timed_reference):
    _, count, records = timed_reference("RandomSearch", batch, trials)
    ends = []
    for trial in range(trials):
        mine = [each for each in records if each.trial == trial]
        spent = np.cumsum([each.evaluation.cost_seconds for each in mine])  # eighths: sums are exact
        ends.append(mine[int(np.argmax(spent >= TIME))].step)
        assert max(spent) >= TIME
    assert max(ends) == records[-1].step and count == len(records) < 24 * trials
    assert len(set(ends)) > 1 or trials == 1  # trials end apart, and wait for each other


@shapes_and_shares([(1, 1), (2, 3)], [SAVE_ALWAYS, SAVE_ONCE])
def test_resuming_a_search_with_a_limit_of_time(agent_name, batch, trials, share, timed_reference, tmp_path):
    expected, count, _ = timed_reference(agent_name, batch, trials)
    path, evaluated = tmp_path / "journal.sqlite", []
    for stop_at in (5, count // 2, count - trials, count - 1):
        ear, _ = attempt(path, agent_name, batch, trials, share, None, stop_at, False, evaluated, TIME, Timed)
        assert len(evaluated) == stop_at and ear.ended == 0
    ear, _ = attempt(path, agent_name, batch, trials, share, None, None, False, evaluated, TIME, Timed)
    assert ear.ended == 1 and len(evaluated) == count  # nothing is paid for twice, nothing more is evaluated
    assert outcome(path) == expected
    ear, evaluated = attempt(path, agent_name, batch, trials, share, seconds=TIME, kind=Timed)
    assert (len(ear.began), ear.heard, ear.ended, evaluated) == (count, [], 1, [])


def test_a_limit_that_is_not_reached_changes_nothing(reference, tmp_path):
    path = tmp_path / "journal.sqlite"
    attempt(path, "RegularizedEvolution", 3, 2, seconds=1000.0)
    assert outcome(path) == reference("RegularizedEvolution", 3, 2)


def test_whether_a_search_has_ended(journal):
    """A listener can tell from the evaluations alone."""
    agent = RandomSearch(Grid(), trials=2, seed=1)
    search = Search("a", agent, [Stage("label", Timed, 30, True)], 7, 1, most_failures=99, seconds=10.0)
    run_search(search, journal)
    records = list(journal.records("a"))
    assert journal.progress("a")[0] and journal.state("a") is None
    assert len(records) < 60 and search.ended(records)
    assert not any(search.ended(records[:k]) for k in range(len(records) - 2))
    unlimited = dataclasses.replace(search, seconds=None)
    assert not unlimited.ended(records)
    short = dataclasses.replace(search, stages=[Stage("label", Timed, len(records) // 2, True)], seconds=None)
    assert short.ended(records)


# ---- what is recorded --------------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def search_on(task, journal, listeners=(), budget=12, batch=3, trials=2, agent=None, **options):
    agent = agent or RandomSearch(Grid(), trials=trials, seed=1)
    search = Search("a", agent, [Stage("label", lambda: task, budget, True)], 7, batch, **options)
    run_search(search, journal, listeners)
    return list(journal.records("a"))


@pytest.mark.parametrize("instant", [False, True])
def test_order_seeds_and_announcements(journal, instant):
    ear = Ear(journal=journal)
    records = search_on(Toy(instant=instant), journal, [ear])
    assert [(each.step, each.slot, each.trial) for each in records] == [
        (step, slot, trial) for step in range(4) for slot in range(3) for trial in range(2)
    ]
    for each in records:
        # Trial k of seed s is trial 0 of seed s + k.
        assert each.seed == derive_seed(7 + each.trial, "label", 3 * each.step + each.slot)
        assert each.stage == "label"
    assert repr(ear.heard) == repr(records)


def test_trials_are_the_searches_of_their_own_seeds(tmp_path):
    def rows(trials, seed, trial):
        journal = Journal(tmp_path / f"{trials}-{seed}.sqlite")
        agent = RandomSearch(Grid(), trials=trials, seed=seed)
        run_search(Search("a", agent, [Stage("label", Toy, 6, True)], seed, 2, most_failures=99), journal)
        records = [each for each in journal.records("a") if each.trial == trial]
        journal.close()
        return repr([(each.architecture, each.seed, each.evaluation) for each in records])

    assert rows(3, 10, 2) == rows(1, 12, 0)


class Raising(Toy):
    """Raises at some evaluations, counted over all attempts."""

    def __init__(self, errors):
        super().__init__()
        self.errors, self.asked = errors, []

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        self.asked.append((architecture, seed))
        if error := self.errors.get(len(self.asked)):
            raise error
        return Evaluation(float(len(self.asked)))


def test_an_exception_is_a_failed_evaluation(journal):
    errors = {2: ValueError("no such\n  size"), 3: RuntimeError(), 6: MemoryError("too big"), 24: OSError(5, "gone")}
    task = Raising(errors)
    records = search_on(task, journal)
    assert len(records) == 24 and len(set(task.asked)) == len(task.asked) == 24  # each asked once, whatever happened
    for number, record in enumerate(records, 1):
        evaluation = record.evaluation
        assert task.asked[number - 1] == (record.architecture, record.seed)
        if number not in errors:
            assert evaluation.status == "ok" and evaluation.score == number and evaluation.reason == ""
            continue
        assert evaluation.status == "failed" and math.isnan(evaluation.score) and 0 <= evaluation.cost_seconds < 1
        assert evaluation.reason.startswith(f"{type(errors[number]).__name__}: ")
        assert "(test_run_search.py:" in evaluation.reason and "\n" not in evaluation.reason
    assert "ValueError: no such size (" in records[1].evaluation.reason


def test_a_message_that_is_no_text_can_be_recorded(journal):
    task = Raising({1: OSError("no file caf\udce9.png")})
    assert "no file caf?.png" in search_on(task, journal)[0].evaluation.reason


@pytest.mark.parametrize("error", [KeyboardInterrupt(), CatchmarkError("score 'x' is not logged")])
def test_what_is_not_the_architectures_fault_passes(journal, error):
    with pytest.raises(type(error)):
        search_on(Raising({5: error}), journal)
    assert len(list(journal.records("a"))) == 4


class Own(BaseException):
    """Somebody's own way to end everything."""


@pytest.mark.parametrize("error", [SystemExit(3), SystemExit("bye"), SystemExit(0), GeneratorExit(), Own("over")])
def test_a_task_may_not_end_its_process(journal, error):
    with pytest.raises(RunError, match=re.escape(f"the task ended its process with {error!r}")):
        search_on(Raising({5: error}), journal)
    assert len(list(journal.records("a"))) == 4


class Giving(Toy):
    """Gives one fixed answer."""

    def __init__(self, answer):
        super().__init__()
        self.answer = answer

    def evaluate_one(self, proposal):
        return self.answer


@pytest.mark.parametrize("score", [torch.tensor(0.5), np.float32(0.5), np.float64(0.5), 0.5])
def test_numbers_of_other_libraries_become_floats(journal, score):
    evaluation = Evaluation(score, {"loss": score, "finite": math.nan}, score)
    record = search_on(Giving(evaluation), journal, budget=1, batch=1, trials=1)[0]
    assert repr(record.evaluation) == repr(Evaluation(0.5, {"loss": 0.5, "finite": math.nan}, 0.5))


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, torch.tensor(math.nan)])
def test_a_score_that_cannot_be_compared_has_failed(journal, score):
    told = []

    class Agent(RandomSearch):
        def tell(self, archs, rewards):
            told.append(rewards)
            super().tell(archs, rewards)

    evaluation = Evaluation(score, {"loss": 2.0}, math.inf)
    record = search_on(Giving(evaluation), journal, budget=1, batch=1, agent=Agent(Grid()))[0]
    assert repr(record.evaluation) == repr(
        Evaluation(math.nan, {"loss": 2.0}, 0.0, "failed", f"the score is {float(score)}")
    )
    assert told[0].isnan().all()


@pytest.mark.parametrize(
    "answer, words",
    [
        (0.5, "Giving gives a float, an Evaluation is needed"),
        (None, "Giving gives a NoneType, an Evaluation is needed"),
        (Evaluation("good"), "Giving gives an Evaluation whose score, cost, metrics or history are no numbers"),
        (Evaluation(0.5, {"name": "good"}), "score, cost, metrics or history are no numbers: could not convert string"),
        (Evaluation(0.5, [1.0]), "score, cost, metrics or history are no numbers"),
    ],
)
def test_a_task_that_breaks_its_contract_is_named(journal, answer, words):
    with pytest.raises(CatchmarkError, match=words):
        search_on(Giving(answer), journal)


@pytest.mark.parametrize("count, words", [(2, "gives 2 evaluations where 6 are asked"), (9, "more evaluations than")])
def test_a_task_that_miscounts_is_named(journal, count, words):
    class Miscounting(Toy):
        def evaluate(self, proposals):
            return iter([Evaluation(1.0)] * count)

    with pytest.raises(CatchmarkError, match=f"Miscounting.evaluate {words}|Miscounting.evaluate gives more"):
        search_on(Miscounting(), journal)


def test_a_task_that_cannot_be_made(journal):
    def make():
        raise FileNotFoundError("no table 'nasbench.npz'")

    search = Search("meta_training/catch", RandomSearch(Grid()), [Stage("task 3", make, 5, False)], 0)
    with pytest.raises(RunError, match=r"^meta_training/catch: the task 'task 3' can't be made: no table"):
        run_search(search, journal)


# ---- too many failures -------------------------------------------------------------------------------------------


def test_too_many_failures_in_a_row_stop_the_search(journal):
    broken = Raising({number: RuntimeError("no CUDA device") for number in range(1, 1000)})
    ear = Ear()
    with pytest.raises(RunError, match=r"^a: 4 evaluations in a row failed, the last one with: RuntimeError: no CUDA"):
        search_on(broken, journal, [ear], most_failures=4)
    assert len(broken.asked) == 4 == len(ear.heard) == len(list(journal.records("a")))
    # Once the cause is mended the search goes on; the failures stay.
    records = search_on(Toy(), journal, most_failures=4)
    assert len(records) == 24 and all("no CUDA" in each.evaluation.reason for each in records[:4])
    assert not any("no CUDA" in each.evaluation.reason for each in records[4:])


def test_a_search_that_was_stopped_may_fail_as_often_again(journal):
    for attempts in (4, 8, 12):
        with pytest.raises(RunError, match="4 evaluations in a row failed"):
            search_on(Raising({number: RuntimeError() for number in range(1, 100)}), journal, most_failures=4)
        assert len(list(journal.records("a"))) == attempts


def test_failures_in_a_row_are_counted_across_a_kill(tmp_path):
    """Otherwise a search killed now and then would go on where an undisturbed one stops."""
    failures = {number: RuntimeError() for number in [1, 2, *range(5, 100)]}
    counts = {}
    for name, stops in {"undisturbed": [None], "killed": [6, 8, None]}.items():
        journal, asked = Journal(tmp_path / f"{name}.sqlite"), 0
        for stop in stops:
            task = Raising({number - asked: error for number, error in failures.items() if number > asked})
            if stop is not None:
                task.errors[stop - asked] = KeyboardInterrupt()
            with pytest.raises(RunError if stop is None else KeyboardInterrupt):
                search_on(task, journal, most_failures=5)
            asked = len(list(journal.records("a")))
        counts[name] = asked
        journal.close()
    assert counts["killed"] == counts["undisturbed"] == 9


# ---- a journal of another search ---------------------------------------------------------------------------------


class Contrary(RandomSearch):
    """The same states as random search, other questions."""

    def ask(self, n=1):
        return (super().ask(n) + 1) % 5


def begin(journal, share, batch=3):
    with pytest.raises(ConnectionError):
        search_on(Toy(), journal, [Ear(dies_at=14)], batch=batch, saving_share=share, most_failures=99)


@pytest.mark.parametrize("agent", [Contrary, RegularizedEvolution])
def test_an_agent_that_asks_otherwise_is_refused(journal, agent):
    begin(journal, SAVE_ONCE)
    before = repr(list(journal.records("a")))
    with pytest.raises(RunError, match="was written by another version of the agent 'a'") as caught:
        search_on(Toy(), journal, agent=agent(Grid(), trials=2, seed=1))
    assert caught.value.exit_code == 1
    assert repr(list(journal.records("a"))) == before


def test_another_task_or_batch_is_refused(journal):
    begin(journal, SAVE_ONCE)
    other = Search("a", RandomSearch(Grid(), 2, 1), [Stage("another label", Toy, 12, True)], 7, 3)
    with pytest.raises(RunError, match="or of its task"):
        run_search(other, journal)
    with pytest.raises(RunError, match="can't be resumed here; start the run anew"):
        search_on(Toy(), journal, batch=2)
