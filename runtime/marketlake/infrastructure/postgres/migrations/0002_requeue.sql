-- An event may be published later: a task whose file another session holds is asked for again after a pause.
alter table outbox add column due_at timestamptz not null default now();
alter table task add column locked_since timestamptz;
