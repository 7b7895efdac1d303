"""This machine as a target: every service becomes processes under the stack's supervisor, on loopback."""

from collections.abc import Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

import pulumi
from marketlake.settings import ServiceInfo

from components.providers.ports import Ports
from components.providers.process import SECRET_PROPERTIES, Process
from components.rendering import console_address, health_target, main_address
from components.service import Service
from components.supervision.layout import StackFolder
from components.supervision.program import HostProgram
from components.supervision.resolution import addresses_of, installed, require_tools, resolve
from components.target import Deployed, HostTargetArgs


class HostTarget:
    """Supervised processes of one stack."""

    def __init__(self, args: HostTargetArgs) -> None:
        self._folder = pulumi.Output.from_input(args["folder"])
        self._supervisor = pulumi.Output.from_input(args["supervisor"])
        self._ports = args.get("ports", {})
        self._keep_data = args.get("keep_data", False)

    def deploy(
        self,
        name: str,
        service: Service,
        *,
        inputs: Mapping[str, pulumi.Input[str]],
        secrets: Mapping[str, pulumi.Input[str]],
        opts: pulumi.ResourceOptions,
    ) -> Deployed:
        """Reserve the service's ports, then start it on them; see :class:`components.target.Target`.

        Raises:
            ToolMissingError: its program is not installed. Said here, and not once its ports are known, it can be
                caught by whoever declares the service.
        """
        require_tools(service)
        numbers: pulumi.Output[Mapping[str, int]] = pulumi.Output.from_input({})
        if service.ports:
            numbers = Ports(
                f"{name}-ports",
                {
                    "folder": self._folder,
                    "service": service.name,
                    "preferred": {port: declared.preferred for port, declared in service.ports.items()},
                    "pinned": self._ports.get(service.name, {}),
                },
                pulumi.ResourceOptions(parent=opts.parent),
            ).numbers
        process = Process(
            f"{name}-process",
            {**self._properties(service, numbers, inputs, secrets), "keep_data": self._keep_data},
            opts,
        )
        # Whoever asks for the address of a service wants it to answer there: so it comes from the process.
        addresses = pulumi.Output.all(numbers, process.id).apply(lambda known: addresses_of(_whole(known[0])))
        return Deployed(resource=process, addresses=addresses, info=self._info(service, numbers))

    def job(self, service: Service, *, inputs: Mapping[str, pulumi.Input[str]]) -> None:
        """Return None: a run is a child process of the worker, with the same settings."""
        del service, inputs

    def _properties(
        self,
        service: Service,
        numbers: pulumi.Output[Mapping[str, int]],
        inputs: Mapping[str, pulumi.Input[str]],
        secrets: Mapping[str, pulumi.Input[str]],
    ) -> dict[str, pulumi.Output[Any]]:
        """The fields of a HostProgram; those without secrets in them can be read in previews and in the state."""
        known = pulumi.Output.all(folder=self._folder, numbers=numbers, inputs=dict(inputs))
        hidden = pulumi.Output.all(known=known, secrets=pulumi.Output.secret(dict(secrets)))

        def render(values: Mapping[str, Any], secret_values: Mapping[str, str]) -> dict[str, Any]:
            program = resolve(
                service,
                Path(values["folder"]),
                ports=_whole(values["numbers"]),
                inputs=values["inputs"],
                secrets=secret_values,
            )
            return program.model_dump(mode="json")

        placeholders = dict.fromkeys(secrets, "")
        visible = known.apply(lambda values: render(values, placeholders))
        secret = hidden.apply(lambda values: render(values["known"], values["secrets"]))
        return {
            field: (secret if field in SECRET_PROPERTIES else visible).apply(itemgetter(field))
            for field in HostProgram.model_fields
        }

    def _info(
        self, service: Service, numbers: pulumi.Output[Mapping[str, int]]
    ) -> pulumi.Output[dict[str, Any]]:
        def describe(values: Mapping[str, Any]) -> dict[str, Any]:
            addresses = addresses_of(_whole(values["numbers"]))
            program = installed(service, StackFolder(Path(values["folder"])))
            return ServiceInfo(
                name=service.name,
                version=program.version,
                address=main_address(service, addresses),
                console=console_address(service, addresses) if program.has_pages else None,
                health=service.health.kind,
                target=health_target(service, addresses),
                control=f"supervisor:{values['supervisor']}#{service.name}",
            ).model_dump(mode="json", exclude_none=True)

        return pulumi.Output.all(folder=self._folder, numbers=numbers, supervisor=self._supervisor).apply(
            describe
        )


def _whole(numbers: Mapping[str, float]) -> dict[str, int]:
    """Port numbers as they were given: Pulumi hands every number on as a float."""
    return {port: int(number) for port, number in numbers.items()}
