import signal

import pytest

# The promises are no test modules by name, but their assertions are to tell what they saw, too.
pytest.register_assert_rewrite("tests.conformance")

# A shell's background job ignores SIGINT, and so does all that it starts: Ctrl-C would reach no test.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
