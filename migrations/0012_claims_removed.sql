-- Claims of which nothing is left in the clusters: their dumps are removed when they were kept long enough.
create table claims_removed (
    cluster    text        not null,
    namespace  text        not null,
    name       text        not null,
    removed_at timestamptz not null default now(),
    primary key (cluster, namespace, name)
);
