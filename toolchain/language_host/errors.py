"""What the host cannot do; each message says what to do next."""


class HostError(Exception):
    """A request cannot be served as it is."""


class UnsupportedOptionError(HostError):
    """The project asks for something that only the vendor's host can do."""


class PythonMissingError(HostError):
    """There is no Python to run the program with."""
