from marketlake.infrastructure.bus.position import Positions


def test_the_position_never_passes_a_message_that_is_open() -> None:
    positions = Positions()
    for offset in (5, 6, 7):
        assert positions.begin(0, offset)
    positions.end(0, 6)
    assert positions.advanced() == {}
    positions.end(0, 5)
    assert positions.advanced() == {0: 7}
    positions.end(0, 7)
    assert positions.advanced() == {0: 8}
    assert positions.advanced() == {}


def test_a_message_that_is_open_is_not_begun_again() -> None:
    positions = Positions()
    assert positions.begin(0, 5)
    assert not positions.begin(0, 5)


def test_a_partition_that_starts_again_is_read_from_there() -> None:
    positions = Positions()
    for offset in (7, 8):
        positions.begin(0, offset)
    positions.end(0, 7)
    assert positions.advanced() == {0: 8}
    assert positions.begin(0, 0), "the topic was made anew"
    assert not positions.is_open(0, 8)
    positions.end(0, 8)
    assert positions.advanced() == {}
    positions.end(0, 0)
    assert positions.advanced() == {0: 1}


def test_a_partition_that_was_given_away_is_not_committed() -> None:
    positions = Positions()
    positions.begin(0, 1)
    positions.begin(1, 1)
    positions.end(0, 1)
    positions.end(1, 1)
    positions.forget({0})
    assert positions.advanced() == {1: 2}
    positions.end(0, 1)
    assert not positions.is_open(0, 1)


def test_a_partition_that_comes_back_is_read_again_from_where_it_was_committed() -> None:
    positions = Positions()
    positions.begin(0, 9)
    positions.forget({0})
    assert positions.begin(0, 4)
    assert positions.open_count() == 1


def test_only_the_asked_partitions_are_committed() -> None:
    positions = Positions()
    for partition in (0, 1):
        positions.begin(partition, 0)
        positions.end(partition, 0)
    assert positions.advanced({1}) == {1: 1}
    assert positions.advanced() == {0: 1}
