-- The ledger: what was brought in, one row per version of an archive file.
create table ledger (
    venue              text        not null,
    key                text        not null,
    version            integer     not null check (version >= 1),
    market             text        not null,
    data_type          text        not null,
    symbol             text        not null,
    interval           text,
    file_start         date        not null,
    file_end           date        not null,
    sha256             text        not null,
    etag               text        not null,
    size               bigint      not null,
    last_modified      timestamptz not null,
    header             boolean     not null,
    rows               bigint      not null,
    quarantined        bigint      not null,
    first_day          date,
    last_day           date,
    landing_key        text        not null,
    landing_version_id text,
    bronze_version     bigint,
    batch_id           uuid        not null,
    collected_at       timestamptz not null default now(),
    refined_at         timestamptz,
    primary key (venue, key, version)
);
create index ledger_unrefined on ledger (venue, market, data_type, symbol) where refined_at is null;

-- A venue replaced a file: what was there before, and what is there now.
create table ledger_conflict (
    venue          text        not null,
    key            text        not null,
    version        integer     not null,
    former_version integer     not null,
    former_sha256  text        not null,
    sha256         text        not null,
    former_etag    text        not null,
    etag           text        not null,
    found_at       timestamptz not null default now(),
    primary key (venue, key, version)
);

-- One run of `collect`.
create table batch (
    id           uuid primary key,
    selection    jsonb       not null,
    state        text        not null check (state in ('planning', 'collecting', 'refining', 'done', 'failed', 'cancelled')),
    traceparent  text,
    found        bigint      not null default 0,
    skipped      bigint      not null default 0,
    refined_rows bigint      not null default 0,
    error_code   text,
    error        text,
    created_at   timestamptz not null default now(),
    finished_at  timestamptz
);

create table worker (
    id           text primary key,
    host         text        not null,
    pid          integer     not null,
    concurrency  integer     not null,
    started_at   timestamptz not null default now(),
    heartbeat_at timestamptz not null default now()
);

-- One archive file to bring in, within a batch.
create table task (
    id            uuid primary key,
    batch_id      uuid        not null references batch (id) on delete cascade,
    venue         text        not null,
    key           text        not null,
    payload       jsonb       not null,
    state         text        not null default 'queued' check (state in ('queued', 'running', 'done', 'failed', 'cancelled')),
    outcome       text        check (outcome in ('copied', 'verified', 'present')),
    attempts      integer     not null default 0,
    worker        text,
    size          bigint      not null,
    rows          bigint      not null default 0,
    quarantined   bigint      not null default 0,
    error_code    text,
    error         text,
    dispatched_at timestamptz not null default now(),
    finished_at   timestamptz,
    unique (batch_id, venue, key)
);
create index task_progress on task (batch_id, state);

-- Events that were decided together with the rows above and are still to be published.
create table outbox (
    id         bigint generated always as identity primary key,
    topic      text        not null,
    event      jsonb       not null,
    created_at timestamptz not null default now()
);
