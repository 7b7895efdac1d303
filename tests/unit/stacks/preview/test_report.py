"""A preview as Markdown: what a reader sees first, what nobody sees, and how long it gets."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stacks.preview.changes import SECRET
from stacks.preview.report import LIMIT, Preview, findings_of, marker, report

STACK = "urn:pulumi:blue::marketlake::pulumi:pulumi:Stack::marketlake-blue"
LATER = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
BUCKET = "pulumi-python:dynamic/marketlake:Bucket"
STATEFUL_SET = "kubernetes:apps/v1:StatefulSet"


def step(
    op: str,
    kind: str = STATEFUL_SET,
    name: str = "database",
    *,
    old: dict[str, Any] | None = None,
    new: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
    parent: str = "database",
    **more: Any,
) -> dict[str, Any]:
    urn = f"urn:pulumi:blue::marketlake::{kind}::{name}"
    above = f"urn:pulumi:blue::marketlake::marketlake:index:Component::{parent}" if parent else STACK
    found: dict[str, Any] = {"op": op, "urn": urn, "detailedDiff": None, **more}
    for side, inputs in (("oldState", old), ("newState", new)):
        if inputs is not None:
            found[side] = {"urn": urn, "type": kind, "inputs": inputs, "parent": above}
    if outputs is not None:
        found["oldState"]["outputs"] = outputs
    return found


def preview(*steps: dict[str, Any], **more: Any) -> Preview:
    document = {
        "steps": list(steps),
        "diagnostics": more.pop("diagnostics", []),
        "changeSummary": more.pop("summary", {}),
    }
    return Preview(environment="blue", document=document, **more)


def events(*found: dict[str, Any]) -> str:
    lines = [json.dumps({"sequence": 0, "diagnosticEvent": {"message": "policyEvent, says somebody"}})]
    return "\n".join([*lines, *(json.dumps({"policyEvent": event}) for event in found)])


def finding(**changes: Any) -> dict[str, Any]:
    return {
        "policyName": "image-by-digest",
        "enforcementLevel": "mandatory",
        "resourceUrn": f"urn:pulumi:blue::marketlake::marketlake:index:Database${STATEFUL_SET}::database",
        "message": "Images are named by digest\nspec.containers[0].image: is 'web:1'\nName the image by its digest.",
        **changes,
    }


def test_the_comment_is_found_again_by_its_first_line() -> None:
    text = report(preview())
    assert text.splitlines()[:2] == [marker("blue"), "## Preview of `blue`"]
    assert marker("blue") != marker("blue-2")
    assert marker("blue").startswith("<!--"), "a reader does not see it"


def test_nothing_to_do_is_one_sentence() -> None:
    same = step("same", old={"a": 1}, new={"a": 1})
    assert report(preview(same, summary={"same": 49})).splitlines()[2:] == [
        "",
        "**No change** · 49 unchanged",
    ]


def test_unchanged_resources_are_counted_by_pulumi_which_leaves_their_steps_out() -> None:
    update = step("update", old={"a": 1}, new={"a": 2})
    refreshed = preview(step("refresh", name="other"), summary={"same": 48, "update": 1}, refreshed=True)
    assert "**1 to update** · 49 unchanged\n" in report(preview(update, summary={"same": 49, "update": 1}))
    assert "**No change** · 48 unchanged\n" in report(refreshed)


def test_what_could_hurt_comes_first_and_says_what_would_be_lost() -> None:
    text = report(
        preview(
            step("create", name="c", new={}, parent=""),
            step("update", name="u", old={"spec": {"replicas": 1}}, new={"spec": {"replicas": 2}}),
            step("delete", BUCKET, "d", old={"force_destroy": True}, parent="data-lake"),
            step("create-replacement", name="r", old={"spec": {}}, new={"spec": {}}),
            step("delete-replaced", name="r", old={"spec": {}}),
            diagnostics=[
                {"message": "warning: mind the gap\n", "severity": "warning", "urn": "urn:a::u"},
                {"message": "error: no\n", "severity": "error"},
                {"message": "collecting", "severity": "info"},
                {
                    "message": "warning: using pulumi-resource-x from $PATH at /home/me\n",
                    "severity": "warning",
                },
            ],
            findings=findings_of([{"policyEvent": finding()}]),
        )
    )
    assert text == (
        "<!-- marketlake preview: blue -->\n"
        "## Preview of `blue`\n"
        "\n"
        "**1 to replace** · **1 to delete** · **1 to update** · **1 to create** · **1 policy violation**\n"
        "\n"
        "### Replaced: deleted and made anew\n"
        "- StatefulSet `r` of database: loses nothing but the time without its pods: its volumes stay\n"
        "\n"
        "### Deleted\n"
        "- Bucket `d` of data-lake: loses all objects in the bucket, all versions\n"
        "\n"
        "### Updated\n"
        "- StatefulSet `u` of database\n"
        "  - `spec.replicas`: `1` → `2`\n"
        "\n"
        "### Created\n"
        "- **the stack itself** (1): StatefulSet `c`\n"
        "\n"
        "### Policy findings\n"
        "- **mandatory** `image-by-digest` StatefulSet `database`: Images are named by digest\n"
        "  - spec.containers\\[0\\].image: is 'web:1'\n"
        "  - Name the image by its digest.\n"
        "\n"
        "### Errors\n"
        "```text\n"
        "no\n"
        "```\n"
        "\n"
        "### Warnings\n"
        "`u`\n"
        "```text\n"
        "mind the gap\n"
        "```\n"
    )


def test_creates_are_grouped_by_component() -> None:
    text = report(
        preview(
            step("create", BUCKET, "lake", new={}, parent="data-lake"),
            step("create", name="database", new={}),
            step("create", BUCKET, "landing", new={}, parent="data-lake"),
        )
    )
    assert (
        "- **data-lake** (2): Bucket `lake`, `landing`\n- **database** (1): StatefulSet `database`\n" in text
    )


def test_the_same_changes_give_the_same_text_in_whatever_order_they_come() -> None:
    steps = [step("create", name=name, new={}) for name in "cab"]
    found = [finding(policyName=name) for name in ("b", "a")]
    one = Preview.of("blue", json.dumps({"steps": steps}), events(*found))
    other = Preview.of("blue", json.dumps({"steps": steps[::-1]}), events(*found[::-1], *found))
    assert report(one) == report(other)


def test_properties_are_shown_old_and_new_with_the_reason_of_a_replacement_first() -> None:
    changed = step(
        "replace",
        old={"spec": {"a": 1, "list": [1], "gone": "x"}, "metadata": {"annotations": {}}},
        new={"spec": {"a": 2, "list": [1, 2]}, "metadata": {"annotations": {"x/y.z": LATER}}},
        outputs={"spec": {"a": 9}},
        detailedDiff={
            "spec.a": {"kind": "update-replace", "inputDiff": False},
            "spec.list[1]": {"kind": "add", "inputDiff": True},
            "spec.gone": {"kind": "delete", "inputDiff": True},
            'metadata.annotations["x/y.z"]': {"kind": "add", "inputDiff": True},
            "spec.unseen": {"kind": "update", "inputDiff": True},
        },
    )
    text = report(preview(changed))
    assert text.index("`spec.a` (replaces): `9` → `2`") < text.index("metadata.annotations")
    assert "  - `spec.list[1]`: `2` (new)\n" in text
    assert "  - `spec.gone`: `x` (removed)\n" in text
    assert '  - `metadata.annotations.["x/y.z"]`' not in text
    assert '  - `metadata.annotations["x/y.z"]`: `(known after the update)` (new)\n' in text
    assert "  - `spec.unseen`\n" in text


def test_without_a_detailed_difference_the_inputs_are_compared() -> None:
    changed = step(
        "update",
        BUCKET,
        old={"tags": {"a": "1"}, "bucket": "x", "__provider": "abc"},
        new={"tags": {"a": "2"}, "bucket": "y", "__provider": "abd"},
        replaceReasons=["bucket"],
    )
    lines = report(preview(changed)).splitlines()
    assert lines[-2:] == ["  - `bucket` (replaces): `x` → `y`", "  - `tags.a`: `1` → `2`"]


def test_long_texts_and_checksums_are_cut_short() -> None:
    digest = "web@sha256:" + "0123456789abcdef" * 4
    text = report(
        preview(step("update", old={"image": digest, "text": "x" * 300}, new={"image": "y", "text": "z\nz"}))
    )
    assert "`image`: `web@sha256:01234567…` → `y`" in text
    assert f"`{'x' * 80}… (300 characters)` → `z z`" in text


def test_many_properties_of_one_resource_are_counted() -> None:
    old = {f"p{number:02}": 1 for number in range(27)}
    text = report(preview(step("update", old=old, new=dict.fromkeys(old, 2))))
    assert text.endswith("`p24`: `1` → `2`\n  - 2 more properties\n")


def test_what_changed_behind_pulumis_back_is_told_apart_from_what_would_be_done() -> None:
    found = step("update", old={"replicas": 2}, new={"replicas": 5})
    done = step("update", old={"replicas": 5}, new={"replicas": 2})
    steps = [step("refresh", name="other", old={}, new={}), found, done]
    text = report(preview(*steps, refreshed=True))
    drift, update = text.index("### Changed behind Pulumi's back"), text.index("### Updated")
    assert text.index("`2` → `5`") > drift
    assert drift < update < text.index("`5` → `2`")
    assert "**1 to update** · **1 changed behind Pulumi's back**" in text


def test_a_failed_preview_says_so_with_pulumis_own_words() -> None:
    told = preview(failed=True, errors="error: could not reach the backend\n")
    assert not told.good
    assert "**The preview failed**" in report(told)
    assert "```text\nerror: could not reach the backend\n```" in report(told)
    assert "**The preview failed** · **1 to create**" in report(preview(step("create", new={}), failed=True))


def test_what_pulumi_printed_may_be_no_document() -> None:
    told = Preview.of("blue", "error: no project\n", "", failed=True, errors="")
    assert report(told).endswith("**The preview failed**\n")


@pytest.mark.parametrize(("level", "good"), [("mandatory", False), ("advisory", True)])
def test_only_mandatory_findings_make_a_preview_bad(level: str, good: bool) -> None:
    told = Preview.of("blue", "{}", events(finding(enforcementLevel=level, resourceUrn="")))
    assert told.good is good
    assert f"- **{level}** `image-by-digest`: Images" in report(told)


def test_texts_of_others_cannot_become_markup() -> None:
    text = report(
        preview(
            step("create", name="a`<b>", new={}, parent="<img src=x> @all"),
            findings=findings_of([{"policyEvent": finding(message="see [here](http://x) <!-- hidden -->")}]),
            diagnostics=[{"message": "error: ```\n# not a heading", "severity": "error"}],
        )
    )
    assert "`a'<b>`" in text
    assert "**\\<img src=x\\> \\@all**" in text
    assert "\\[here\\](http://x) \\<!-- hidden --\\>" in text
    assert "````text\n```\n# not a heading\n````" in text


def test_what_does_not_fit_is_counted() -> None:
    steps = [
        step("update", name=f"n{number:04}", old={"a": "x" * 70}, new={"a": "y" * 70})
        for number in range(600)
    ]
    text = report(preview(*steps))
    assert len(text) <= LIMIT
    assert "more entries do not fit: `make preview ENV=blue` shows all." in text
    shown = text.count("StatefulSet `n")
    assert f"\n{600 - shown} more entries" in text


HIDDEN = "hunter2-" + "5ecret" * 2
names = st.sampled_from(
    [
        "password",
        "secret_access_key",
        "secretAccessKey",
        "DB_PASSWORD",
        "api-token",
        "rootPassphrase",
        "auth_string",
    ]
)
plain_names = st.sampled_from(["spec", "config", "items", "a.b", "x/y"])
texts = st.sampled_from(
    [
        "postgresql://me:{}@db:5432/x",
        "password={}",
        '{{"password": "{}"}}',
        '{{"inner": "{{\\"password\\": \\"{}\\"}}"}}',
        "authorization: Bearer {}",
        "--token={}",
    ]
).map(lambda text: text.format(HIDDEN))
secrets = st.deferred(
    lambda: st.one_of(
        st.builds(lambda name: {name: HIDDEN}, names),
        st.builds(lambda name: {name: {"inner": [HIDDEN]}}, names),
        st.builds(lambda name: {"env": [{"name": name, "value": HIDDEN}]}, names),
        st.builds(lambda name, text: {name: text}, plain_names, texts),
        st.builds(lambda name, inner: {name: inner}, plain_names, secrets),
        st.builds(lambda inner: {"list": [inner]}, secrets),
    )
)


@settings(max_examples=300)
@given(old=secrets, new=secrets, op=st.sampled_from(["update", "replace", "create", "delete", "same"]))
def test_no_secret_is_ever_shown(old: dict[str, Any], new: dict[str, Any], op: str) -> None:
    def paths(value: Any, path: str = "") -> dict[str, Any]:
        inner = value.items() if isinstance(value, dict) else enumerate(value)
        found: dict[str, Any] = {}
        for key, item in inner:
            here = f"{path}[{key}]" if isinstance(key, int) else f'{path}["{key}"]'
            found[here] = {"kind": "update", "inputDiff": True}
            if isinstance(item, dict | list):
                found |= paths(item, here)
        return found

    for detailed in (None, {**paths(old), **paths(new)}):
        text = report(
            preview(
                step(op, old=old, new=new, detailedDiff=detailed),
                diagnostics=[{"message": f"error: password: {HIDDEN}", "severity": "error"}],
                findings=findings_of([{"policyEvent": finding(message=f"x: http://a:{HIDDEN}@b/")}]),
                failed=True,
                errors=f"secret={HIDDEN}",
            )
        )
        assert HIDDEN not in text
        assert HIDDEN[:8] not in text


def test_whatever_lies_in_a_kubernetes_secret_is_masked() -> None:
    old, new = {"stringData": {"file.conf": HIDDEN}}, {"stringData": {"file.conf": "other"}}
    text = report(preview(step("update", "kubernetes:core/v1:Secret", old=old, new=new)))
    assert f"`{SECRET}`, changed where it is not shown" in text
    assert HIDDEN not in text


wild = st.text(max_size=4000)
steps = st.builds(
    lambda op, name, old, new: step(op, name=name, old=old, new=new, parent=name),
    st.sampled_from(["create", "update", "replace", "delete", "refresh", "same", "read"]),
    wild,
    st.dictionaries(st.text(min_size=1), wild, max_size=5),
    st.dictionaries(st.text(min_size=1), wild, max_size=5),
)


@settings(max_examples=60)
@given(
    st.lists(steps, max_size=8),
    st.integers(1, 40),
    st.lists(wild, max_size=5),
    st.text(max_size=200_000 // 50),
)
def test_a_report_never_exceeds_what_a_comment_can_hold(
    few: list[dict[str, Any]], times: int, messages: list[str], errors: str
) -> None:
    many = [{**one, "urn": f"{one['urn']}{turn}"} for one in few for turn in range(times)]
    told = preview(
        *many,
        diagnostics=[{"message": message, "severity": "error"} for message in messages * times],
        findings=findings_of({"policyEvent": finding(message=message)} for message in messages),
        failed=True,
        errors=errors * 50,
    )
    assert len(report(told)) <= LIMIT
