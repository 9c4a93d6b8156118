-- An object of Kubernetes asks for one restore, however often and by however many replicas it is read: its UID.
alter table restores add column object text;
create unique index restores_object on restores (object) where object is not null;

-- Since when it is in its phase, for alerts.
alter table restores add column phase_since timestamptz not null default now();
