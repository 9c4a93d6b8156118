-- Tests of what is kept, by the schedule: they end where somebody waits for a restore.
alter table restores add column scheduled boolean not null default false;

-- One at a time for each database, and a test beside it.
drop index restores_open;
create unique index restores_open on restores (claim, (spec ->> 'strategy' = 'test')) where finished_at is null;
create index restores_tested on restores (cluster, claim) where spec ->> 'strategy' = 'test';

-- Something may be left of a try that was begun.
alter table backups add column begun boolean not null default false;
