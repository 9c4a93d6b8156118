-- Wishes for another primary, and what has come of them: one at a time for a cluster.
create table switchovers (
    id           uuid primary key,
    cluster      text        not null references clusters (name) on delete cascade,
    target       text,
    state        text        not null default 'Pending',
    before       text,
    after        text,
    message      text,
    requested_by text        not null,
    created_at   timestamptz not null default now(),
    finished_at  timestamptz,
    -- Until then the replica that has taken it is at it.
    taken_until  timestamptz
);

create unique index switchovers_open on switchovers (cluster) where finished_at is null;
create index switchovers_newest on switchovers (cluster, id desc);
