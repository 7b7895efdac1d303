-- Batches are carried on by the workers, and refined by tasks of their own kind.
update batch set state = 'failed', finished_at = now(), error_code = 'release-changed',
    error = 'the platform was upgraded while it ran: collect again'
    where state not in ('done', 'failed', 'cancelled');
delete from task;

alter table batch drop constraint batch_state_check;
alter table batch add constraint batch_state_check
    check (state in ('requested', 'planning', 'collecting', 'refining', 'done', 'failed', 'cancelled'));
alter table batch
    drop column refined_rows,
    add column endpoint    jsonb,
    add column carrier     text,
    add column lease       bigint not null default 0,
    add column flow_run    text,
    add column shown_state text;
update batch set shown_state = state;
create index batch_open on batch (created_at) where state not in ('done', 'failed', 'cancelled');
create index batch_unshown on batch (created_at) where shown_state is distinct from state;

alter table task add column kind text not null;
alter table task rename column files to parts;
alter table file_failure rename to part_failure;
