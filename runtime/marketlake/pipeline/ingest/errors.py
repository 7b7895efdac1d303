"""What is wrong with a file whose bytes are proven, one class per cause."""

from marketlake.errors import MarketlakeError


class MultipleMembersError(MarketlakeError):
    """The zip does not hold exactly one member."""

    code = "multiple-members"


class InflatedTooLargeError(MarketlakeError):
    """The member inflates to more than the settings allow: a zip bomb, or a file larger than was foreseen."""

    code = "inflated-too-large"


class CorruptZipError(MarketlakeError):
    """The member does not inflate to what the zip's directory says."""

    code = "corrupt-zip"


class SchemaChangedError(MarketlakeError):
    """No row of the file has the columns that its data type is declared with."""

    code = "schema-changed"
