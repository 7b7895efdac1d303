-- A unit may only arrange rows anew that are visible already.
alter table staged_unit add column data_change boolean not null default true;
