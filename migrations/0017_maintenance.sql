-- Nothing is changed on a cluster for as long as somebody works on it.
alter table clusters add column maintenance jsonb;
