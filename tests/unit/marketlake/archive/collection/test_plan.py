from dataclasses import replace

from marketlake.archive.collection.plan import plan

from tests.unit.marketlake.archive.samples import archive_file, ledger_entry


def test_files_are_told_apart_by_what_the_ledger_knows() -> None:
    new, same, reissued = archive_file(1), archive_file(2), archive_file(3)
    ledger = {
        same.key: ledger_entry(same),
        reissued.key: replace(ledger_entry(reissued), etag="another"),
    }
    planned = plan([new, same, reissued], ledger)
    assert planned.missing == (new,)
    assert planned.changed == (reissued,)
    assert planned.present == (same,)
    assert planned.wanted == (new, reissued)


def test_another_size_is_a_change_even_under_the_same_etag() -> None:
    file = archive_file(1)
    assert plan([file], {file.key: replace(ledger_entry(file), size=file.size + 1)}).changed == (file,)


def test_a_file_whose_rows_bronze_has_lost_is_wanted_again() -> None:
    lost, empty = archive_file(1), archive_file(2)
    planned = plan(
        [lost, empty],
        {
            lost.key: replace(ledger_entry(lost), data_file_id=None),
            empty.key: replace(ledger_entry(empty), data_file_id=None, rows=0),
        },
    )
    assert planned.changed == (lost,)
    assert planned.present == (empty,)


def test_a_key_that_is_listed_twice_counts_once_as_it_was_shown_last() -> None:
    first = archive_file(1)
    second = replace(first, etag="newer")
    assert plan([first, second], {}).missing == (second,)
