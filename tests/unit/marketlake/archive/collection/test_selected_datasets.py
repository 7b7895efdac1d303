import pytest
from marketlake.archive.collection.plan import selected_datasets
from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import Frequency, Selection
from marketlake.domain.venue import SelectionError


def pairs(selection: Selection) -> set[tuple[str | None, str | None]]:
    return {(part.market, part.data_type) for part in selected_datasets(Binance(), selection)}


def test_all_means_every_dataset_that_can_be_parsed() -> None:
    assert pairs(Selection(venue="binance")) == {
        ("spot", "klines"),
        ("spot", "aggTrades"),
        ("um", "klines"),
        ("um", "aggTrades"),
        ("um", "fundingRate"),
        ("cm", "klines"),
        ("cm", "aggTrades"),
        ("cm", "fundingRate"),
    }


def test_a_neutral_id_means_the_venues_data_types_of_the_dataset() -> None:
    for neutral, word in (
        ("candles", "klines"),
        ("agg_trades", "aggTrades"),
        ("funding_rates", "fundingRate"),
    ):
        found = pairs(Selection(venue="binance", data_type=neutral))
        assert found == pairs(Selection(venue="binance", data_type=word))
        assert {data_type for _, data_type in found} == {word}


def test_what_was_asked_for_stays_in_each_part() -> None:
    (part,) = selected_datasets(
        Binance(),
        Selection(venue="binance", market="spot", data_type="klines", interval="1m", symbols=("A",)),
    )
    assert (part.interval, part.symbols) == ("1m", ("A",))


def test_an_interval_leaves_only_datasets_that_have_it() -> None:
    assert pairs(Selection(venue="binance", interval="1s")) == {("spot", "klines")}


def test_a_frequency_leaves_only_datasets_that_have_it() -> None:
    assert ("um", "fundingRate") not in pairs(Selection(venue="binance", frequency=Frequency.DAILY))


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (
            Selection(venue="binance", data_type="metrics"),
            r"metrics of binance cannot be collected: it is catalogued",
        ),
        (
            Selection(venue="binance", market="option"),
            r"cannot be collected: it is catalogued, but not parsed yet",
        ),
        (Selection(venue="binance", data_type="nonsense"), r"what was selected .* there is no such dataset"),
    ],
)
def test_what_cannot_be_collected_is_told_with_what_can(selection: Selection, message: str) -> None:
    with pytest.raises(SelectionError, match=message) as caught:
        selected_datasets(Binance(), selection)
    assert "Types that can be: aggTrades, fundingRate, klines." in str(caught.value)
