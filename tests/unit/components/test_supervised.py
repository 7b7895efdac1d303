"""Programs under a real supervisor: started, watched, restarted, changed, adopted, removed."""

import errno
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from marketlake.settings import HealthKind
from pulumi.dynamic import CreateResult

from components.providers.base import ResourceError
from components.providers.process import ProcessInputs, ProcessProvider
from components.providers.supervisor import SupervisorInputs, SupervisorProvider
from components.supervision.layout import StackFolder
from components.supervision.orphans import end, processes_of
from components.supervision.program import HostProgram
from components.supervision.readiness import answers
from components.supervision.sockets import any_free
from components.supervision.supervisord import Supervisor, SupervisorError
from tests.unit.components.conftest import FAILING
from tests.waiting import eventually

Make = Callable[..., HostProgram]


def inputs(program: HostProgram, **changes: Any) -> ProcessInputs:
    return ProcessInputs.model_validate({**program.model_dump(), "version": "1", **changes})


@pytest.fixture
def supervisor(folder: Path) -> Supervisor:
    SupervisorProvider().apply(SupervisorInputs(version="1", folder=str(folder)))
    return Supervisor(StackFolder(folder))


def only_process(folder: Path, service: str = "web") -> psutil.Process:
    (process,) = processes_of(folder, service)
    return process


def test_a_service_is_started_and_seen_and_ended(program: Make, folder: Path, supervisor: Supervisor) -> None:
    web, provider = inputs(program()), ProcessProvider()
    result = provider.create(web.model_dump(mode="json"))
    assert isinstance(result, CreateResult)
    assert result.id == "web"
    assert answers(HealthKind.HTTP, web.health_target)
    assert provider.observe(web) == {}
    assert "hunter2-secret" not in " ".join(only_process(folder).cmdline())

    provider.delete("web", web.model_dump(mode="json"))
    assert processes_of(folder, "web") == []
    assert not answers(HealthKind.HTTP, web.health_target)
    assert provider.observe(web) is None
    assert not list(folder.rglob("*web*"))


def test_nothing_is_restarted_that_runs_as_declared(
    program: Make, folder: Path, supervisor: Supervisor
) -> None:
    web = inputs(program())
    ProcessProvider().apply(web)
    before = only_process(folder).pid
    ProcessProvider().apply(web)
    assert only_process(folder).pid == before


@pytest.mark.parametrize(
    "change",
    [{"files": {"plain.conf": "a = 2\n"}}, {"secret_environment": {"PASSWORD": "new"}}, {"stop_grace_s": 6}],
    ids=["file", "variable", "supervisor's configuration"],
)
def test_a_change_restarts_it(
    program: Make, folder: Path, supervisor: Supervisor, change: dict[str, Any]
) -> None:
    web = inputs(program())
    ProcessProvider().apply(web)
    before = only_process(folder).pid
    changed = inputs(web, **change)
    assert ProcessProvider().observe(changed) is None
    ProcessProvider().apply(changed)
    assert only_process(folder).pid != before
    assert ProcessProvider().observe(changed) == {}


def test_a_killed_service_is_started_again_by_itself(
    program: Make, folder: Path, supervisor: Supervisor
) -> None:
    web = inputs(program())
    ProcessProvider().apply(web)
    time.sleep(5.5)  # until then its end would count as a failed start, and be followed by a pause
    killed = only_process(folder)
    killed.kill()
    eventually(lambda: answers(HealthKind.HTTP, web.health_target) and only_process(folder).pid != killed.pid)
    assert ProcessProvider().observe(web) == {}


def test_a_stopped_or_tampered_service_is_drift(program: Make, folder: Path, supervisor: Supervisor) -> None:
    web, provider = inputs(program()), ProcessProvider()
    provider.apply(web)
    (folder / "supervisor" / "programs" / "web.conf").write_text("[program:web]\ncommand=/bin/false\n")
    assert provider.observe(web) is None
    provider.apply(web)
    assert provider.observe(web) == {}
    supervisor.stop_program("web")
    assert provider.observe(web) is None
    provider.apply(web)
    assert answers(HealthKind.HTTP, web.health_target)


def test_one_that_ends_at_once_fails_with_the_end_of_its_log(program: Make, supervisor: Supervisor) -> None:
    broken = inputs(program(argv=(sys.executable, "-c", FAILING)))
    with pytest.raises(
        ResourceError, match=r"web did not start: the supervisor says: Exited too quickly"
    ) as caught:
        ProcessProvider().apply(broken)
    assert "cannot work with [secret]" in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_one_that_never_answers_fails_when_time_is_up(program: Make, supervisor: Supervisor) -> None:
    deaf = inputs(program(health_target=f"http://127.0.0.1:{any_free()}/", health_timeout_s=1))
    with pytest.raises(ResourceError, match="web did not start: it did not answer within 1 s"):
        ProcessProvider().apply(deaf)


def test_a_failed_set_up_fails_the_service(program: Make, supervisor: Supervisor) -> None:
    setup = ({"name": "prepare it", "argv": ("/bin/false",)},)
    with pytest.raises(ResourceError, match="could not prepare it"):
        ProcessProvider().apply(inputs(program(setup=setup)))


def test_replicas_run_side_by_side_and_count_once_settled(
    program: Make, folder: Path, supervisor: Supervisor
) -> None:
    workers = inputs(
        program(
            name="worker",
            argv=("/bin/sleep", "600"),
            replicas=2,
            volumes={},
            health=HealthKind.PROCESS,
            health_target="",
        )
    )
    ProcessProvider().apply(workers)
    assert len(processes_of(folder, "worker")) == 2
    assert sorted(path.name for path in (folder / "logs").glob("worker*")) == ["worker-0.log", "worker-1.log"]
    assert ProcessProvider().observe(workers) == {}
    only_one = inputs(workers, replicas=1)
    ProcessProvider().apply(only_one)
    assert len(processes_of(folder, "worker")) == 1


def test_without_its_supervisor_a_service_is_told_how_to_get_one(program: Make, folder: Path) -> None:
    with pytest.raises(ResourceError, match=r"does not answer .* `pulumi up --refresh` starts it anew"):
        ProcessProvider().apply(inputs(program()))
    assert ProcessProvider().observe(inputs(program())) is None


def test_a_killed_supervisors_orphans_are_ended_before_a_new_one_starts(
    program: Make, folder: Path, supervisor: Supervisor
) -> None:
    web = inputs(program())
    ProcessProvider().apply(web)
    orphan = only_process(folder)
    pid = int((folder / "supervisor" / "supervisord.pid").read_text())
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: not supervisor.is_running())
    assert orphan.is_running()
    declared = SupervisorInputs(version="1", folder=str(folder))
    assert SupervisorProvider().observe(declared) is None

    SupervisorProvider().apply(declared)
    assert not orphan.is_running()
    ProcessProvider().apply(web)
    assert answers(HealthKind.HTTP, web.health_target)
    assert len(processes_of(folder, "web")) == 1


def test_an_orphan_is_ended_even_if_no_supervisor_is_left(
    program: Make, folder: Path, supervisor: Supervisor
) -> None:
    web = inputs(program())
    ProcessProvider().apply(web)
    os.kill(int((folder / "supervisor" / "supervisord.pid").read_text()), signal.SIGKILL)
    eventually(lambda: not supervisor.is_running())
    ProcessProvider().remove(web)
    assert processes_of(folder, "web") == []


def test_a_running_supervisor_is_adopted(folder: Path, supervisor: Supervisor) -> None:
    pid = (folder / "supervisor" / "supervisord.pid").read_text()
    declared = SupervisorInputs(version="1", folder=str(folder))
    assert SupervisorProvider().apply(declared) == {"socket": str(folder / "supervisor" / "supervisor.sock")}
    assert (folder / "supervisor" / "supervisord.pid").read_text() == pid


def test_nobody_else_can_talk_to_the_supervisor(folder: Path, supervisor: Supervisor) -> None:
    socket = folder / "supervisor" / "supervisor.sock"
    assert stat.S_ISSOCK(socket.stat().st_mode)
    assert socket.stat().st_mode & 0o077 == 0
    assert (folder / "supervisor").stat().st_mode & 0o077 == 0


def test_a_supervisor_sees_nothing_of_the_deployers_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "geheim")
    Supervisor(StackFolder(folder)).start()
    assert all("geheim" not in process.environ().values() for process in processes_of(folder))


@pytest.mark.parametrize("kept", [True, False])
def test_removing_the_supervisor_leaves_no_process_and_no_file(
    program: Make, folder: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    web = inputs(program())
    ProcessProvider().apply(web)
    (folder / "ports.json").write_text("{}")
    SupervisorProvider().remove(SupervisorInputs(version="1", folder=str(folder), keep_data=kept))
    assert processes_of(folder) == []
    assert not answers(HealthKind.HTTP, web.health_target)
    if kept:
        assert list(folder.iterdir()) == [folder / "data"]
    else:
        assert not folder.exists()
    SupervisorProvider().remove(SupervisorInputs(version="1", folder=str(folder), keep_data=kept))


def test_a_path_too_long_for_a_socket_is_told_with_a_remedy(folder: Path) -> None:
    deep = folder / ("x" * 60) / ("y" * 60)
    with pytest.raises(
        ResourceError, match=r"a UNIX socket takes 100\. Name a shorter place with MARKETLAKE_HOME"
    ):
        SupervisorProvider().apply(SupervisorInputs(version="1", folder=str(deep)))


def test_a_folder_that_cannot_be_written_is_told_with_a_remedy(folder: Path) -> None:
    (folder / "file").touch()
    with pytest.raises(ResourceError, match=r"cannot write below .*MARKETLAKE_HOME"):
        SupervisorProvider().apply(SupervisorInputs(version="1", folder=str(folder / "file" / "stack")))


def test_what_the_supervisor_refuses_is_told_with_its_log(folder: Path, supervisor: Supervisor) -> None:
    with pytest.raises(
        SupervisorError, match=r"refused addProcessGroup\(nobody\): BAD_NAME.*supervisord\.log"
    ):
        supervisor.start_program("nobody")


def test_a_supervisor_that_does_not_come_up_is_told_with_its_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.supervision.supervisord._START_S", 0.5)
    silent = "[supervisord]\nlogfile=/dev/null\nlogfile_maxbytes=0\npidfile=supervisor/supervisord.pid\n"
    monkeypatch.setattr(Supervisor, "configuration", lambda _: silent)
    with pytest.raises(SupervisorError, match=r"did not open its socket within 0\.5 s"):
        Supervisor(StackFolder(folder)).start()


def test_a_supervisor_that_refuses_its_configuration_is_quoted(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Supervisor, "configuration", lambda _: "[supervisord]\nloglevel=nonsense\n")
    with pytest.raises(SupervisorError, match=r"ended with status \d\. It wrote last:\n.*nonsense"):
        Supervisor(StackFolder(folder)).start()


def test_a_stubborn_process_is_killed() -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    stubborn = psutil.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    stubborn.stdout.readline()
    end([stubborn], grace_s=0.3)
    assert not psutil.pid_exists(stubborn.pid)


def test_one_that_ended_meanwhile_is_no_error() -> None:
    gone = psutil.Popen(["/bin/sleep", "0"])
    gone.wait()
    end([gone], grace_s=0.1)
    assert not psutil.pid_exists(gone.pid)


def test_a_service_that_the_supervisor_forgot_is_drift_and_comes_back(
    program: Make, folder: Path, supervisor: Supervisor
) -> None:
    web, provider = inputs(program()), ProcessProvider()
    provider.apply(web)
    supervisor.remove("web")
    assert supervisor.hopeless(web) == "the supervisor does not know it"
    assert supervisor.processes(web) == []
    assert supervisor.differs(web, None)
    assert provider.observe(web) is None
    provider.apply(web)
    assert answers(HealthKind.HTTP, web.health_target)
    assert [process.pid for process in supervisor.processes(web)] == [only_process(folder).pid]


def test_a_service_whose_files_cannot_be_removed_is_told(
    program: Make, folder: Path, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = inputs(program())
    ProcessProvider().apply(web)

    def busy(path: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy", str(path))

    monkeypatch.setattr("components.supervision.installation.remove", busy)
    with pytest.raises(ResourceError, match=r"web: .*Device or resource busy"):
        ProcessProvider().remove(web)
    monkeypatch.undo()
    ProcessProvider().remove(web)
    assert not list(folder.rglob("*web*"))


def test_a_supervisor_that_will_not_end_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = SupervisorInputs(version="1", folder=str(folder))
    SupervisorProvider().apply(declared)

    def refuse(self: Supervisor, method: str) -> None:
        raise SupervisorError(f"the supervisor of {folder} refused {method}()")

    monkeypatch.setattr(Supervisor, "_call", refuse)
    with pytest.raises(ResourceError, match=r"refused shutdown\(\)"):
        SupervisorProvider().remove(declared)
    assert (folder / "supervisor").exists(), "what still runs needs its folder"


def test_all_that_was_recorded_of_a_program_is_there_to_compare_it_with(
    program: Callable[..., HostProgram],
) -> None:
    declared = ProcessInputs.model_validate({**program().model_dump(mode="json"), "version": "1"})
    recorded = ProcessProvider()._record(declared.model_dump(mode="json"))
    assert recorded.program == program(port=int(declared.argv[-1])), "a refresh takes it for gone without"
