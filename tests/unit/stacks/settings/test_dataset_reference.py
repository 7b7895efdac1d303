from stacks.settings.dataset_reference import DATASETS, datasets_reference


def test_the_committed_page_is_what_the_contracts_say() -> None:
    assert DATASETS.read_text() == datasets_reference(), "run `make reference` and commit docs/datasets.md"


def test_the_page_tells_what_the_venues_words_mean() -> None:
    assert (
        "| `candles` (trade) | binance | `klines` | spot, um, cm | `bronze.binance_klines` |"
        in datasets_reference()
    )
