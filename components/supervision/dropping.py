"""Script ``dropping.py UID GID COMMAND [ARGUMENT…]``: become another account, then the given command.

It stands between because Python can only change the account of a child that it forks, and the process of a dynamic
provider must not fork: gRPC's threads crash in the copy. Without such a wish a child is made by vfork.
"""

import os
import sys

if __name__ == "__main__":
    uid, gid, *command = sys.argv[1:]
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))
    os.execvp(command[0], command)  # noqa: S606 - no shell is wanted
