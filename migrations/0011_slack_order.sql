-- Where a restore was asked for in Slack: it is shown there, whatever else the channel is told.
create table slack_asked (
    restore uuid not null references restores on delete cascade,
    channel text not null,
    primary key (restore, channel)
);

-- Failures one after the other that are all of Slack's; kept in the row `*`.
alter table slack_channels add column failures int not null default 0;
