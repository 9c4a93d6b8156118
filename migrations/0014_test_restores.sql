-- Tests of what is kept, by the schedule: they make room for every restore that somebody waits for.
alter table restores add column scheduled boolean not null default false;

-- One at a time for each database, and a test by the schedule beside it.
drop index restores_open;
create unique index restores_open on restores (claim, scheduled) where finished_at is null;
create index restores_tested on restores (cluster, claim) where spec ->> 'strategy' = 'test';
