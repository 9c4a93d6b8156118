-- Audit is deleted by its age.
create index audit_at on audit (at);
