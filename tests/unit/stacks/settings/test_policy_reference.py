from pathlib import Path

from policies.rules import RULES, marks
from stacks.engine.workspace import PROJECT_FOLDER
from stacks.settings.policy_reference import POLICIES, policies_reference
from stacks.settings.reference import write_page


def test_the_committed_reference_is_what_the_rules_say() -> None:
    assert POLICIES.read_text() == policies_reference(), "run `make reference` and commit docs/reference"


def test_every_rule_has_a_row_and_a_section() -> None:
    page = policies_reference()
    for rule in RULES:
        assert f"| [`{rule.id}`](#{rule.id}) | {rule.title} | {rule.enforcement} |" in page
        assert f"## {rule.id}\n\n{rule.title}. {rule.why}\n\n**To keep it:** {rule.remedy}" in page


def test_a_page_is_written_only_when_it_changed(tmp_path: Path) -> None:
    page = tmp_path / "policies.md"
    assert write_page(page, policies_reference())
    assert not write_page(page, policies_reference())
    assert page.read_text() == policies_reference()


def test_every_mark_is_explained_to_users() -> None:
    page = (PROJECT_FOLDER / "docs" / "policies.md").read_text()
    for mark in (marks.EXPOSED, marks.BACKUP, marks.VERSIONS, marks.API_ACCESS):
        assert f"| `{mark}` |" in page
