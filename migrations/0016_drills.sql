-- Fail-over that was tried, and what applications saw of it.
create table drills (
    id uuid primary key,
    cluster text not null references clusters on delete cascade,
    requested_by text not null,
    created_at timestamptz not null default now(),
    drill jsonb not null
);
create index drills_of_cluster on drills (cluster, created_at desc);
