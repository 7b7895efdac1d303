import pytest
from hypothesis import given
from hypothesis import strategies as st
from marketlake.sync.errors import SidecarInvalidError
from marketlake.sync.sidecar import parse_sidecar

SHA = "dd579c62368ded93d3f01a1904575b932279e32936e181c062763e605793c1c2"


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize("divider", ["  ", " *"])
def test_the_checksum_is_read_with_or_without_a_final_newline(end, divider):
    assert parse_sidecar(f"{SHA.upper()}{divider}a-2020.zip{end}".encode(), "data/a-2020.zip") == SHA


@pytest.mark.parametrize(
    "text",
    ["", SHA, f"{SHA[1:]}  a.zip", f"{SHA}  a.zip\n{SHA}  b.zip", "<?xml version='1.0'?><Error/>", f"{SHA} "],
)
def test_anything_else_is_refused_with_what_it_says(text):
    with pytest.raises(
        SidecarInvalidError, match=r"the checksum file of x/a.zip should read '<sha256>  a.zip'"
    ):
        parse_sidecar(text.encode(), "x/a.zip")


def test_a_sidecar_of_another_file_is_refused():
    with pytest.raises(SidecarInvalidError, match=r"speaks of another file, 'b.zip' instead of 'a.zip'"):
        parse_sidecar(f"{SHA}  b.zip".encode(), "x/a.zip")


@given(st.binary(max_size=6000))
def test_no_bytes_make_it_fail_otherwise(body):
    with pytest.raises(SidecarInvalidError):
        parse_sidecar(body, "x/a.zip")
