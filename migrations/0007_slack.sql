-- What is told in Slack: each message once, however many replicas there are and whenever one of them ends.

create table slack_messages (
    id          bigint generated always as identity primary key,
    -- what it tells of
    key         text        not null unique,
    channel     text        not null,
    -- the key of the message in whose thread it stands
    parent      text,
    -- the restore that it shows
    restore     uuid,
    content     jsonb       not null,
    -- grows with each change of the content; the one that Slack has
    wanted      int         not null default 1,
    sent        int         not null default 0,
    -- Slack's own name for it; null: it is not known to be there
    ts          text,
    -- since when it may be there without our having heard so
    doubt_since timestamptz,
    created_at  timestamptz not null default now(),
    wanted_at   timestamptz not null default now(),
    sent_at     timestamptz,
    due_at      timestamptz not null default now(),
    attempts    int         not null default 0,
    -- what Slack said last, for whoever looks for a message that did not come
    fault       text,
    given_up    boolean     not null default false
);

create index slack_messages_due on slack_messages (channel, due_at) where wanted > sent and not given_up;
create index slack_messages_restore on slack_messages (restore) where restore is not null;

-- One message of a channel is under way at a time, and not more often than Slack allows. `*` stands for all of them.
create table slack_channels (
    channel      text primary key,
    quiet_until  timestamptz not null default now(),
    lease_holder uuid,
    lease_until  timestamptz
);

-- Up to which event somebody has read.
create table slack_cursors (
    reader   text primary key,
    position bigint not null
);

-- Requests and windows that were dealt with, so that none is a second time.
create table slack_seen (
    id text primary key,
    at timestamptz not null default now()
);
create index slack_seen_at on slack_seen (at);

-- What was last told of something, so that it is not told again.
create table slack_told (
    topic text primary key,
    said  text        not null,
    at    timestamptz not null default now()
);
