-- How a database is moved: as whoever asked for it wants it, and as it is done.
alter table moves
    add column wanted      text,
    add column method      text,
    -- What is known of a copy that follows, from when it was made.
    add column following   jsonb,
    -- Nobody has said yes until then.
    add column waits_until timestamptz;
