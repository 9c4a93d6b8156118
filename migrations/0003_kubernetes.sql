-- Who described a cluster: the settings of `serve`, or a PostgresqlCluster resource.
alter table clusters add column source text not null default 'settings' check (source in ('settings', 'kubernetes'));

-- Nobody describes it any more, and it has claims left: it takes no new ones.
alter table clusters add column removing boolean not null default false;

-- The generation of the definition that was last written down, where its door counts them: an older one is refused.
alter table claims add column source_generation bigint;

-- When it was last looked at, and whether somebody has asked for another look since it was taken.
alter table claims add column looked_at timestamptz;
alter table claims add column woken boolean not null default false;
