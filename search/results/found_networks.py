"""What a supernet study found, beside the random architectures that it trained alone."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from search.runs.folders import JOURNAL
from search.runs.journal import Journal, Record
from search.studies.supernet_job import FOUND, MEASURED, STAND_ALONE
from search.studies.supernet_study import SupernetStudy


def found_and_drawn(run: Path, study: SupernetStudy) -> tuple[dict[str, list[Record]], list[Record]]:
    """The records of a run, as many as there are so far.

    Args:
        run: its folder; nothing is written there.
        study: that it is of.

    Returns:
        By method what its trials found, best first in each; and the random architectures, whose scores are those of
        training alone.

    Raises:
        CatchmarkError: the journal is damaged.
    """
    with closing(Journal(run / JOURNAL, writable=False)) as journal:
        found = {name: [each for each in journal.records(name) if each.stage == FOUND] for name in study.methods}
        return found, [each for each in journal.records(STAND_ALONE) if each.stage == MEASURED]
