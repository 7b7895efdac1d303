"""`make preview` and `make preview-report`: what `up` would change."""

from pathlib import Path
from tempfile import TemporaryDirectory

from stacks.commands.stack import Stack
from stacks.commands.up import checked
from stacks.preview.report import Preview
from stacks.settings.validation import require_secrets


def preview(stack: Stack) -> None:
    """Show what `up` would change, and what the policies find in it. Raises as :func:`stacks.commands.up.up`."""
    settings = stack.validate()
    require_secrets(settings, stack.name, source=str(stack.settings_file))
    checked(stack, settings).supply(load=False)
    stack.prepare(changing=False)
    stack.pulumi("preview", "--refresh", *stack.policy_arguments())


def preview_for_report(stack: Stack, *, refresh: bool = False) -> Preview:
    """Return what `up` would change, for a report. A preview that fails is one, too.

    Args:
        stack: the environment.
        refresh: look at what really runs first, which needs every server to be reachable.

    Raises:
        InvalidSettingsError: the settings are wrong.
        ToolMissingError: Pulumi is not installed.
    """
    stack.validate()
    stack.prepare(changing=False)
    with TemporaryDirectory(prefix="marketlake-preview-") as folder:
        events = Path(folder, "events.json")
        arguments = ["--json", "--event-log", str(events), *(["--refresh"] if refresh else [])]
        ended = stack.pulumi_finished(
            "preview",
            *arguments,
            *stack.policy_arguments(),
            # Findings of policies are among the engine's events alone, and `--event-log` is a developer's option.
            variables={"PULUMI_DEBUG_COMMANDS": "true"},
        )
        return Preview.of(
            stack.name,
            ended.out,
            events.read_text() if events.exists() else "",
            failed=ended.code != 0,
            errors=ended.errors,
            refreshed=refresh,
        )
