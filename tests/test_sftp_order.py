"""Which requests may be carried out at the same time (launcher/sftp/order.py)."""

from __future__ import annotations

from launcher.sftp import kinds
from launcher.sftp.crew import Crew
from launcher.sftp.order import Job, Order

H, G = b"\0" * 7 + b"\1", b"\0" * 7 + b"\2"


def job(number: int, *fields: object) -> Job:
    return Job(kinds.REQUESTS[number], 0, list(fields), 100)


def named(name: bytes, *fields: object) -> Job:
    return Job(({**kinds.EXTENDED, **kinds.WHERRY})[name], 0, list(fields), 100)


def read(key: bytes = H) -> Job:
    return job(5, key, 0, 10)


def write(key: bytes = H) -> Job:
    return job(6, key, 0, b"")


def lstat() -> Job:
    return job(7, b"/a")


def mkdir() -> Job:
    return job(14, b"/d", None)


def goes(first: Job, second: Job, *, parallel: bool = True) -> bool:
    """Whether the second may overtake the first."""
    order = Order(parallel=parallel)
    order.begin(first)
    return order.offer(second, now=True)


def test_one_handle_is_one_after_the_other() -> None:
    assert not goes(read(), read()) and not goes(write(), read()) and not goes(named(b"fsync@openssh.com", H), write())
    assert not goes(read(), job(4, H)) and not goes(read(), job(8, H)) and not goes(write(), job(10, H, None))
    assert goes(read(), read(G)) and goes(write(), write(G)) and goes(named(b"fsync@openssh.com", H), write(G))


def test_what_is_read_and_written_by_a_handle_is_overtaken_by_all_others() -> None:
    for first in (read(), write(), named(b"fsync@openssh.com", H), named(b"fstatvfs@openssh.com", H)):
        for second in (lstat(), mkdir(), job(4, G), job(10, G, None), named(b"statvfs@openssh.com", b"/")):
            assert goes(first, second) and goes(first, second, parallel=False)


def test_who_only_looks_is_overtaken_by_who_only_looks() -> None:
    assert goes(lstat(), lstat()) and goes(lstat(), read()) and goes(lstat(), named(b"list@wherry", b"/", b"", 0))
    assert goes(lstat(), job(3, b"/a", 1, None)) and goes(lstat(), named(b"open@wherry", b"/a", 1, None, 0))
    assert not goes(lstat(), job(3, b"/a", 1 | 8, None)) and not goes(lstat(), named(b"open@wherry", b"/a", 2 | 16, None, 0))
    assert not goes(lstat(), mkdir()) and not goes(lstat(), write())


def test_a_tree_for_one_thread_at_a_time() -> None:
    for second in (lstat(), mkdir(), job(3, b"/a", 1, None), named(b"list@wherry", b"/", b"", 0), write()):
        assert not goes(lstat(), second, parallel=False)
    for second in (read(), job(4, H), named(b"fsync@openssh.com", H), named(b"list@wherry", b"", H, 0)):
        assert goes(lstat(), second, parallel=False)


def test_a_change_is_overtaken_by_nothing() -> None:
    for first in (mkdir(), job(3, b"/a", 2 | 8, None), job(10, H, None), job(18, b"/a", b"/b"), named(b"fallocate@wherry", H)):
        for second in (lstat(), mkdir(), read(G), write(G), named(b"fsync@openssh.com", G), job(4, G)):
            assert not goes(first, second)


def test_the_rest_of_a_listing_is_overtaken() -> None:
    assert goes(named(b"list@wherry", b"", H, 0), mkdir())
    assert not goes(named(b"list@wherry", b"/", b"", 0), mkdir())
    assert not goes(named(b"list@wherry", b"", H, 0), job(4, H))


def test_who_waits_stops_others_too() -> None:
    order = Order(parallel=True)
    slow, change, look = lstat(), mkdir(), lstat()
    order.begin(slow)
    assert not order.offer(change, now=True)
    # It could go beside what runs, but not before the change.
    assert not order.offer(look, now=True)
    assert order.take(quick=True, slow=True) is None
    order.leave(slow)
    assert order.take(quick=True, slow=True) is change and order.take(quick=True, slow=True) is None
    order.leave(change)
    assert order.take(quick=True, slow=True) is look
    order.leave(look)
    assert not order.busy and not order.showing and not order.bytes


def test_those_who_can_go_are_taken_in_their_order() -> None:
    order = Order(parallel=True)
    first = read()
    order.begin(first)
    same, other, third = read(), read(G), read(G)
    assert not order.offer(same, now=True)
    assert not order.offer(other, now=False)  # for other reasons
    assert not order.offer(third, now=True)
    assert order.bytes == 300
    assert order.take(quick=True, slow=True) is other and order.take(quick=True, slow=True) is None
    order.leave(other)
    assert order.take(quick=True, slow=True) is third
    order.leave(first)
    assert order.take(quick=True, slow=True) is same


def test_what_waits_keeps_no_buffer_alive() -> None:
    order = Order(parallel=True)
    order.begin(write())
    waits = job(6, H, 0, memoryview(b"x" * 100)[10:12])
    assert not order.offer(waits, now=True)
    assert waits.fields[2] == b"xx" and isinstance(waits.fields[2], bytes)


def test_who_waited_for_something_overtaken_is_not_forgotten() -> None:
    """A write waits for a look; another look overtakes the write, and is under way when the first one ends."""
    crew = Crew(lambda _: None, lambda _: None, lambda: None, Order(parallel=True))
    first, waits, second = lstat(), write(), lstat()
    crew.order.begin(first)
    assert not crew.admit(waits) and crew.admit(second)
    crew.leave(first)
    assert crew.waiting() is None
    assert crew.finish(second, 0) and crew.waiting() is waits


def test_what_is_slow_is_not_for_the_leading_thread() -> None:
    order = Order(parallel=True)
    sync, same, other = named(b"fsync@openssh.com", H), read(), read(G)
    assert not order.offer(sync, now=False) and not order.offer(same, now=True)
    assert order.take(quick=True, slow=False) is None and order.fresh_slow
    assert not order.offer(other, now=False)
    assert order.take(quick=True, slow=False) is other
    assert order.take(quick=False, slow=True) is sync
    order.leave(sync)
    assert order.take(quick=True, slow=False) is same
