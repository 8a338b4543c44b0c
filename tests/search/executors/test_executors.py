"""Evaluations that finish in any order: nothing is lost, nothing is paid for twice, and the journal says what happened.

Where real processes are needed, `test_ray.py` has them.
"""

import functools
import io
import math
import random
from types import SimpleNamespace

import pytest
import torch

from search.agents.base import Agent
from search.agents.catcher.agent import CATCHer
from search.agents.catcher.bayesian import BayesianCATCHer
from search.agents.random_search import RandomSearch
from search.errors import CatchmarkError, RunError
from search.evaluation import Evaluation
from search.executors.inline import InlineExecutor
from search.executors.ray import RayExecutor
from search.listeners.progress import ProgressBar
from search.listeners.wandb.connection import WandbConnection
from search.listeners.wandb.searches import SearchRuns
from search.loop.run_search import run_search
from search.loop.search import Listener, Search, Stage
from search.randomness import derive_seed
from search.recipes.catalogue import find_classes
from search.results.search import without_seconds
from search.runs.journal import Journal
from search.studies.experiment import Experiment
from search.tasks.base import OneByOne
from tests.search.agents.toy_agents import toy_options
from tests.search.agents.toy_spaces import Grid, integer_reward
from tests.search.exact_text import exact_text
from tests.search.executors.scrambled_executor import Scrambled

AGENTS = find_classes("search.agents", Agent)
FIRST, SECOND = 9, 15
ALWAYS, NEVER = math.inf, 1e-12

every_agent = pytest.mark.parametrize("agent_name", AGENTS)


def every_agent_with_one_of(names, settings):
    """Every agent once, the settings in turn: what executors do hangs on what an agent asks, not on which it is."""
    return pytest.mark.parametrize(
        ("agent_name", *names), [(name, *settings[k % len(settings)]) for k, name in enumerate(AGENTS)]
    )


class Toy(OneByOne):
    """Additive rewards; some architectures have none. Notes its evaluations, and stops at one of them."""

    honours = frozenset({"epochs", "parent", "stop_below"})  # agents ask for these; they change nothing

    def __init__(self, label="toy", stop_at=None, instant=False, evaluated=None, cost=1.0):
        self.space, self.label, self.stop_at, self.instant, self.cost = Grid(), label, stop_at, instant, cost
        self.evaluated = [] if evaluated is None else evaluated

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        if len(self.evaluated) == self.stop_at:
            raise KeyboardInterrupt
        self.evaluated.append((architecture, seed))
        score = integer_reward(self.space, torch.tensor(architecture), seed=len(self.label)).item()
        if score % 5 == 0:
            return Evaluation.failed(f"{score} is divisible by 5", self.cost)
        return Evaluation(score + seed / 2**31, {"seed": seed}, self.cost)


class Ear(Listener):
    """Hears everything, and sees that the journal heard of it first."""

    def __init__(self, journal):
        self.journal, self.heard, self.ended = journal, [], 0

    def evaluated(self, search, records):
        known = {repr(record) for record in self.journal.records(search.name)}
        assert {repr(record) for record in records} <= known
        self.heard += records

    def search_ended(self, search):
        self.ended += 1


def make_agent(agent_name, trials=1, seed=3):
    return AGENTS[agent_name](Grid(), trials=trials, seed=seed, **toy_options(AGENTS[agent_name]))


def attempt(path, agent_name, executor, stop_at=None, evaluated=None, share=ALWAYS, trials=1, alone=False, **options):
    """Run a search on, or until it is interrupted."""
    evaluated = [] if evaluated is None else evaluated
    instant = options.pop("instant", False)
    make = functools.partial(Toy, stop_at=stop_at, instant=instant, evaluated=evaluated)
    stages = [
        Stage("first", lambda: make("first"), FIRST, adapting=False),
        Stage("second", lambda: make("second"), SECOND, adapting=False),
    ]
    by_itself = (lambda trial: make_agent(agent_name, seed=3 + trial)) if alone else None
    options = {"most_failures": 100, "saving_share": share, "executor": executor, "alone": by_itself} | options
    search = Search("tasks/agent", make_agent(agent_name, trials), stages, 5, **options)
    journal = Journal(path)
    ear = Ear(journal)
    try:
        run_search(search, journal, [ear])
    except KeyboardInterrupt:
        assert stop_at is not None
    finally:
        journal.close()
    return ear, evaluated


def outcome(path):
    journal = Journal(path, writable=False)
    try:
        return exact_text(list(journal.records("tasks/agent")), journal.state("tasks/agent"))
    finally:
        journal.close()


def read_records(path):
    journal = Journal(path, writable=False)
    try:
        return list(journal.records("tasks/agent"))
    finally:
        journal.close()


# ---- what a seed decides -----------------------------------------------------------------------------------------


@every_agent_with_one_of(("batch", "trials", "instant"), [(1, 1, False), (1, 1, True), (3, 2, False)])
def test_one_worker_is_no_executor(agent_name, batch, trials, instant, tmp_path):
    for name, executor in {"none": None, "one": InlineExecutor()}.items():
        attempt(tmp_path / name, agent_name, executor, batch=batch, trials=trials, instant=instant)
    assert outcome(tmp_path / "one") == outcome(tmp_path / "none")


@every_agent
def test_a_batch_is_the_same_whatever_finishes_first(agent_name, tmp_path):
    attempt(tmp_path / "none", agent_name, None, batch=4, trials=2)
    executor = Scrambled(3)
    attempt(tmp_path / "scrambled", agent_name, executor, batch=4, trials=2)
    assert outcome(tmp_path / "scrambled") == outcome(tmp_path / "none")
    assert len(executor.tasks) == 2  # each sent once
    assert executor.counts[:8] == [8, 7, 6, 5, 4, 3, 2, 1]


@every_agent_with_one_of(("workers",), [(1,), (3,)])
def test_with_a_worker_a_trial_the_order_does_not_matter(agent_name, workers, tmp_path):
    """Trials by themselves: one evaluation each under way, so every one is the search it is in one process."""
    executor = Scrambled(workers)
    attempt(tmp_path / "scrambled", agent_name, executor, trials=3, alone=True)
    assert {record.slot for record in read_records(tmp_path / "scrambled")} == {0}
    alone = []
    for trial in range(3):
        journal = Journal(tmp_path / f"{trial}")
        stages = [Stage("first", lambda: Toy("first"), FIRST, False), Stage("second", lambda: Toy("second"), 15, False)]
        agent = make_agent(agent_name, seed=3 + trial)
        run_search(Search("a", agent, stages, 5 + trial, most_failures=100), journal)
        alone += [(record.step, trial, record.architecture, record.evaluation) for record in journal.records("a")]
        journal.close()
    ours = [
        (each.step, each.trial, each.architecture, each.evaluation) for each in read_records(tmp_path / "scrambled")
    ]
    assert exact_text(sorted(ours, key=lambda row: row[:2])) == exact_text(sorted(alone, key=lambda row: row[:2]))


@pytest.mark.parametrize("workers, most", [(5, [3, 2]), (2, [1, 1, 1]), (4, [4])])
def test_workers_are_shared_out_to_trials(workers, most, tmp_path):
    """The most evaluations that each trial ever has under way."""

    class Watching(Scrambled):
        seen = (0,) * len(most)

        def wait(self):
            now = [sum(ticket[0] == trial for ticket, *_ in self.under_way) for trial in range(len(most))]
            self.seen = [max(pair) for pair in zip(self.seen, now, strict=True)]
            return super().wait()

    executor = Watching(workers)
    attempt(tmp_path / "journal", "RandomSearch", executor, trials=len(most), alone=True)
    assert executor.seen == most and max(executor.counts) == workers


def test_a_free_worker_does_not_wait(tmp_path):
    executor = Scrambled(4)
    attempt(tmp_path / "journal", "RandomSearch", executor)
    # Only the end of a stage, whose budget is told before the next begins, leaves workers without work.
    assert executor.counts == [4] * (FIRST - 3) + [3, 2, 1] + [4] * (SECOND - 3) + [3, 2, 1]


# ---- the journal says what happened ------------------------------------------------------------------------------


def replayed(agent_name, records, workers):
    """The agent's state after what the journal says, walked through by its definition."""
    agent, under_way, asked, told = make_agent(agent_name), [], 0, 0
    for end, budget in ((FIRST, FIRST), (FIRST + SECOND, SECOND)):
        agent.begin_task(budget, False)
        while told < end:
            while len(under_way) < workers and asked < end:
                under_way.append((asked, agent.propose(1)[0][0].architecture))
                asked += 1
            record = records[told]
            index, architecture = under_way.pop(record.slot)
            assert (record.step, record.architecture) == (told, architecture)
            assert record.seed == derive_seed(5, record.stage, index)
            reward = torch.tensor([[record.evaluation.score]], dtype=torch.float64)
            agent.observe([[record.proposal]], [[record.evaluation]], reward)
            told += 1
    return agent.state_dict()


@every_agent
@pytest.mark.parametrize("workers", [3])
def test_records_say_in_which_order_all_was_asked_and_told(agent_name, workers, tmp_path):
    ear, evaluated = attempt(tmp_path / "journal", agent_name, Scrambled(workers, seed=workers))
    records = read_records(tmp_path / "journal")
    assert exact_text(ear.heard) == exact_text(records) and ear.ended == 1
    assert [(record.architecture, record.seed) for record in records] == evaluated
    assert len({record.slot for record in records}) == workers
    journal = Journal(tmp_path / "journal")
    state = journal.state("tasks/agent")
    journal.close()
    assert exact_text(state["agent"]) == exact_text(replayed(agent_name, records, workers)) and "flying" not in state


@every_agent_with_one_of(("share", "trials"), [(ALWAYS, 1), (NEVER, 1), (0.1, 2)])
def test_resuming_again_and_again(agent_name, share, trials, tmp_path):
    """Nothing that was committed is evaluated again; what was under way is, with its seed."""
    path, choose, known = tmp_path / "journal", random.Random(agent_name), set()
    total = trials * (FIRST + SECOND)
    for stop in [2, 7, 11, 17, 20, None]:
        executor = Scrambled(4, seed=choose.random())
        before = set(known)
        ear, evaluated = attempt(path, agent_name, executor, stop, share=share, trials=trials, alone=True)
        assert not {(record.architecture, record.seed) for record in ear.heard} & before
        records = read_records(path)
        known = {(record.architecture, record.seed) for record in records}
        assert before <= known and set(evaluated) <= known  # whatever finished was committed
        assert len(records) == len(known)
        if stop is not None and len(records) < total:
            assert executor.dropped
    assert len(records) == total and ear.ended == 1
    # By seed every evaluation that had to be made was made once, whatever order it came in.
    seeds = [derive_seed(5 + trial, stage, index) for trial in range(trials) for stage, index in numbered()]
    assert sorted(record.seed for record in records) == sorted(seeds)
    if trials == 1:
        state = Journal(path, writable=False).state("tasks/agent")
        assert exact_text(state["agent"]) == exact_text(replayed(agent_name, records, 4))


def numbered():
    return [("first" if index < FIRST else "second", index) for index in range(FIRST + SECOND)]


@every_agent
def test_what_was_under_way_is_under_way_again(agent_name, tmp_path):
    """Killed and resumed, a search evaluates what it was evaluating: the state saved holds what was asked."""
    for share in (ALWAYS, NEVER):
        executor = Scrambled(4)
        attempt(tmp_path / f"{share}", agent_name, executor, 13, share=share)
        lost, again = executor.dropped, Scrambled(4)
        attempt(tmp_path / f"{share}", agent_name, again, 0, share=share)
        assert again.dropped == lost and len(lost) == 4


def test_a_finished_search_is_not_run_again(tmp_path):
    attempt(tmp_path / "journal", "LocalSearch", Scrambled(3))
    before = outcome(tmp_path / "journal")
    executor = Scrambled(3)
    ear, evaluated = attempt(tmp_path / "journal", "LocalSearch", executor)
    assert (ear.heard, evaluated, executor.tasks) == ([], [], [])
    assert outcome(tmp_path / "journal") == before


@pytest.mark.parametrize("workers", [1, 3])
def test_a_journal_of_another_number_of_workers_is_refused(workers, tmp_path):
    attempt(tmp_path / "journal", "RegularizedEvolution", Scrambled(4), 13, share=NEVER)
    with pytest.raises(RunError, match="can't be resumed here"):
        attempt(tmp_path / "journal", "RegularizedEvolution", Scrambled(workers))


# ---- failures and limits -----------------------------------------------------------------------------------------


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


class Broken(Toy):
    """Fails from some evaluation on."""

    def __init__(self, good):
        super().__init__()
        self.good = good

    def evaluate_one(self, proposal):
        architecture, seed = proposal.architecture, proposal.seed
        self.evaluated.append((architecture, seed))
        if len(self.evaluated) > self.good:
            raise RuntimeError("no CUDA device")
        return Evaluation(1.0)


def test_too_many_failures_in_a_row_stop_the_search(journal):
    def search(task, executor):
        stage = Stage("label", lambda: task, 30, True)
        run_search(Search("a", RandomSearch(Grid()), [stage], 7, most_failures=4, executor=executor), journal)

    for attempts in (9, 13):
        executor = Scrambled(3)
        with pytest.raises(
            RunError, match=r"^a: 4 evaluations in a row failed, the last one with: RuntimeError: no CUDA"
        ):
            search(Broken(5 if attempts == 9 else 0), executor)
        assert len(list(journal.records("a"))) == attempts and len(executor.dropped) == 2
    search(Toy(), Scrambled(3))
    assert len(list(journal.records("a"))) == 30


@pytest.mark.parametrize("batch", [1, 4])
def test_what_the_user_can_mend_stops_the_search(journal, batch):
    class Refusing(Toy):
        def evaluate_one(self, proposal):
            raise CatchmarkError("score 'x' is not logged")

    executor = Scrambled(3)
    stage = Stage("label", Refusing, 30, True)
    with pytest.raises(CatchmarkError, match="score 'x' is not logged"):
        run_search(Search("a", RandomSearch(Grid()), [stage], 7, batch, executor=executor), journal)
    assert executor.under_way == [] and len(executor.dropped) == min(12, 4 if batch == 4 else 3)


def test_a_limit_of_time_ends_a_trial(journal):
    executor = Scrambled(4)
    stage = Stage("label", functools.partial(Toy, cost=2.0), 30, True)
    search = Search("a", RandomSearch(Grid()), [stage], 7, most_failures=99, seconds=15.0, executor=executor)
    run_search(search, journal)
    assert len(list(journal.records("a"))) == 8 and journal.progress("a")[0]  # 8 x 2 s: the eighth exceeds it
    assert search.ended(list(journal.records("a"))) and len(executor.dropped) == 3
    run_search(search, journal)
    assert len(list(journal.records("a"))) == 8


def test_trials_with_a_limit_of_time_advance_together(tmp_path):
    outcomes = []
    for executor in (None, Scrambled(4)):
        attempt(tmp_path / f"{executor}", "LocalSearch", executor, trials=3, seconds=11.0, alone=True)
        outcomes.append(outcome(tmp_path / f"{executor}"))
    assert outcomes[0] == outcomes[1]


def test_source_tasks_that_offer_their_networks(journal):
    """The agent is told of them and not asked."""

    class Offering(Toy):
        def offered(self, seed):
            return torch.arange(12).unsqueeze(1).expand(-1, 6) % 5

    class Mute(RandomSearch):
        def ask(self, n=1):
            raise AssertionError

    def search(budget):
        stage = Stage("label", Offering, budget, adapting=False)
        run_search(Search(f"{budget}", Mute(Grid()), [stage], 7, most_failures=99, executor=Scrambled(3)), journal)

    search(12)
    found = [record.architecture for record in journal.records("12")]
    assert sorted(found) == sorted((k % 5,) * 6 for k in range(12)) and found != [(k % 5,) * 6 for k in range(12)]
    with pytest.raises(RunError, match="offers fewer networks than the 13 of its budget"):
        search(13)


# ---- whole experiments -------------------------------------------------------------------------------------------


class Column(Toy):
    """One of several rewards."""

    def __init__(self, space, kind):
        super().__init__("x" * kind)


def experiment(executor, exchange=2, batch=1, trials=3):
    return Experiment(
        Grid(),
        {name: functools.partial(Column, kind=kind) for name, kind in (("a", 1), ("b", 2))},
        {"random": RandomSearch, "local": AGENTS["LocalSearch"]},
        budget=8,
        trials=trials,
        batch=batch,
        exchange=exchange,
        executor=executor,
    )


@pytest.mark.parametrize("batch", [1, 3])
def test_an_experiment_on_fewer_workers_than_trials_is_the_same(batch, tmp_path):
    """Its summary too, with what each target's best is worth on the others."""
    summaries, closed = [], []

    class Closing(Scrambled):
        def close(self):
            closed.append(True)

    for name, executor in {"none": None, "three": Closing(3, seed=5)}.items():
        journal = Journal(tmp_path / name)
        summaries.append(without_seconds(experiment(executor, batch=batch).run(tmp_path, journal)))
        journal.close()
    assert exact_text(summaries[0]) == exact_text(summaries[1]) and closed == [True]


@pytest.mark.parametrize("kind", [CATCHer, BayesianCATCHer, AGENTS["NaiveTransfer"]])
def test_a_trial_by_itself_starts_from_its_own_weights(kind, tmp_path):
    """Weights are dealt out to trials; the third trial's agent, made alone, is what it is among the others."""
    practised = kind(Grid(), trials=2, seed=50, **toy_options(kind))
    practised.begin_task(6, adapting=False)
    for k in range(6):
        archs = practised.ask(1)
        practised.tell(archs, integer_reward(Grid(), archs, seed=k))
    weights = practised.weights()
    for trial in range(3):
        together = kind(Grid(), trials=3, seed=7, **toy_options(kind))
        together.load_weights(weights)
        alone = kind(Grid(), trials=1, seed=7 + trial, **toy_options(kind))
        alone.load_weights(together.weights(), first=trial)
        for agent in (together, alone):
            agent.begin_task(20, adapting=True)
        for _ in range(8):
            archs, mine = together.ask(1), alone.ask(1)
            assert torch.equal(archs[trial], mine[0])
            together.tell(archs, integer_reward(Grid(), archs))
            alone.tell(mine, integer_reward(Grid(), mine))


def test_listeners_hear_of_trials_that_are_ahead_of_each_other(journal, tmp_path, monkeypatch):
    """The bar counts every evaluation, W&B has a point for every number of evaluations that all trials have made."""
    logged, stream = [], io.StringIO()
    run = SimpleNamespace(step=0, log=lambda point, step: logged.append((step, point)), finish=lambda **_: None)
    monkeypatch.setattr(WandbConnection, "start", lambda *_, **__: run)
    monkeypatch.setattr(SearchRuns, "_end", lambda *_: None)
    wandb, bar = SearchRuns(WandbConnection(tmp_path, "recipe"), Grid(), {}), ProgressBar({"a": 24}, stream, pause=0.0)
    stage = Stage("label", Toy, 12, True)
    search = Search(
        "a",
        RandomSearch(Grid(), trials=2),
        [stage],
        7,
        most_failures=99,
        executor=Scrambled(5),
        alone=lambda trial: RandomSearch(Grid(), seed=trial),
    )
    run_search(search, journal, [wandb, bar])
    assert [step for step, _ in logged] == list(range(1, 13))
    assert all(point["cost_seconds"] == 2.0 for _, point in logged)
    assert "24 of 24 networks (100%)" in stream.getvalue() and "of 24 evaluations" in stream.getvalue()


# ---- what a recipe may say ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"workers": 0}, "workers is 0, at least 1"),
        ({"workers": 1, "cpus": -1}, "cpus is -1, a number of at least 0"),
        ({"workers": 1, "retries": -1}, "retries is -1"),
        ({"workers": 1, "time_limit_seconds": 0}, "time_limit_seconds is 0, a number above 0"),
        ({"workers": 1, "start_seconds": math.nan}, "start_seconds is nan, a number above 0"),
    ],
)
def test_refuses_what_no_executor_can_do(arguments, words):
    with pytest.raises(ValueError, match=words):
        RayExecutor(**arguments)


def test_without_ray_a_run_says_how_to_install_it(monkeypatch, tmp_path):
    import importlib.util

    plain = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "ray" else plain(name, *more))
    journal = Journal(tmp_path / "journal")
    with pytest.raises(CatchmarkError, match=r'needs Ray: pip install "catchmark\[ray\]"$'):
        experiment(RayExecutor(2)).run(tmp_path, journal)
    assert journal.searches() == []
    journal.close()
