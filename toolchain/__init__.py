"""The bill of materials of every tool, and the installer that brings each from the first source that works."""
