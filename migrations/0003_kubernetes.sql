-- Who described a cluster: the settings of `serve`, or a PostgresqlCluster resource.
alter table clusters add column source text not null default 'settings' check (source in ('settings', 'kubernetes'));

-- The generation of the definition that was last written down, where its door counts them: an older one is refused.
alter table claims add column source_generation bigint;
