-- The ledger knows which stores it speaks of, and how much time each file covers.
create table store_identity (
    role     text primary key check (role in ('landing', 'lake')),
    identity uuid not null
);

alter table ledger add column frequency text;
update ledger set frequency = case when file_start = file_end then 'daily' else 'monthly' end;
alter table ledger alter column frequency set not null;

alter table batch add column source text not null default 'venue' check (source in ('venue', 'landing'));
alter table batch alter column source drop default;
create index ledger_former_data_file on ledger (data_file_id) where superseded_at is not null;
create index data_file_ended on data_file (ended_at) where state in ('replaced', 'discarded');
create index staged_unit_ended on staged_unit (staged_at) where state in ('committed', 'refused');
create index batch_ended on batch (finished_at) where state in ('done', 'failed', 'cancelled');
create index ledger_landing on ledger (landing_key collate "C") where superseded_at is null;
