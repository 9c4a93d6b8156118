-- The Slack channel that a claim names for its news; none: every channel that is linked to its namespace.
alter table claims add column slack_channel text;
