-- The control plane's own database: what is wished, who owns which name, what is under way, who did what.
-- No password is ever stored here.

create table clusters (
    name       text primary key,
    spec       jsonb       not null,
    status     jsonb       not null default '{"members": [], "preflight": []}',
    updated_at timestamptz not null default now()
);

create table claims (
    id                  uuid primary key,
    namespace           text        not null,
    name                text        not null,
    cluster             text        not null references clusters,
    database            text        not null,
    source              text        not null check (source in ('api', 'apps', 'kubernetes')),
    source_ref          text,
    mode                text        not null check (mode in ('standard', 'protected')),
    schemas             text[]      not null default '{}',
    extensions          text[]      not null default '{}',
    connection_limit    int,
    -- present: make it so; retained: keep everything, do nothing; absent: remove everything
    wish                text        not null default 'present' check (wish in ('present', 'retained', 'absent')),
    -- released by a person: the door that made the claim leaves it alone until its definition was gone once
    released            boolean     not null default false,
    -- whether a database of that name which is not ours may be taken over
    adopt               boolean     not null default false,
    -- tiers for which somebody asked for a new password
    rotate              text[]      not null default '{}',
    generation          bigint      not null default 1,
    observed_generation bigint      not null default 0,
    state               text        not null default 'Pending',
    conditions          jsonb       not null default '[]',
    endpoint            jsonb,
    roles               jsonb,
    -- per tier a fingerprint of the password in the stores, which tells a changed store from a changed server
    credentials         jsonb       not null default '{}',
    created_at          timestamptz not null default now(),
    wished_at           timestamptz not null default now(),
    -- work: urgent is a wish or a retry, otherwise it is the periodic look
    urgent              boolean     not null default true,
    due_at              timestamptz not null default now(),
    attempts            int         not null default 0,
    lease_holder        uuid,
    lease_until         timestamptz,
    -- grows each time the claim is taken: a holder that stalled can not finish what another has taken
    fence               bigint      not null default 0,
    unique (namespace, name),
    -- names are owned: {namespace}-{name} is ambiguous, so the database's name has one owner on each cluster
    unique (cluster, database)
);

create index claims_due on claims (due_at) where wish <> 'retained';
create index claims_urgent on claims (due_at) where urgent and wish <> 'retained';
create index claims_source on claims (source, source_ref);

create table operations (
    id           uuid primary key,
    kind         text        not null,
    namespace    text        not null,
    name         text        not null,
    claim        uuid        not null,
    generation   bigint      not null,
    state        text        not null default 'Pending',
    step         text,
    message      text,
    requested_by text        not null,
    created_at   timestamptz not null default now(),
    finished_at  timestamptz
);

create index operations_open on operations (claim) where finished_at is null;
create index operations_finished on operations (finished_at);

create table events (
    id        bigint generated always as identity primary key,
    at        timestamptz not null default now(),
    kind      text        not null,
    namespace text,
    name      text        not null,
    message   text        not null,
    detail    jsonb       not null default '{}'
);

create index events_at on events (at);

create table audit (
    id         bigint generated always as identity primary key,
    at         timestamptz not null default now(),
    actor      text        not null,
    action     text        not null,
    namespace  text,
    name       text,
    request_id text,
    detail     jsonb       not null default '{}'
);

create index audit_claim on audit (namespace, name, id);

create table tokens (
    id           uuid primary key,
    name         text        not null,
    hash         bytea       not null unique,
    role         text        not null check (role in ('platform', 'tenant', 'viewer')),
    namespaces   text[]      not null default '{}',
    created_at   timestamptz not null default now(),
    expires_at   timestamptz,
    revoked_at   timestamptz
);

create table idempotency_keys (
    token      uuid        not null references tokens on delete cascade,
    key        text        not null,
    request    bytea       not null,
    status     int,
    response   jsonb,
    created_at timestamptz not null default now(),
    primary key (token, key)
);

create index idempotency_created on idempotency_keys (created_at);

create table apps_problems (
    file    text not null,
    line    int  not null,
    key     text not null,
    message text not null
);
