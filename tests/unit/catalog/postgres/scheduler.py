"""Threads of real code under a clock that only the scheduler moves.

One thread runs at a time, and only from one wait to the next. Whoever begins to wait runs the
scheduler itself, up to the next event that is another's, and hands over to that one. So a seed
decides everything that happens, and most waits cost no change of threads.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """The machine that this thread runs on has died."""


class Machine:
    """What can be paused or die as one, with a clock of its own."""

    def __init__(self, name: str, rate: float = 1.0) -> None:
        self.name = name
        self.rate = rate
        self.resumes_at_s = 0.0
        self.is_dead = False


class Task:
    def __init__(self, machine: Machine) -> None:
        self.home = machine
        self.machine = machine  # where it runs now: a call takes its caller to another one
        self.ticket = 0  # only the event that carries it wakes the task
        self.is_over = False
        self.may_run = threading.Lock()
        self.may_run.acquire()


class Scheduler:
    """
    Attributes:
        now_s: the true time.
        defects: what was raised where nobody catches it. The first one ends the run.
    """

    def __init__(self) -> None:
        self.now_s = 0.0
        self.defects: list[BaseException] = []
        self._events: list[tuple[float, int, Task | None, Any]] = []
        self._order = itertools.count()
        self._main = Task(Machine("main"))
        self._running = self._main
        self._tasks: list[Task] = []

    @property
    def machine(self) -> Machine:
        """The one that the running thread runs on."""
        return self._running.machine

    @machine.setter
    def machine(self, machine: Machine) -> None:
        self._running.machine = machine

    @property
    def task(self) -> Task:
        return self._running

    # ------------------------------------------------------------ what tasks call

    def at(self, time_s: float, action: Callable[[], None]) -> None:
        """The action must not wait."""
        heapq.heappush(self._events, (time_s, next(self._order), None, action))

    def after(self, duration_s: float, action: Callable[[], None]) -> None:
        self.at(self.now_s + duration_s, action)

    def wait(self, duration_s: float) -> None:
        """Until `wake`, at most so long; then until the machine runs.

        Raises:
            Killed: the machine has died.
        """
        me = self._running
        if not me.machine.is_dead:
            self._expect(me, self.now_s + duration_s)
            self._hand_over(me)
        if me.machine.is_dead:
            raise Killed

    def wake(self, task: Task) -> None:
        """Ends its wait. Only of a task that waits for this."""
        heapq.heappush(self._events, (self.now_s, next(self._order), task, task.ticket))

    def spawn(self, machine: Machine, work: Callable[[], None]) -> None:
        task = Task(machine)
        self._tasks.append(task)
        threading.Thread(target=self._run, args=(task, work), daemon=True).start()
        self._expect(task, self.now_s)

    def resume(self, machine: Machine) -> None:
        """Whoever stood still goes on at once; whoever waits is woken early."""
        machine.resumes_at_s = 0.0
        for task in self._tasks:
            if task.machine is machine:
                self.wake(task)

    def kill(self, machine: Machine) -> None:
        """Every thread on the machine sees it as soon as it comes to a wait."""
        machine.is_dead = True
        machine.resumes_at_s = 0.0
        for task in self._tasks:
            if task.machine is machine:
                self.wake(task)

    # ------------------------------------------------------------ the run

    def run(self, until_s: float) -> None:
        """Called by the main thread. Raises the first defect."""
        self._expect(self._main, until_s)
        self._hand_over(self._main)
        if self.defects:
            raise self.defects[0]

    def close(self) -> None:
        """Ends every thread."""
        for task in self._tasks:
            for machine in (task.home, task.machine):
                machine.is_dead = True
                machine.resumes_at_s = 0.0
        while self._tasks:
            self.wake(self._tasks[0])
            self.wait(0.0)

    def _expect(self, task: Task, time_s: float) -> None:
        heapq.heappush(self._events, (time_s, next(self._order), task, task.ticket))

    def _hand_over(self, me: Task | None) -> None:
        """Runs events until the next one is that of a task; returns when that of `me` has come."""
        while True:
            time_s, _, task, what = heapq.heappop(self._events)
            if task is None:
                self.now_s = max(self.now_s, time_s)
                self._act(what)
            elif task.ticket == what and not task.is_over:
                if task.machine.resumes_at_s > max(time_s, self.now_s):
                    self._expect(task, task.machine.resumes_at_s)
                    continue
                self.now_s = max(self.now_s, time_s)
                task.ticket += 1
                self._running = task
                if task is not me:
                    task.may_run.release()
                    if me is not None:
                        me.may_run.acquire()
                return

    def _act(self, action: Callable[[], None]) -> None:
        try:
            action()
        except BaseException as defect:
            self._stop(defect)

    def _stop(self, defect: BaseException) -> None:
        self.defects.append(defect)
        self.wake(self._main)

    def _run(self, task: Task, work: Callable[[], None]) -> None:
        task.may_run.acquire()
        try:
            if not task.machine.is_dead:
                work()
        except Killed:
            pass
        except BaseException as defect:
            self._stop(defect)
        task.is_over = True
        self._tasks.remove(task)
        self._hand_over(None)


class Turn:
    """A lock as the real code uses it, for threads of the scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._is_taken = False
        self._waiting: list[Task] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        give_up_at_s = self._scheduler.now_s + timeout
        while self._is_taken:
            left_s = give_up_at_s - self._scheduler.now_s
            if not blocking or left_s <= 0:
                return False
            me = self._scheduler.task
            self._waiting.append(me)
            try:
                self._scheduler.wait(left_s)
            finally:
                self._waiting.remove(me)
        self._is_taken = True
        return True

    def release(self) -> None:
        self._is_taken = False
        if self._waiting:
            self._scheduler.wake(self._waiting[0])
