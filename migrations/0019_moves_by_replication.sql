-- How a database is moved: as whoever asked for it wants it, and as it is done.
alter table moves
    add column wanted      text,
    add column method      text,
    -- What of the definitions is not on the other cluster, once they are there.
    add column left_out    jsonb,
    -- Nobody has said yes until then.
    add column waits_until timestamptz;
