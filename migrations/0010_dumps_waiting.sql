-- A dump that is under way may show the database as it was before whoever asks now has written: one may wait behind it.
drop index backups_open;
create unique index backups_waiting on backups (claim, kind, coalesce(snapshot, '')) where not finished and fence = 0;
create index backups_open on backups (claim) where not finished;
