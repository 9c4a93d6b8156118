-- Back from a snapshot: each step's output is stored before the next one begins.

create table restores (
    id            uuid primary key,
    -- whose snapshot it is
    claim         uuid        not null,
    namespace     text        not null,
    name          text        not null,
    cluster       text        not null,
    spec          jsonb       not null,
    -- what the wish came to, and the instant that it shows
    snapshot      text,
    phase         text        not null check (phase in ('Requested', 'Approved', 'Preparing', 'Copying', 'Verifying',
                      'Switching', 'CleaningUp', 'Succeeded', 'Failed', 'Cancelled', 'Rejected')),
    -- what it ends as when all is cleaned up
    outcome       text        check (outcome in ('Succeeded', 'Failed', 'Cancelled')),
    message       text,
    progress      jsonb       not null default '{}',
    -- what each step has left for those after it
    steps         jsonb       not null default '{}',
    report        jsonb,
    -- the database that a swap has put aside, and when it is dropped
    before_name   text,
    before_until  timestamptz,
    requested_by  text        not null,
    decided_by    text,
    created_at    timestamptz not null default now(),
    finished_at   timestamptz,
    -- somebody wants it to end with all as it was
    cancel        boolean     not null default false,
    undo_asked_by text,
    undone_at     timestamptz,
    due_at        timestamptz not null default now(),
    attempts      int         not null default 0,
    lease_holder  uuid,
    lease_until   timestamptz,
    -- grows each time it is taken: a holder that stalled can not write what another has taken
    fence         bigint      not null default 0
);

-- One at a time for each database.
create unique index restores_open on restores (claim) where finished_at is null;
create index restores_due on restores (cluster, due_at) where finished_at is null or undo_asked_by is not null;
create index restores_before on restores (cluster, before_until) where before_name is not null;
create index restores_of on restores (namespace, name, id);

-- Dumps of one database, and tries to restore one: an operation each, which people see.
create table backups (
    operation    uuid primary key,
    kind         text        not null check (kind in ('backup', 'verify')),
    claim        uuid        not null,
    namespace    text        not null,
    name         text        not null,
    cluster      text        not null,
    -- what is to be verified, or what was made
    snapshot     text,
    finished     boolean     not null default false,
    due_at       timestamptz not null default now(),
    attempts     int         not null default 0,
    lease_holder uuid,
    lease_until  timestamptz,
    fence        bigint      not null default 0
);

create unique index backups_open on backups (claim, kind) where not finished;
create index backups_due on backups (cluster, due_at) where not finished;

-- When the claim's next dump is due by the schedule; null: nobody has said yet.
alter table claims add column backup_at timestamptz;
-- What the newest dump shows, and the newest that was restored for a try.
alter table claims add column dumped_at timestamptz;
alter table claims add column verified_at timestamptz;

-- The restore that puts another database into the place of the claim's: nobody else works on the claim meanwhile.
alter table claims add column held_by uuid;

create index claims_backup on claims (cluster, backup_at) where wish = 'present';
