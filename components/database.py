"""The relational database: one PostgreSQL server, with a database and a role of its own for each user of it."""

from marketlake.settings import HealthKind

from components.service import Command, File, Health, Port, Resources, Service, Stop, Tool, Volume

SUPERUSER = "postgres"
"""The role that owns the server; only provisioning uses it."""

_CONFIGURATION = """\
hba_file = '{file:pg_hba.conf}'
listen_addresses = '{bind}'
port = {port:sql}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 100
shared_buffers = '{memory:25}MB'
max_wal_size = '512MB'
io_method = 'sync'
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_min_messages = 'warning'
log_checkpoints = off
log_line_prefix = '%m [%p] %q%u@%d '
"""

_AUTHENTICATION = "host all all all scram-sha-256\n"


def database_service(*, memory_mib: int = 256, volume_mib: int = 1024) -> Service:
    """PostgreSQL, reachable by TCP and SCRAM only.

    Secrets: ``superuser-password``. It is set anew before every start, so data that outlived the stack's secrets can
    be used with new ones.
    """
    return Service(
        name="database",
        program=Tool(name="postgresql"),
        argv=("{bin:postgres}", "-c", "config_file={file:postgresql.conf}"),
        ports={"sql": Port(preferred=5432)},
        volumes={"data": Volume(size_mib=volume_mib)},
        files={
            "postgresql.conf": File(text=_CONFIGURATION),
            "pg_hba.conf": File(text=_AUTHENTICATION),
            "superuser.sql": File(
                text=f"ALTER ROLE {SUPERUSER} PASSWORD '{{secret:superuser-password}}';\n", secret=True
            ),
        },
        environment={"PGDATA": "{volume:data}/cluster", "LC_ALL": "C.UTF-8"},
        setup=(
            Command(
                name="create the cluster",
                argv=(
                    "{bin:initdb}",
                    "--pgdata={volume:data}/cluster.part",
                    f"--username={SUPERUSER}",
                    "--auth=reject",
                    "--encoding=UTF8",
                    "--locale=C.UTF-8",
                    "--no-instructions",
                ),
                creates="{volume:data}/cluster",
                staged=True,
            ),
            Command(
                name="set the superuser's password",
                argv=("{bin:postgres}", "--single", "-c", "config_file={file:postgresql.conf}", "template1"),
                stdin="superuser.sql",
            ),
        ),
        health=Health(kind=HealthKind.TCP, port="sql"),
        resources=Resources(memory_mib=memory_mib),
        stop=Stop(signal="INT", grace_s=20),  # "fast": roll back what runs, write a checkpoint, end
        refuses_root=True,
    )
