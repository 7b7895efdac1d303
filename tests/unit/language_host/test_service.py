"""What the engine asks of the host, and what it gets."""

import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest
from google.protobuf.empty_pb2 import Empty
from pulumi.runtime.proto import language_pb2 as proto
from pulumi.runtime.proto.language_pb2_grpc import LanguageRuntimeStub

from tests.unit.language_host.conftest import ENGINE, Project, program
from toolchain.language_host import VERSION
from toolchain.language_host.service import EXECUTOR

TELL = "import json, os, sys; json.dump({'argv': sys.argv[1:], 'env': dict(os.environ), 'cwd': os.getcwd()}, "


def wait_until(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def run(host: LanguageRuntimeStub, project: Project, /, **more: Any) -> proto.RunResponse:
    told = {"info": project.info(), "pwd": str(project.folder), "monitor_address": "127.0.0.1:2", **more}
    return host.Run(proto.RunRequest(**told), timeout=60)


def test_a_program_is_told_what_the_engine_said(
    host: LanguageRuntimeStub, project: Project, executor: Path
) -> None:
    executor.write_text(TELL + "open('told', 'w'))")
    answer = run(
        host,
        project,
        project="lake",
        stack="blue",
        organization="organization",
        dryRun=True,
        parallel=4,
        args=["one"],
        config={"lake:a": "b"},
        configSecretKeys=["lake:a"],
    )
    assert (answer.error, answer.bail) == ("", False)
    told = json.loads((project.folder / "told").read_text())
    folder = str(project.folder)
    assert told["argv"] == [
        *("--monitor", "127.0.0.1:2", "--engine", ENGINE, "--project", "lake", "--root_directory", folder),
        *("--stack", "blue", "--pwd", folder, "--dry_run", "true", "--parallel", "4"),
        *("--organization", "organization", ".", "one"),
    ]
    assert told["cwd"] == folder
    assert json.loads(told["env"]["PULUMI_CONFIG"]) == {"lake:a": "b"}
    assert json.loads(told["env"]["PULUMI_CONFIG_SECRET_KEYS"]) == ["lake:a"]
    assert told["env"]["VIRTUAL_ENV"] == str(project.venv)
    assert told["env"]["PATH"].startswith(f"{project.venv}/bin:")


@pytest.mark.parametrize(
    ("ending", "error", "bail"),
    [
        ("sys.exit(0)", "", False),
        ("sys.exit(32)", "", True),
        ("sys.exit(3)", "the program ended with exit code 3", False),
        ("os.kill(os.getpid(), 9)", "the program was ended by signal 9", False),
    ],
)
def test_how_a_program_ends_is_told(
    ending: str, error: str, bail: bool, host: LanguageRuntimeStub, project: Project, executor: Path
) -> None:
    executor.write_text(f"import os, sys; {ending}")
    answer = run(host, project)
    assert (answer.error, answer.bail) == (error, bail)


def test_what_a_program_prints_is_printed_by_the_host(
    host: LanguageRuntimeStub, project: Project, executor: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    executor.write_text("import sys; print('to output'); print('to errors', file=sys.stderr)")
    run(host, project)
    assert capfdbinary.readouterr() == (b"to output\n", b"to errors\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"virtualenv": "gone"}, r"virtualenv names .*/gone, which does not exist: run `pulumi install`"),
        ({"virtualenv": "."}, "which is no virtual environment"),
        (
            {"toolchain": "uv"},
            r"toolchain is 'uv'; allowed is 'pip'.* install --again pulumi-language-python",
        ),
        ({"typechecker": "mypy"}, r"typechecker is 'mypy'; allowed is none.*brings the vendor's"),
    ],
)
def test_a_project_that_cannot_be_run_is_told_why(
    options: dict[str, str], message: str, host: LanguageRuntimeStub, project: Project, executor: Path
) -> None:
    answer = run(host, project, info=project.info(**options))
    assert not answer.bail
    assert re.search(message, answer.error), answer.error
    with pytest.raises(grpc.RpcError, match=message):
        list(host.RunPlugin(proto.RunPluginRequest(info=project.info(**options))))


def test_without_the_executor_it_is_said_what_to_put_on_path(
    host: LanguageRuntimeStub, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run(host, project).error.startswith(f"{EXECUTOR} cannot be found on PATH: put the folder of")


def test_a_debugger_is_refused(host: LanguageRuntimeStub, project: Project, executor: Path) -> None:
    assert "debugger" in run(host, project, attach_debugger=True).error


def test_without_a_virtual_environment_the_python_on_path_is_taken(
    host: LanguageRuntimeStub, project: Project, executor: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(executor.parent / "python3", f"#!/bin/sh\ntouch {project.folder}/taken\n")
    assert run(host, project, info=project.info(virtualenv="")).error == ""
    assert (project.folder / "taken").exists()
    monkeypatch.setenv("PULUMI_PYTHON_CMD", "snake")
    assert run(host, project, info=project.info(virtualenv="")).error.startswith(
        "snake cannot be found on PATH"
    )


def plugin(host: LanguageRuntimeStub, project: Project, /, **more: Any) -> Any:
    told = {"info": project.info(), "pwd": str(project.folder), "env": ["PATH=/usr/bin:/bin"], **more}
    return host.RunPlugin(proto.RunPluginRequest(**told), timeout=60)


def test_a_policy_pack_is_run_by_the_sdk_with_the_engines_address_and_its_folder(
    host: LanguageRuntimeStub, project: Project
) -> None:
    project.python('echo "$@"')
    said = [*plugin(host, project, kind="analyzer", args=["--logtostderr", ENGINE])]
    assert said[0].stdout.decode().split() == [
        *("-u", "-m", "pulumi.policy", "--logtostderr", ENGINE, str(project.folder)),
    ]


def test_a_package_is_run_with_the_engines_variables_and_streamed(
    host: LanguageRuntimeStub, project: Project
) -> None:
    project.write(
        "__main__.py",
        "import os, sys; print(sys.argv[1:], os.environ['COLOUR'], 'HOME' in os.environ, os.getcwd())\n"
        "print('badly', file=sys.stderr); sys.exit(7)",
    )
    variables = ["PATH=/usr/bin:/bin", "COLOUR=blue=green", f"PYTHONPATH={os.pathsep.join(sys.path)}"]
    *said, last = plugin(host, project, kind="resource", args=[ENGINE], env=variables)
    assert b"".join(each.stdout for each in said).decode().split("\n") == [
        f"['{ENGINE}'] blue=green False {project.folder}",
        "",
    ]
    assert b"".join(each.stderr for each in said) == b"badly\n"
    assert (last.WhichOneof("output"), last.exitcode) == ("exitcode", 7)


def test_the_exit_code_is_sent_even_if_it_is_nought(host: LanguageRuntimeStub, project: Project) -> None:
    project.python("exit 0")
    (only,) = plugin(host, project)
    assert (only.WhichOneof("output"), only.exitcode) == ("exitcode", 0)


def test_output_arrives_while_the_plug_in_runs_and_a_cancelled_one_ends_with_its_children(
    host: LanguageRuntimeStub, project: Project
) -> None:
    project.python("sleep 600 & echo $$ $!; wait")
    stream = plugin(host, project)
    pids = [int(word) for word in next(stream).stdout.split()]
    assert all(psutil.pid_exists(pid) for pid in pids)
    stream.cancel()
    wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def test_a_plug_in_that_does_not_listen_is_killed(host: LanguageRuntimeStub, project: Project) -> None:
    project.python("trap '' TERM; echo $$; while :; do sleep 0.1; done")
    stream = plugin(host, project)
    pid = int(next(stream).stdout)
    stream.cancel()
    wait_until(lambda: not psutil.pid_exists(pid))


def test_a_daemon_that_is_left_behind_neither_holds_the_call_nor_is_ended(
    host: LanguageRuntimeStub, project: Project
) -> None:
    project.python("sleep 600 & echo $!; exit 3")
    *said, last = plugin(host, project)
    daemon = psutil.Process(int(b"".join(each.stdout for each in said)))
    try:
        assert last.exitcode == 3
        assert daemon.is_running()
    finally:
        daemon.kill()


def test_cancelling_ends_all_that_runs(host: LanguageRuntimeStub, project: Project, executor: Path) -> None:
    executor.write_text("import pathlib, time; pathlib.Path('begun').touch(); time.sleep(600)")
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(run, host, project)
        wait_until((project.folder / "begun").exists)
        host.Cancel(Empty())
        assert answer.result(30).error == f"the program was ended by signal {signal.SIGTERM.value}"


def test_many_are_served_at_once(host: LanguageRuntimeStub, project: Project) -> None:
    """More than a pool of threads on a small machine has: each waits until all have begun."""
    count = 40
    project.python(f"touch begun.$$; while [ $(ls begun.* | wc -l) -lt {count} ]; do sleep 0.1; done")
    streams = [plugin(host, project) for _ in range(count)]
    assert [[answer.exitcode for answer in stream] for stream in streams] == [[0]] * count


def install(host: LanguageRuntimeStub, project: Project) -> list[str]:
    answers = host.InstallDependencies(proto.InstallDependenciesRequest(info=project.info()), timeout=60)
    return b"".join(answer.stdout + answer.stderr for answer in answers).decode().splitlines()


def test_a_project_that_asks_for_nothing_is_left_as_it_is(
    host: LanguageRuntimeStub, project: Project
) -> None:
    project.python("echo never; exit 1")
    assert install(host, project) == []


def test_requirements_are_installed_by_the_virtual_environments_pip(
    host: LanguageRuntimeStub, project: Project
) -> None:
    requirements = project.write("requirements.txt", "")
    project.python('echo "$@"; echo careful >&2')
    assert sorted(install(host, project)) == [
        f"-m pip install --requirement {requirements}",
        "careful",
    ]


def test_a_missing_virtual_environment_is_made_first(
    host: LanguageRuntimeStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path)
    project.write("requirements.txt", "")
    maker = tmp_path / "snake"
    program(
        maker,
        "#!/bin/sh\necho made by $@\nmkdir -p $3/bin\n"
        "printf '#!/bin/sh\\necho in $VIRTUAL_ENV\\n' > $3/bin/python; chmod +x $3/bin/python\n",
    )
    monkeypatch.setenv("PULUMI_PYTHON_CMD", str(maker))
    assert install(host, project) == [f"made by -m venv {project.venv}", f"in {project.venv}"]


def test_a_folder_with_something_else_in_it_is_not_made_a_virtual_environment(
    host: LanguageRuntimeStub, tmp_path: Path
) -> None:
    project = Project(tmp_path)
    (project.venv / "precious").mkdir(parents=True)
    with pytest.raises(grpc.RpcError, match="which is no virtual environment"):
        install(host, project)


def test_an_installation_that_fails_is_told(host: LanguageRuntimeStub, project: Project) -> None:
    project.write("requirements.txt", "")
    project.python("echo no such package >&2; exit 1")
    with pytest.raises(
        grpc.RpcError, match=r"`.* -m pip install .*` ended with exit code 1: see what it printed"
    ):
        install(host, project)


def test_about_tells_which_python_runs_the_program(host: LanguageRuntimeStub, project: Project) -> None:
    answer = host.About(proto.AboutRequest(info=project.info()))
    assert (answer.executable, answer.version) == (sys.executable, sys.version.split()[0])
    assert dict(answer.metadata) == {"toolchain": "pip", "host": "marketlake"}


def test_a_python_that_cannot_start_is_told(host: LanguageRuntimeStub, project: Project) -> None:
    project.python("echo no library >&2; exit 127")
    with pytest.raises(grpc.RpcError, match=r"python ended with exit code 127: no library"):
        host.About(proto.AboutRequest(info=project.info()))


@pytest.mark.parametrize(("transitive", "there"), [(True, True), (False, False)])
def test_dependencies_are_those_of_the_programs_python(
    transitive: bool, there: bool, host: LanguageRuntimeStub, project: Project
) -> None:
    asked = proto.GetProgramDependenciesRequest(info=project.info(), transitiveDependencies=transitive)
    found = {each.name: each.version for each in host.GetProgramDependencies(asked).dependencies}
    assert found["pytest-timeout"]
    assert ("typing-extensions" in found) is there, "others require it"


def test_no_package_is_required_since_the_command_line_would_not_look_on_path(
    host: LanguageRuntimeStub, project: Project
) -> None:
    answer = host.GetRequiredPackages(proto.GetRequiredPackagesRequest(info=project.info()))
    assert (list(answer.packages), list(answer.specs)) == ([], [])
    plugins = host.GetRequiredPlugins(proto.GetRequiredPluginsRequest(info=project.info())).plugins
    assert list(plugins) == []


def test_the_version_is_told(host: LanguageRuntimeStub) -> None:
    assert host.GetPluginInfo(Empty()).version == VERSION


@pytest.mark.parametrize(
    ("call", "request_type", "what"),
    [
        ("GeneratePackage", proto.GeneratePackageRequest, "write an SDK for a package"),
        ("Link", proto.LinkRequest, "add an SDK to a program"),
        ("Template", proto.TemplateRequest, "set up a new project"),
    ],
)
def test_what_only_the_vendors_host_does_is_refused_with_the_way_to_it(
    call: str, request_type: type, what: str, host: LanguageRuntimeStub
) -> None:
    with pytest.raises(grpc.RpcError, match=f"cannot {what}: .*install --again") as refused:
        getattr(host, call)(request_type())
    assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED
