"""An executor whose evaluations finish in any order, the same one every time: what workers do, without the waiting."""

import random

from search.executors.base import Executor
from search.executors.inline import evaluate_one


class Scrambled(Executor):
    """Of what is under way, any may finish next.

    It notes how many evaluations were under way whenever it was waited for, and what was given up.
    """

    def __init__(self, workers, seed=0):
        self.workers, self.choose = workers, random.Random(seed)
        self.tasks, self.under_way, self.counts, self.dropped = [], [], [], []

    def begin(self, task):
        self.drop()
        self.tasks.append(task)

    def submit(self, *evaluation):
        self.under_way.append(evaluation)

    def wait(self):
        self.counts.append(len(self.under_way))
        running = min(self.workers, len(self.under_way))  # those beyond the number of workers have not begun
        ticket, proposal = self.under_way[place := self.choose.randrange(running)]
        evaluation = evaluate_one(self.tasks[-1], proposal)
        del self.under_way[place]
        return ticket, evaluation

    def drop(self):
        self.dropped += [(proposal.architecture, proposal.seed) for _, proposal in self.under_way]
        self.under_way = []
