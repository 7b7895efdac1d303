-- A task is a group of files now. What was asked for before is planned again by the next collection.
update batch set state = 'failed', finished_at = now(), error_code = 'release-changed',
    error = 'the platform was upgraded while it ran: collect again'
    where state not in ('done', 'failed', 'cancelled');
delete from task;
alter table task drop column venue, drop column key, drop column outcome, drop column size, drop column locked_since;
alter table task
    add column files     integer not null,
    add column size      bigint  not null,
    add column lease     bigint  not null default 0,
    add column present   integer not null default 0,
    add column copied    integer not null default 0,
    add column verified  integer not null default 0,
    add column failed    integer not null default 0,
    add column copied_size bigint not null default 0;
alter table task drop constraint task_state_check;
alter table task add constraint task_state_check
    check (state in ('queued', 'running', 'staged', 'done', 'failed', 'cancelled'));

-- A file of a task that could not be collected.
create table file_failure (
    task_id  uuid    not null references task (id) on delete cascade,
    key      text    not null,
    code     text    not null,
    message  text    not null,
    attempts integer not null,
    primary key (task_id, key)
);

-- Parquet files of the tables that a committer writes, from their staging to their end.
create table data_file (
    id         bigint generated always as identity primary key,
    table_name text        not null,
    path       text        not null,
    size       bigint      not null,
    rows       bigint      not null,
    statistics text        not null,
    unit_id    uuid        not null,
    state      text        not null default 'staged' check (state in ('staged', 'live', 'replaced', 'discarded')),
    staged_at  timestamptz not null default now(),
    ended_at   timestamptz,
    unique (table_name, path)
);
create index data_file_unit on data_file (unit_id);

-- What becomes visible as a whole, or not at all.
create table staged_unit (
    id         uuid primary key,
    table_name text        not null,
    replaces   bigint[]    not null,
    content    jsonb       not null,
    traceparent text,
    state      text        not null default 'staged' check (state in ('staged', 'intended', 'committed', 'refused')),
    reason     text,
    staged_at  timestamptz not null default now()
);
create index staged_unit_waiting on staged_unit (table_name, staged_at) where state = 'staged';

-- The commits of a table, each written down before it is tried.
create table commit_intent (
    table_name text        not null,
    sequence   bigint      not null,
    epoch      bigint      not null,
    units      uuid[]      not null,
    committed  boolean     not null default false,
    intended_at timestamptz not null default now(),
    primary key (table_name, sequence)
);
create index commit_intent_open on commit_intent (table_name) where not committed;

-- Who commits: each leader counts the epoch up, and nobody writes under a former one.
create table committer (
    id    boolean primary key default true check (id),
    epoch bigint not null default 0
);
insert into committer default values;

-- Which data file holds a file's rows. Those that were written before have none: they are ingested again from landing.
alter table ledger drop column bronze_version;
alter table ledger
    add column data_file_id  bigint references data_file,
    add column superseded_at timestamptz;
update ledger former set superseded_at = newer.collected_at from ledger newer
    where (newer.venue, newer.key, newer.version) = (former.venue, former.key, former.version + 1);
create unique index ledger_current on ledger (venue, key) where superseded_at is null;
create index ledger_data_file on ledger (data_file_id) where superseded_at is null;
drop index ledger_unrefined;
create index ledger_unrefined on ledger (venue, market, data_type, symbol)
    where refined_at is null and superseded_at is null;
create index ledger_series on ledger (venue, market, data_type, symbol, first_day) where superseded_at is null;

-- No task waits for a lock any more.
alter table outbox drop column due_at;
