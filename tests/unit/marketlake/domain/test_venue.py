from dataclasses import replace

from marketlake.archive.venues.binance import Binance
from marketlake.domain.archive import Selection
from marketlake.domain.venue import ContractMapping, matching_datasets

VENUE = Binance()


class Wider(Binance):
    """A venue one of whose own words is the neutral id of another of its data types, and that has mark candles."""

    def datasets(self):
        shared = ContractMapping(published="p", dataset="candles", fixed={"price_kind": "mark"})
        odd = ContractMapping(published="p", dataset="klines")
        changed = {"markPriceKlines": shared, "metrics": odd}
        return tuple(
            replace(dataset, mapping=changed.get(dataset.data_type, dataset.mapping))
            for dataset in super().datasets()
        )


def words(venue, **selected):
    selection = Selection(venue="binance", **selected)
    return {(dataset.market, dataset.data_type) for dataset in matching_datasets(venue, selection)}


def test_nothing_named_means_all():
    assert len(words(VENUE)) == len(VENUE.datasets())
    assert words(VENUE, market="option") == {("option", "BVOLIndex"), ("option", "EOHSummary")}


def test_a_neutral_id_may_mean_several_of_the_venues_data_types():
    assert words(Wider(), market="um", data_type="candles") == {("um", "klines"), ("um", "markPriceKlines")}


def test_the_venues_word_goes_before_a_neutral_id():
    assert words(Wider(), market="um", data_type="klines") == {("um", "klines")}


def test_what_nobody_knows_means_nothing():
    assert words(VENUE, data_type="books") == set()
