"""A listener that stops a run where a test wants it to stop."""

from search.loop.search import Listener


def interrupt():
    """As Ctrl+C does."""
    raise KeyboardInterrupt


class Stopper(Listener):
    """Does something after so many evaluations that ends the run."""

    def __init__(self, after, how=interrupt):
        self.left, self.how = after, how

    def evaluated(self, search, records):
        self.left -= len(records)
        if self.left <= 0:
            self.how()
