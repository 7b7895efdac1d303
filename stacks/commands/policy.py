"""`make policy`: a recorded state, held to the policies."""

from pathlib import Path
from tempfile import TemporaryDirectory

from stacks.commands.stack import Stack
from stacks.engine.policy_pack import policy_arguments


class StackMissingError(Exception):
    """There is no stack whose state could be checked."""


def check_policies(stack: Stack, state: Path | None = None) -> None:
    """Hold a recorded state to the policies.

    Args:
        stack: the environment, whose levels hold.
        state: a file that `pulumi stack export` wrote; the stack's own state when omitted.

    Raises:
        StackMissingError: there is no state.
        ProgramError: a mandatory rule is broken.
    """
    if state is None and not stack.exists:
        raise StackMissingError(
            f"There is no stack {stack.name!r} whose state could be checked: `make up ENV={stack.name}` makes one."
        )
    stack.workspace.prepare()
    with TemporaryDirectory(prefix="marketlake-state-") as folder:
        if state is None:
            state = Path(folder, "state.json")
            stack.pulumi_quietly("stack", "export", "--stack", stack.name, "--file", str(state))
        stack.say(f"checking the policies over {state.name} of {stack.name!r}")
        arguments = policy_arguments(stack.policy_levels)
        stack.pulumi_bare("policy", "analyze", "--file", str(state.absolute()), *arguments)
