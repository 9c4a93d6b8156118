-- Removed for good: stores that keep what was removed for a while are not to.
alter table claims add column purge boolean not null default false;
