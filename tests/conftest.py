import pytest

# The promises are no test modules by name, but their assertions are to tell what they saw, too.
pytest.register_assert_rewrite("tests.conformance")
