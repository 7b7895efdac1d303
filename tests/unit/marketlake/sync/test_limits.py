from marketlake.sync.limits import HostLimiter


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_requests_to_one_host_are_spread_and_hosts_do_not_wait_for_each_other() -> None:
    limiter = HostLimiter(4.0, clock=Clock())
    assert [limiter.reserve("a") for _ in range(3)] == [0.0, 0.25, 0.5]
    assert limiter.reserve("b") == 0.0


def test_time_that_passed_is_not_saved_up_for_a_burst() -> None:
    clock = Clock()
    limiter = HostLimiter(4.0, clock=clock)
    limiter.reserve("a")
    clock.now += 10
    assert [limiter.reserve("a") for _ in range(2)] == [0.0, 0.25]


def test_a_host_that_asked_for_a_pause_is_left_alone() -> None:
    clock = Clock()
    limiter = HostLimiter(4.0, clock=clock)
    limiter.hold_off("a", 30)
    assert limiter.reserve("a") == 30
    limiter.hold_off("a", 1)
    assert limiter.reserve("a") == 30.25
