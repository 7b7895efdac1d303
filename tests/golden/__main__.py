"""``python -m tests.golden``: write the page of every environment anew."""

import sys

from tests.golden.plan import environments
from tests.golden.summary import FOLDER, golden, summary

known = environments()
for environment in known:
    text, path = summary(environment), golden(environment)
    changed = not path.exists() or path.read_text() != text
    path.write_text(text)
    sys.stdout.write(f"{path.name}: {'written' if changed else 'up to date'}\n")
for path in FOLDER.glob("*.md"):
    if path.stem not in known:
        path.unlink()
        sys.stdout.write(f"{path.name}: removed, there is no such environment\n")
