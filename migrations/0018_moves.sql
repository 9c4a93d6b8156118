-- Moves of databases to other clusters: one at a time for a claim.
create table moves (
    id            uuid primary key,
    -- The claim, which may be gone by now.
    claim         uuid        not null,
    namespace     text        not null,
    name          text        not null,
    source        text        not null,
    target        text        not null,
    phase         text        not null default 'Rehearsing',
    -- What it ends as, once that is decided.
    outcome       text,
    -- What is told in the end, while cleaning up has its own things to tell.
    ending        text,
    message       text,
    bytes         bigint,
    tables        bigint,
    -- Seconds without writes: as the rehearsal says, and as it was.
    expected_gap  double precision,
    gap           double precision,
    requested_by  text        not null,
    confirmed_by  text,
    cancel        boolean     not null default false,
    -- Since then nobody can write.
    closed_at     timestamptz,
    -- What was on the source is dropped then.
    kept_until    timestamptz,
    created_at    timestamptz not null default now(),
    finished_at   timestamptz,
    attempts      int         not null default 0,
    due_at        timestamptz not null default now(),
    lease_until   timestamptz,
    fence         bigint      not null default 0
);

create unique index moves_open on moves (claim) where finished_at is null;
create index moves_due on moves (target, due_at) where finished_at is null or kept_until is not null;
create index moves_newest on moves (namespace, name, id desc);

-- Clusters that a claim was on before: its definition may still name them.
alter table claims add column moved_from text[] not null default '{}';
