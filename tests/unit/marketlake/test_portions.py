from hypothesis import given
from hypothesis import strategies as st
from marketlake.portions import portions


def test_a_portion_is_as_full_as_it_can_be() -> None:
    assert list(portions([3, 4, 3, 11, 1, 10, 9], lambda item: item, 10)) == [[3, 4, 3], [11], [1], [10], [9]]
    assert list(portions([], lambda _: 1, 10)) == []


@given(sizes=st.lists(st.integers(0, 9)), most=st.integers(1, 20))
def test_all_items_come_in_order_and_only_a_large_one_exceeds_a_portion(sizes: list[int], most: int) -> None:
    cut = list(portions(enumerate(sizes), lambda item: item[1], most))
    assert [item for portion in cut for item in portion] == list(enumerate(sizes))
    assert all(len(portion) == 1 or sum(size for _, size in portion) <= most for portion in cut)
