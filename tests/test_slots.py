"""launcher.keeper.slots: in order, a few at a time, none lost."""

from __future__ import annotations

import threading
from collections.abc import Callable

from launcher.keeper.slots import HOLD_SECONDS, StartSlots


class Timers:
    """Timers that fire when the test says so."""

    def __init__(self) -> None:
        self.running: dict[FakeTimer, Callable[[], None]] = {}

    def __call__(self, seconds: float, call: Callable[[], None]) -> FakeTimer:
        assert seconds == HOLD_SECONDS
        return FakeTimer(self, call)

    def fire(self) -> None:
        for call in list(self.running.values()):
            call()


class FakeTimer:
    def __init__(self, timers: Timers, call: Callable[[], None]) -> None:
        self._timers = timers
        self._call = call

    def start(self) -> None:
        self._timers.running[self] = self._call

    def cancel(self) -> None:
        self._timers.running.pop(self, None)


def test_first_come_first_served() -> None:
    slots = StartSlots(2, timer=Timers())
    places = [slots.enter() for _ in range(5)]
    assert [place.admitted for place in places] == [True, True, False, False, False]
    places[1].leave()
    assert [place.admitted for place in places] == [True, True, True, False, False]
    places[0].leave()
    places[2].leave()
    assert all(place.admitted for place in places)


def test_a_slot_is_given_back_once() -> None:
    slots = StartSlots(1, timer=Timers())
    first, second, third = (slots.enter() for _ in range(3))
    first.leave()
    first.leave()
    assert (second.admitted, third.admitted) == (True, False)


def test_who_leaves_the_queue_is_not_admitted_and_takes_no_slot() -> None:
    slots = StartSlots(1, timer=Timers())
    first, second, third = (slots.enter() for _ in range(3))
    second.leave()
    assert second.wait() is False
    first.leave()
    assert (second.admitted, third.admitted) == (False, True)


def test_a_start_that_says_nothing_holds_its_slot_for_a_while_only() -> None:
    timers = Timers()
    slots = StartSlots(1, timer=timers)
    quiet, second = slots.enter(), slots.enter()
    timers.fire()
    assert second.wait() is True
    quiet.leave()  # its end gives nothing back twice
    assert slots.enter().admitted is False
    assert len(timers.running) == 1


def test_a_start_that_speaks_stops_its_timer() -> None:
    timers = Timers()
    slots = StartSlots(1, timer=timers)
    slots.enter().leave()
    assert timers.running == {}


def test_64_at_once_all_get_through_two_at_a_time() -> None:
    slots = StartSlots(2)
    lock = threading.Lock()
    inside, most, done = 0, 0, 0

    def start() -> None:
        nonlocal inside, most, done
        place = slots.enter()
        assert place.wait()
        with lock:
            inside += 1
            most = max(most, inside)
        with lock:
            inside -= 1
            done += 1
        place.leave()

    threads = [threading.Thread(target=start) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (done, inside) == (64, 0)
    assert most <= 2
