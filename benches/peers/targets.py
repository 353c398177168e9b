"""What Tidefeed wants to reach."""

import dataclasses

from figures import ratio


@dataclasses.dataclass
class Target:
    """A bound for a figure."""

    text: str
    value: float | None
    bound: float
    at_most: bool = False

    @property
    def met(self):
        """None if it was not measured."""
        if self.value is None:
            return None
        return self.value <= self.bound if self.at_most else self.value >= self.bound

    def __str__(self):
        verdict = {None: "NOT MEASURED", True: "met", False: "MISSED"}[self.met]
        value = "" if self.value is None else f"{self.value:.2f}, "
        return f"{verdict:12} {self.text}: {value}wanted {'<=' if self.at_most else '>='} {self.bound}"


def targets(figures, growth):
    """All targets. `growth` is the spread of CPU time per event by configuration, of `--growth`."""
    row = figures.row
    on = {workload: row("tidefeed", workload, workers=2, recovery=True) for workload in ("w1", "w2", "w3", "w4")}
    off = {workload: row("tidefeed", workload, workers=2, recovery=False) for workload in ("w1", "w2", "w3", "w4")}

    def to_peer(target):
        return target and figures.to_peer(target)

    def to_floor(target):
        return target and figures.to_floor(target)

    result = [
        Target("w2, 2 workers, recovery: rate to the best peer with recovery", to_peer(on["w2"]), 5),
        Target("w2, 2 workers, recovery: share of the two-thread floor", to_floor(on["w2"]), 0.75),
        Target("w2, 2 workers: rate with recovery to that without", ratio(on["w2"], off["w2"]), 0.9),
        Target("w1, 2 workers, recovery: rate to the best peer with recovery", to_peer(on["w1"]), 2),
        Target("w1, 2 workers, no recovery: rate to the best peer without", to_peer(off["w1"]), 2),
        Target("w1, 2 workers, recovery: share of the two-thread floor", to_floor(on["w1"]), 0.8),
        Target("w1, 2 workers, no recovery: share of the two-thread floor", to_floor(off["w1"]), 0.8),
    ]
    for workload in ("w3", "w4"):
        result += [
            Target(f"{workload}, 2 workers, recovery: rate to the best peer with recovery", to_peer(on[workload]), 5),
            Target(f"{workload}, 2 workers, no recovery: rate to the best peer without", to_peer(off[workload]), 5),
        ]
    floor = row("floor", "w2", workers=1)
    memory = ratio(on["w2"], floor, "memory_tree_mb")
    result.append(Target("w2, 2 workers, recovery: peak memory to that of the one-thread floor", memory, 2, at_most=True))
    spread = max((value for name, value in growth.items() if name.startswith("tidefeed")), default=None)
    result.append(Target("w2: largest to smallest CPU time per event, 1 M to 20 M events", spread, 1.2, at_most=True))
    return result
