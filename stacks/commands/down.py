"""`make down`: an environment destroyed, and proof that nothing of it is left."""

from components.supervision.layout import KEEP_DATA_VARIABLE
from stacks.commands.stack import Stack
from stacks.preflight import Preflight, preflight_of
from stacks.settings.environment import EnvironmentSettings


class LeftoverError(Exception):
    """Something of a destroyed stack is left."""


def down(stack: Stack, *, keep_data: bool) -> None:
    """Destroy the stack and prove that nothing of it is left.

    Raises:
        InvalidSettingsError: the settings, which say where the data lies, are wrong.
        LockedError: another command is changing the stack.
        ProgramError: Pulumi could not destroy something; repeating the command goes on from there.
        LeftoverError: something is left.
        KubeconfigMissingError: nothing opens the cluster.
        ClusterUnreachableError: it does not answer.
    """
    settings = stack.validate()
    keep = keep_data or settings.keep_data
    preflight = preflight_of(stack.name, settings)
    preflight.reach()
    if stack.exists:
        stack.prepare()
        stack.settle(preflight)
        variables = {KEEP_DATA_VARIABLE: "keep"} if keep else {}
        stack.pulumi("destroy", "--yes", "--skip-preview", variables=variables)
    else:
        stack.say(f"there is no stack {stack.name!r}; looking for what may be left of one")
    for line in preflight.remove_leftovers(keep_data=keep):
        stack.say(line)
    if stack.exists:
        stack.pulumi_quietly("stack", "rm", stack.name, "--yes", "--preserve-config")
    stack.workspace.forget(stack.name)
    _prove_gone(stack, preflight, keep=keep)
    if external := _in_external_servers(settings):
        stack.say(f"what it made in external servers stays there: {', '.join(external)}")


def _prove_gone(stack: Stack, preflight: Preflight, *, keep: bool) -> None:
    problems = preflight.leftovers(keep_data=keep)
    if stack.exists:
        problems.append(f"its state is in {stack.state_file}")
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise LeftoverError(f"Of the stack {stack.name!r} something is left:{lines}")
    stack.say(f"nothing of {stack.name!r} is left: {preflight.after_removal(keep_data=keep)}")


def _in_external_servers(settings: EnvironmentSettings) -> list[str]:
    """Return what lies in servers that the stack does not own."""
    found = []
    if database := settings.database.external:
        found.append(f"databases at {database.host}")
    if store := settings.object_store.external:
        found.append(f"buckets at {store.endpoint}")
    if bus := settings.event_bus.external:
        found.append(f"topics at {bus.bootstrap_servers}")
    return found
