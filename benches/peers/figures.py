"""What the runs of a configuration come to, and how configurations compare."""

import dataclasses
import statistics

from configurations import OTHERS

MEASURES = ("engine_s", "wall_s", "cpu_s", "memory_one_mb", "memory_tree_mb")


@dataclasses.dataclass
class Row:
    """A configuration with its runs; those without an error on a quiet machine count, or all without one if none was quiet."""

    configuration: object
    events: int
    runs: list

    @property
    def error(self):
        """What went wrong in any of its runs."""
        return next((run.error for run in self.runs if run.error), None)

    @property
    def quiet(self):
        """The runs during which the machine was idle otherwise."""
        return [run for run in self.runs if run.quiet]

    def median(self, measure):
        """The median of a measure."""
        return statistics.median(getattr(run, measure) for run in self.quiet or self.runs)

    @property
    def rate(self):
        """Events a second of the engine."""
        return self.events / self.median("engine_s")

    @property
    def wall_rate(self):
        """Events a second of the whole run."""
        return self.events / self.median("wall_s")


class Figures:
    """The rows that have figures, to be looked up."""

    def __init__(self, rows):
        self.rows = [row for row in rows if row.runs and not row.error]

    def row(self, system, workload, workers=None, recovery=None):
        """The fastest row that fits, or None."""

        def fits(configuration):
            return (
                (configuration.system, configuration.workload) == (system, workload)
                and workers in (None, configuration.workers)
                and recovery in (None, configuration.recovery)
            )

        return max((row for row in self.rows if fits(row.configuration)), key=lambda row: row.rate, default=None)

    def best_peer(self, workload, recovery):
        """The fastest row of the other systems with or without recovery, or None."""
        rows = [self.row(system, workload, recovery=recovery) for system in OTHERS]
        return max(filter(None, rows), key=lambda row: row.rate, default=None)

    def to_peer(self, row):
        """How much faster a row is than the best peer with the like guarantee."""
        return ratio(row, self.best_peer(row.configuration.workload, row.configuration.recovery))

    def to_floor(self, row):
        """The share of the floor's rate with as many threads."""
        return ratio(row, self.row("floor", row.configuration.workload, workers=min(row.configuration.workers, 2)))


def ratio(row, other, measure="rate"):
    """The ratio of a measure, or None where one was not measured."""
    if not row or not other:
        return None
    if measure == "rate":
        return row.rate / other.rate
    return row.median(measure) / other.median(measure)
