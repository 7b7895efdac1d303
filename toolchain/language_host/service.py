"""The ``LanguageRuntime`` service for Python."""
# ruff: noqa: N802, ARG001, ARG002 - names and arguments are the protocol's

import json
import os
import shutil
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import grpc
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import language_pb2 as proto
from pulumi.runtime.proto.plugin_pb2 import PluginInfo

from toolchain.language_host import VERSION
from toolchain.language_host.errors import HostError, PythonMissingError
from toolchain.language_host.interpreter import (
    VENDOR_ONLY,
    Interpreter,
    interpreter_of,
    system_python,
    virtualenv_of,
)
from toolchain.language_host.processes import Processes, Stream

EXECUTOR = "pulumi-language-python-exec"
ALREADY_TOLD = 32
"""Exit code of the executor when the user has seen the error."""
_DISTRIBUTIONS = Path(__file__).with_name("distributions.py")
_ABOUT = "import platform, sys; print(sys.executable); print(platform.python_version())"


def _refusal(what: str) -> Callable[[Any, Any, Any], Coroutine[Any, Any, NoReturn]]:
    """A call that this host does not serve."""

    async def refuse(self: object, request: object, context: Any) -> NoReturn:
        await _fail(context, f"cannot {what}: {VENDOR_ONLY}", grpc.StatusCode.UNIMPLEMENTED)

    return refuse


class LanguageHost:
    """Serves any number of programs, policy packs and packages at once.

    Args:
        engine: address of the engine.
        tracing: where programs send their traces, if anywhere.
    """

    def __init__(self, engine: str, tracing: str | None = None) -> None:
        self._engine = engine
        self._tracing = tracing
        self.processes = Processes()

    async def Handshake(
        self, request: proto.LanguageHandshakeRequest, context: Any
    ) -> proto.LanguageHandshakeResponse:
        """Take the engine's address, where the command line attaches to a host that runs already."""
        self._engine = request.engine_address or self._engine
        return proto.LanguageHandshakeResponse()

    async def GetPluginInfo(self, request: Empty, context: Any) -> PluginInfo:
        """Tell the version."""
        return PluginInfo(version=VERSION)

    async def GetRequiredPlugins(
        self, request: proto.GetRequiredPluginsRequest, context: Any
    ) -> proto.GetRequiredPluginsResponse:
        """Name none: see :meth:`GetRequiredPackages`."""
        return proto.GetRequiredPluginsResponse()

    async def GetRequiredPackages(
        self, request: proto.GetRequiredPackagesRequest, context: Any
    ) -> proto.GetRequiredPackagesResponse:
        """Name none: the command line would fetch what is not in its own folder, even if it is on PATH."""
        return proto.GetRequiredPackagesResponse()

    async def Run(self, request: proto.RunRequest, context: Any) -> proto.RunResponse:
        """Run a program to its end; what it prints goes to the host's own output, which the engine reads."""
        try:
            _refuse_debugger(request.attach_debugger)
            python = interpreter_of(request.info)
            argv = [python.path, "-u", _executor(), *self._settings(request)]
        except HostError as error:
            return proto.RunResponse(error=str(error))
        variables = {
            **python.activated(os.environ),
            "PULUMI_CONFIG": json.dumps(dict(request.config)),
            "PULUMI_CONFIG_SECRET_KEYS": json.dumps(list(request.configSecretKeys)),
        }
        code = await self.processes.run(argv, variables=variables, folder=request.pwd or None, tell=_print)
        if code == ALREADY_TOLD:
            return proto.RunResponse(bail=True)
        return proto.RunResponse(error=f"the program {_ended(code)}" if code else "")

    def _settings(self, request: proto.RunRequest) -> list[str]:
        """The executor's arguments."""
        options = {
            "monitor": request.monitor_address,
            "engine": self._engine,
            "project": request.project,
            "root_directory": request.info.root_directory,
            "stack": request.stack,
            "pwd": request.pwd,
            "dry_run": "true" if request.dryRun else "",
            "parallel": str(request.parallel),
            "tracing": self._tracing,
            "organization": request.organization,
        }
        told = [word for name, value in options.items() if value for word in (f"--{name}", value)]
        return [*told, request.info.entry_point or ".", *request.args]

    async def RunPlugin(self, request: proto.RunPluginRequest, context: Any) -> None:
        """Run a policy pack, a component package or a tool; stream what it prints, and last its exit code."""
        try:
            _refuse_debugger(request.attach_debugger)
            python = interpreter_of(request.info)
        except HostError as error:
            await _fail(context, str(error))

        async def tell(stream: Stream, chunk: bytes) -> None:
            to_output = stream is Stream.OUTPUT
            response = proto.RunPluginResponse
            await context.write(response(stdout=chunk) if to_output else response(stderr=chunk))

        given = dict(variable.partition("=")[::2] for variable in request.env)
        code = await self.processes.run(
            [python.path, "-u", *_plugin(request)],
            variables=python.activated(given or os.environ),
            folder=request.pwd or None,
            tell=tell,
        )
        await context.write(proto.RunPluginResponse(exitcode=code))

    async def InstallDependencies(self, request: proto.InstallDependenciesRequest, context: Any) -> None:
        """Make the virtual environment if it is missing; install what requirements.txt names, if there is one."""
        try:
            steps = _installation(request.info)
        except HostError as error:
            await _fail(context, str(error))

        async def tell(stream: Stream, chunk: bytes) -> None:
            to_output = stream is Stream.OUTPUT
            response = proto.InstallDependenciesResponse
            await context.write(response(stdout=chunk) if to_output else response(stderr=chunk))

        for python, words in steps:
            code = await self.processes.run(
                [python.path, *words],
                variables=python.activated(os.environ),
                folder=request.info.program_directory,
                tell=tell,
            )
            if code:
                await _fail(context, f"`{python.path} {' '.join(words)}` {_ended(code)}: see what it printed")

    async def About(self, request: proto.AboutRequest, context: Any) -> proto.AboutResponse:
        """Tell which Python runs the program."""
        executable, version = (await self._asked(request.info, ["-c", _ABOUT], context)).splitlines()
        return proto.AboutResponse(
            executable=executable, version=version, metadata={"toolchain": "pip", "host": "marketlake"}
        )

    async def GetProgramDependencies(
        self, request: proto.GetProgramDependenciesRequest, context: Any
    ) -> proto.GetProgramDependenciesResponse:
        """List the packages of the program's Python; unless asked for all, without those that another requires."""
        wanted = ["--all"] if request.transitiveDependencies else []
        answer = await self._asked(request.info, [str(_DISTRIBUTIONS), *wanted], context)
        found = [proto.DependencyInfo(**entry) for entry in json.loads(answer)]
        return proto.GetProgramDependenciesResponse(dependencies=found)

    async def Cancel(self, request: Empty, context: Any) -> Empty:
        """End all that runs."""
        await self.processes.end()
        return Empty()

    RuntimeOptionsPrompts = _refusal("ask for the options of a new project")
    Template = _refusal("set up a new project")
    GenerateProgram = _refusal("write a program")
    GenerateProject = _refusal("convert a project")
    GeneratePackage = _refusal("write an SDK for a package")
    Pack = _refusal("build an SDK")
    Link = _refusal("add an SDK to a program")

    async def _asked(self, info: proto.ProgramInfo, words: Sequence[str], context: Any) -> str:
        """What the program's Python prints."""
        try:
            python = interpreter_of(info)
        except HostError as error:
            await _fail(context, str(error))
        printed = dict.fromkeys(Stream, b"")

        async def tell(stream: Stream, chunk: bytes) -> None:
            printed[stream] += chunk

        code = await self.processes.run(
            [python.path, *words],
            variables=python.activated(os.environ),
            folder=info.root_directory or None,
            tell=tell,
        )
        if code:
            said = printed[Stream.ERRORS].decode(errors="replace")
            await _fail(context, f"{python.path} {_ended(code)}: {said}")
        return printed[Stream.OUTPUT].decode()


def _plugin(request: proto.RunPluginRequest) -> list[str]:
    """Arguments of the Python that runs a plug-in."""
    program = os.path.normpath(Path(request.info.program_directory, request.info.entry_point))
    if request.kind == "analyzer":
        return ["-m", "pulumi.policy", *request.args, program]
    return [program, *request.args]


def _installation(info: proto.ProgramInfo) -> list[tuple[Interpreter, list[str]]]:
    """The commands that make a project ready, each with the Python that runs it."""
    folder = virtualenv_of(info)
    steps = []
    try:
        python = interpreter_of(info)
    except PythonMissingError:
        if folder is None or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise
        python = Interpreter(str(folder / "bin" / "python"), folder)
        steps.append((Interpreter(system_python()), ["-m", "venv", str(folder)]))
    for place in (info.program_directory, info.root_directory):
        requirements = Path(place, "requirements.txt")
        if requirements.is_file():
            steps.append((python, ["-m", "pip", "install", "--requirement", str(requirements)]))
            break
    return steps


def _executor() -> str:
    found = shutil.which(EXECUTOR)
    if found is None:
        raise HostError(
            f"{EXECUTOR} cannot be found on PATH: put the folder of the `pulumi` program on PATH, "
            'e.g. eval "$(marketlake tools env)"'
        )
    return found


def _refuse_debugger(asked: bool) -> None:
    if asked:
        raise HostError(f"programs cannot be run in a debugger here: {VENDOR_ONLY}")


async def _print(stream: Stream, chunk: bytes) -> None:
    """Print what a program printed; that the engine has gone is noticed elsewhere."""
    target = sys.stdout if stream is Stream.OUTPUT else sys.stderr
    with suppress(BrokenPipeError):
        target.buffer.write(chunk)
        target.buffer.flush()


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


async def _fail(
    context: Any, message: str, code: grpc.StatusCode = grpc.StatusCode.FAILED_PRECONDITION
) -> NoReturn:
    await context.abort(code, message)
    raise AssertionError("abort raises")
