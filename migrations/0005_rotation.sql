-- A rotation of a whole cluster gives each claim its turn; null: it is due, where tiers are named.
alter table claims add column rotate_at timestamptz;
-- When somebody last asked for a new password: what was begun before does not answer it.
alter table claims add column asked_at timestamptz;
-- When its credentials need work that is not to wait for a look: a former login to lock, a password that gets too old.
alter table claims add column keep_at timestamptz;
-- When every tier last logged in with what the stores have; null: that is to be tried again.
alter table claims add column proven_at timestamptz;

create index claims_turn on claims (cluster, least(rotate_at, keep_at))
    where least(rotate_at, keep_at) is not null and wish <> 'retained';

-- When somebody asked for another password of the control plane's own login.
alter table clusters add column login_asked_at timestamptz;
