from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketlake.infrastructure.bus.envelope import EnvelopeError, Event, Message

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3),
)


@given(
    data=st.dictionaries(st.text(), json_values, max_size=4),
    subject=st.none() | st.text(st.characters(min_codepoint=32, codec="utf-8"), min_size=1),
    key=st.none() | st.text(min_size=1),
    traceparent=st.none() | st.just(TRACE),
)
def test_what_was_put_into_a_message_comes_out_of_it(
    data: dict[str, object], subject: str | None, key: str | None, traceparent: str | None
) -> None:
    event = Event(
        source="/test", type="t", subject=subject, partition_key=key, traceparent=traceparent, data=data
    )
    assert Event.from_message(event.to_message()) == event


def test_attributes_travel_as_kafka_headers_in_binary_mode() -> None:
    event = Event(
        id="1", source="/s", type="t", time=datetime(2026, 1, 2, tzinfo=UTC), traceparent=TRACE, data={"a": 1}
    )
    message = event.to_message()
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"1",
        "ce_source": b"/s",
        "ce_type": b"t",
        "ce_time": b"2026-01-02T00:00:00Z",
        "ce_traceparent": TRACE.encode(),
        "content-type": b"application/json",
        "traceparent": TRACE.encode(),
    }
    assert message.value == b'{"a": 1}'


def test_structured_mode_of_other_producers_is_read_too() -> None:
    message = Message(
        key="k",
        value=b'{"specversion":"1.0","id":"9","source":"/other","type":"t","data":{"a":1}}',
        headers=(("content-type", b"application/cloudevents+json"),),
    )
    event = Event.from_message(message)
    assert (event.id, event.source, event.data, event.partition_key) == ("9", "/other", {"a": 1}, "k")


@pytest.mark.parametrize(
    "message",
    [
        Message(key=None, value=b"junk"),
        Message(key=None, value=b""),
        Message(key=None, value=b"\xff\xfe", headers=(("ce_specversion", b"1.0"),)),
        Message(key=None, value=b"[1]", headers=Event(source="/s", type="t", data={}).to_message().headers),
        Message(key=None, value=b"{}", headers=(("ce_specversion", b"1.0"), ("ce_id", b"1"))),
        Message(key=None, value=b"{}", headers=(("content-type", b"application/cloudevents+json"),)),
    ],
)
def test_what_is_no_event_is_refused_with_a_reason(message: Message) -> None:
    with pytest.raises(EnvelopeError, match=r"not a (usable )?CloudEvent: \S+"):
        Event.from_message(message)


def test_the_last_header_of_a_name_counts() -> None:
    message = Message(key=None, value=b"", headers=(("a", b"1"), ("a", b"2")))
    assert (message.header("a"), message.header("b")) == ("2", None)
