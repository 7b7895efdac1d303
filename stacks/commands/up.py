"""`make up` and `make refresh`: an environment as its settings say, with a first collection."""

import time

from marketlake.settings import Settings, platform_file

from stacks.commands.stack import Stack
from stacks.commands.summary import console_table, rows_of, silver_tables, summary_table
from stacks.preflight import Preflight, preflight_of
from stacks.settings.environment import EnvironmentSettings
from stacks.settings.validation import require_secrets

SAMPLES = "samples"


def up(stack: Stack, *, collect: bool = True) -> None:
    """Bring the stack to its settings, repair what drifted, and collect the sample files.

    Raises:
        InvalidSettingsError: the settings are wrong, or a secret is missing.
        CapacityError: the machine, or the cluster, is too small or something is missing there.
        KubeconfigMissingError: nothing opens the cluster.
        ClusterUnreachableError: it does not answer.
        LockedError: another command is changing the stack.
        RolloutError: pods do not become what Pulumi made of them.
        ProgramError: a step failed; repeating the command goes on from there.
        InterruptError: the user stopped it; so does that.
    """
    began = time.monotonic()
    settings = stack.validate()
    require_secrets(settings, stack.name, source=str(stack.settings_file))
    preflight = checked(stack, settings)
    preflight.supply(load=True)
    stack.prepare()
    stack.settle(preflight)
    # Refreshed first, because an unchanged program would not notice that, say, a supervisor was killed.
    stack.pulumi("up", "--yes", "--skip-preview", "--refresh", "--suppress-outputs")
    preflight.await_rollouts()
    if collect:
        _collect(stack, settings)
    show_summary(stack, tables=collect)
    stack.say(f"up after {time.monotonic() - began:.0f} s")


def refresh(stack: Stack) -> None:
    """Bring Pulumi's state to what really runs. Raises as :func:`up`."""
    preflight = preflight_of(stack.name, stack.validate())
    preflight.reach()
    stack.prepare()
    if not stack.settle(preflight):
        stack.pulumi("refresh", "--yes", "--skip-preview")


def checked(stack: Stack, settings: EnvironmentSettings) -> Preflight:
    """Return the preflight of an environment after its checks; what they warn of is shown."""
    preflight = preflight_of(stack.name, settings)
    for warning in preflight.check():
        stack.say(f"warning: {warning}")
    return preflight


def show_summary(stack: Stack, *, tables: bool) -> None:
    """Print where the services' pages are and, with `tables`, what the silver tables hold."""
    if tables:
        found = silver_tables(lambda sql: rows_of(stack.marketlake_quietly("sql", "--json", sql)))
        stack.console.print(summary_table(found))
    stack.console.print(console_table(Settings.load(stack.name).services))
    stack.say(f"their users and passwords are in {platform_file(stack.name)}, which only you can read")


def _collect(stack: Stack, settings: EnvironmentSettings) -> None:
    if settings.venue.stand_in:
        stack.say("publishing the sample files in the stand-in venue")
        stack.marketlake("venue", "publish", SAMPLES)
    if settings.venue.stand_in and settings.venue.endpoint is None:
        stack.say("collecting them")
        stack.marketlake("collect", "--venue", "binance", "--all")
