"""Which job goes to which node next: rules only, no processes and no clock, so that a million jobs can be tried.

Jobs that need the same are one queue, in the plan's order. A node takes as many as it has slots and memory for. A job
that must be alone starts on a node only when nothing else runs there and nothing that could run beside others waits:
measurements come last, and nothing is held back for them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tlkit.fleet.job import FleetJob, Needs

MOST_DEATHS = 3
"""How often a job may take its worker down before it is set aside."""


@dataclass
class FleetNode:
    """A machine: ``slots`` jobs at a time, ``memory`` in bytes for all of them, and the compute ``units`` it has.

    ``engines`` are the words of ``--engine`` that it knows.
    """

    name: str
    slots: int
    memory: int = 0
    units: frozenset[str] = frozenset()
    engines: frozenset[str] = frozenset()
    running: dict[str, FleetJob] = field(default_factory=dict)
    used: int = 0
    alone: bool = False

    def like(self, other: FleetNode, engine: str) -> bool:
        """Whether models run by ``engine`` here as they would on ``other``."""
        return self.units == other.units and engine in self.engines

    def could_take(self, needs: Needs) -> bool:
        """Whether the machine has what a job needs, busy or not."""
        fits = not self.memory or needs.memory <= self.memory
        return fits and (not needs.unit or needs.unit in self.units)

    def takes(self, needs: Needs) -> bool:
        """Whether a job can start here now."""
        if self.alone or len(self.running) >= self.slots or not self.could_take(needs):
            return False
        if needs.alone and self.running:
            return False
        return not self.memory or self.used + needs.memory <= self.memory or not self.running


class Schedule:
    """The jobs that are left, and the nodes that are there."""

    def __init__(
        self, jobs: Iterable[FleetJob], nodes: Iterable[FleetNode], deaths: dict[str, int] | None = None
    ) -> None:
        self.nodes: dict[str, FleetNode] = {}
        self.deaths = dict(deaths or {})
        self._waiting: dict[Needs, deque[FleetJob]] = {}
        self._over: set[str] = set()
        """The keys of jobs that ended although their node had been given up, and so wait again in a queue."""
        self.left = 0
        for job in jobs:
            self._waiting.setdefault(job.needs, deque()).append(job)
            self.left += 1
        for node in nodes:
            self.add(node)

    def add(self, node: FleetNode) -> None:
        """Take a node into use."""
        self.nodes[node.name] = node

    def remove(self, name: str) -> list[FleetJob]:
        """Stop using a node; the jobs that ran there wait again, first in their queues, and are returned."""
        node = self.nodes.pop(name, None)
        if node is None:
            return []
        lost = list(node.running.values())
        for job in lost:
            self._waiting.setdefault(job.needs, deque()).appendleft(job)
        return lost

    def next(self) -> Iterator[tuple[FleetJob, FleetNode]]:
        """Yield the jobs to start now and where; each counts as running from then on."""
        # Those that may run beside others first, then those with the largest needs, which find room least easily.
        for needs in sorted(self._waiting, key=lambda item: (item.alone, -item.memory, item.unit)):
            queue = self._waiting[needs]
            while queue and (node := self._node_for(needs)):
                job = queue.popleft()
                if job.key in self._over:
                    self._over.discard(job.key)
                    continue
                node.running[job.key] = job
                node.used += needs.memory
                node.alone = needs.alone
                yield job, node

    def finished(self, job: FleetJob, node: str) -> None:
        """Take a job that has an outcome off its node."""
        if not self._leave(job, node):
            self._over.add(job.key)
        self.left -= 1

    def lost(self, job: FleetJob, node: str, blamed: bool) -> bool:
        """Let a job whose worker went away wait again, first in its queue; False where it is set aside instead.

        ``blamed`` says that the job's own process died, and not its node or the worker around it.
        """
        if not self._leave(job, node):
            return True  # it waits again since its node was given up
        self.deaths[job.key] = self.deaths.get(job.key, 0) + blamed
        if self.deaths[job.key] >= MOST_DEATHS:
            self.left -= 1
            return False
        self._waiting.setdefault(job.needs, deque()).appendleft(job)
        return True

    def give_up(self) -> list[FleetJob]:
        """Drop the waiting jobs that no node could ever take, and return them."""
        nodes = self.nodes.values()
        hopeless = [needs for needs in self._waiting if not any(node.could_take(needs) for node in nodes)]
        dropped = [job for needs in hopeless for job in self._waiting.pop(needs)]
        self.left -= len(dropped)
        return dropped

    def running(self) -> int:
        """How many jobs run now."""
        return sum(len(node.running) for node in self.nodes.values())

    def _node_for(self, needs: Needs) -> FleetNode | None:
        able = [node for node in self.nodes.values() if node.takes(needs)]
        if needs.alone:
            able = [node for node in able if not self._shared_work_for(node)]
        return max(able, key=lambda node: node.slots - len(node.running), default=None)

    def _shared_work_for(self, node: FleetNode) -> bool:
        return any(queue and not needs.alone and node.could_take(needs) for needs, queue in self._waiting.items())

    def _leave(self, job: FleetJob, name: str) -> bool:
        """Take a job off its node; False where it was not there any more."""
        node = self.nodes.get(name)
        if node is None or node.running.pop(job.key, None) is None:
            return False
        node.used -= job.needs.memory
        node.alone = False
        return True
