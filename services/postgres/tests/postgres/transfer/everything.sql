-- One of each, as the admin tier makes them. {admin}, {read} and {write} are roles.
CREATE EXTENSION pg_trgm;
CREATE EXTENSION hstore;
CREATE SCHEMA own;
CREATE SCHEMA "odd ""schema""; --";
COMMENT ON SCHEMA own IS 'ours; its own';
CREATE EXTENSION citext SCHEMA own;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s happy');
CREATE TYPE own.pair AS (a int, b text, m mood);
CREATE TYPE own.span AS RANGE (SUBTYPE = numeric);
CREATE DOMAIN own.positive AS int NOT NULL CHECK (VALUE > 0);
CREATE DOMAIN own.moods AS mood[] CHECK (cardinality(VALUE) < 5);
CREATE COLLATION own.german (PROVIDER = icu, LOCALE = 'de-u-co-phonebk');
CREATE SEQUENCE own.odd AS smallint INCREMENT -3 MINVALUE -300 MAXVALUE 30 START 30 CYCLE CACHE 5;
SELECT nextval('own.odd'), nextval('own.odd');
CREATE SEQUENCE own.never_used START 17;
CREATE SEQUENCE own.set_back; SELECT setval('own.set_back', 50, false);

CREATE FUNCTION own.twice(x int) RETURNS int LANGUAGE sql IMMUTABLE STRICT AS 'SELECT x * 2';
CREATE FUNCTION own."odd "" name"(x int DEFAULT 7, VARIADIC y text[] DEFAULT '{}') RETURNS text LANGUAGE plpgsql AS $body$
BEGIN
  -- Name: fake; Type: TABLE; Schema: public; Owner: nobody
  RETURN $inner$;--$inner$ || x; END $body$;
CREATE PROCEDURE own.act(INOUT x int) LANGUAGE sql BEGIN ATOMIC SELECT x + 1; END;
CREATE AGGREGATE own.total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR own.%% (LEFTARG = int, RIGHTARG = int, FUNCTION = int4pl, COMMUTATOR = OPERATOR(own.%%));
CREATE CAST (own.pair AS text) WITH INOUT AS ASSIGNMENT;
CREATE TEXT SEARCH CONFIGURATION own.search (COPY = english);
CREATE FUNCTION own.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.touched := coalesce(NEW.touched, 0) + 1; RETURN NEW; END';

CREATE TABLE parents (
  id int GENERATED ALWAYS AS IDENTITY (START 100 INCREMENT 10) PRIMARY KEY,
  state varchar(20) DEFAULT 'new' CHECK (state IN ('new', 'old', 'odd')),
  doubled int GENERATED ALWAYS AS (own.twice(amount)) STORED,
  amount int DEFAULT 1,
  touched int,
  favourite bigint
);
CREATE TABLE children (
  id bigserial PRIMARY KEY,
  parent int NOT NULL REFERENCES parents ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  note text COLLATE own.german,
  word own.citext,
  UNIQUE (parent, note),
  UNIQUE NULLS NOT DISTINCT (word, id)
);
ALTER TABLE parents ADD CONSTRAINT favourite FOREIGN KEY (favourite) REFERENCES children DEFERRABLE;
ALTER TABLE parents ADD CONSTRAINT not_valid CHECK (amount < 1000) NOT VALID;
INSERT INTO parents (state, amount) SELECT (ARRAY['new','old','odd', NULL])[1 + n % 4], n FROM generate_series(1, 500) n;
INSERT INTO children (parent, note, word) SELECT 100 + 10 * (n % 500), 'note ' || n || E'\n\t\\ü🐘', 'Word' || n FROM generate_series(1, 2000) n;
UPDATE parents SET favourite = (SELECT min(c.id) FROM children c WHERE c.parent = parents.id);
INSERT INTO parents (id, state) OVERRIDING SYSTEM VALUE VALUES (7, 'odd');
COMMIT;
CREATE TRIGGER touch BEFORE UPDATE ON parents FOR EACH ROW EXECUTE FUNCTION own.touch();
CREATE INDEX part_of ON parents (amount) WHERE state = 'new';
CREATE INDEX by_expression ON children (lower(note), (length(note) % 7)) INCLUDE (parent);
CREATE INDEX alike ON children USING gin (note gin_trgm_ops);
CREATE STATISTICS own.together (dependencies, ndistinct) ON state, amount FROM parents;
ALTER TABLE parents ALTER COLUMN amount SET STATISTICS 500, REPLICA IDENTITY FULL;
ALTER TABLE children CLUSTER ON children_pkey;
COMMENT ON COLUMN parents.amount IS 'how much; "really"';
COMMENT ON CONSTRAINT favourite ON parents IS E'two\nlines';

CREATE TABLE types (
  a mood, b mood[], c own.pair, d own.pair[], e own.span, f own.positive, g own.moods, h regclass, i xml, j jsonb, k numeric,
  l double precision, m bytea, n timestamptz, o interval, p int4range, q int4multirange, r hstore, s inet, t money,
  u tsvector, v bit varying(9), w "char", x char(5), y date[], z uuid, "Ä ""quoted"" column" json, aa point, bb regtype, cc name, dd oid
);
INSERT INTO types VALUES
  ('sad', '{ok,"it''s happy",NULL}', (1, 'x"y', 'ok'), ARRAY[(1, NULL, 'sad')::own.pair, NULL], '[1.5,2)', 3, '{sad}', 'parents', '<a>ü</a>',
   '{"a": [1, null]}', 'NaN', 0.1, '\x00ff0a5c', '2026-11-20 02:14:05.123456+01', '1 year -2 days 03:04:05.6', '[1,9)', '{[1,3),[7,9)}',
   'a=>1, b=>NULL', '10.0.0.1/8', 12.34, 'a fat cat', B'10101', 'x', 'ab', '{2026-01-01,NULL,infinity}',
   'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"x" :  1}', '(1,2)', 'own.pair', 'name', 4294967295),
  (NULL, '{}', NULL, NULL, 'empty', 1, NULL, 'own.odd', NULL, 'null', 'Infinity', '-infinity', '', 'infinity', '-1 mon', 'empty', '{}',
   '', '::1', -0.01, '', B'', '', '', '{}', NULL, 'null', NULL, 'mood[]', '', 0);

CREATE TABLE by_range (at date NOT NULL, id int, note text, PRIMARY KEY (at, id)) PARTITION BY RANGE (at);
CREATE TABLE by_range_old PARTITION OF by_range FOR VALUES FROM (MINVALUE) TO ('2026-01-01');
CREATE TABLE by_range_new PARTITION OF by_range FOR VALUES FROM ('2026-01-01') TO (MAXVALUE) PARTITION BY LIST (id);
CREATE TABLE own.list_1 (id int NOT NULL, gone int, at date NOT NULL, note text);
ALTER TABLE own.list_1 DROP COLUMN gone;
ALTER TABLE by_range_new ATTACH PARTITION own.list_1 FOR VALUES IN (1, 2, 3);
CREATE TABLE list_rest PARTITION OF by_range_new DEFAULT;
CREATE INDEX ON by_range (note);
INSERT INTO by_range SELECT date '2025-06-01' + n, n % 7, 'row ' || n FROM generate_series(1, 700) n;
CREATE TABLE by_hash (m mood, id int, note text) PARTITION BY HASH (m);
CREATE TABLE by_hash_0 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 0);
CREATE TABLE by_hash_1 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 1) PARTITION BY RANGE (id);
CREATE TABLE by_hash_1_low PARTITION OF by_hash_1 FOR VALUES FROM (MINVALUE) TO (50);
CREATE TABLE by_hash_1_high PARTITION OF by_hash_1 DEFAULT;
CREATE TABLE by_hash_2 PARTITION OF by_hash FOR VALUES WITH (MODULUS 3, REMAINDER 2);
INSERT INTO by_hash SELECT (enum_range(NULL::mood))[1 + n % 3], n, 'x' FROM generate_series(1, 300) n;

CREATE TABLE base (a int CHECK (a > 0), b text);
CREATE TABLE derived (c int, b text NOT NULL) INHERITS (base);
CREATE TABLE late (b text, c int, a int CONSTRAINT base_a_check CHECK (a > 0));
ALTER TABLE late INHERIT base;
INSERT INTO base VALUES (1, 'base'); INSERT INTO derived VALUES (2, 'derived', 3); INSERT INTO late VALUES ('late', 4, 5);

CREATE UNLOGGED TABLE unlogged (x int); INSERT INTO unlogged VALUES (1), (2);
CREATE TABLE empty (x int PRIMARY KEY);
CREATE TABLE no_columns (); INSERT INTO no_columns DEFAULT VALUES; INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE all_generated (x int GENERATED ALWAYS AS (1 + 1) STORED); INSERT INTO all_generated DEFAULT VALUES;
CREATE TABLE "a""; DROP TABLE parents; --" ("x'y" int, "new
line" text, "select" int PRIMARY KEY); INSERT INTO "a""; DROP TABLE parents; --" VALUES (1, E'a\nb', 2);
CREATE TABLE "odd ""schema""; --"."ein Ümläut 🐘" (x int); INSERT INTO "odd ""schema""; --"."ein Ümläut 🐘" VALUES (1);
CREATE TABLE xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx (x int); INSERT INTO xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx VALUES (1);
CREATE TABLE wide (id int PRIMARY KEY, body text);
INSERT INTO wide SELECT n, repeat(md5(n::text), 400) FROM generate_series(1, 400) n;
ALTER TABLE wide ALTER COLUMN body SET STORAGE EXTERNAL;

CREATE TABLE rooms (room int, during tsrange, EXCLUDE USING gist (during WITH &&) WHERE (room = 1));
INSERT INTO rooms VALUES (1, '[2026-01-01,2026-01-02)'), (2, '[2026-01-01,2026-01-02)');

CREATE TABLE secrets (owner text DEFAULT current_user, word text);
INSERT INTO secrets VALUES ('a', 'b'), ('c', 'd');
ALTER TABLE secrets ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON secrets FOR SELECT TO "{read}" USING (owner = current_user AND word <> '');

CREATE VIEW seen AS SELECT p.*, c.note FROM parents p LEFT JOIN children c ON c.id = p.favourite WHERE p.state IN ('new', 'old');
CREATE VIEW checked WITH (security_barrier) AS SELECT * FROM empty WHERE x > 0 WITH LOCAL CHECK OPTION;
CREATE RULE instead AS ON INSERT TO seen DO INSTEAD INSERT INTO parents (state) VALUES (NEW.state);
CREATE MATERIALIZED VIEW summed AS SELECT state, sum(amount) AS amount FROM parents GROUP BY state;
CREATE UNIQUE INDEX ON summed (state);
CREATE MATERIALIZED VIEW summed_again AS SELECT sum(amount) AS amount FROM summed;
CREATE MATERIALIZED VIEW not_filled AS SELECT * FROM summed_again WITH NO DATA;
CREATE RECURSIVE VIEW counting (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counting WHERE n < 9;

SELECT lo_from_bytea(4711, '\x00010203'), lo_from_bytea(4712, ''), lo_from_bytea(4713, convert_to(repeat('large ', 600000), 'UTF8'));
COMMENT ON LARGE OBJECT 4711 IS 'a picture';
GRANT SELECT ON LARGE OBJECT 4711 TO "{read}";

CREATE PUBLICATION published FOR TABLE parents;
REVOKE ALL ON children FROM "{write}";
GRANT SELECT (id, note), UPDATE (note) ON children TO "{write}" WITH GRANT OPTION;
GRANT USAGE ON SCHEMA own TO "{read}";
REVOKE EXECUTE ON FUNCTION own.twice(int) FROM PUBLIC; GRANT EXECUTE ON FUNCTION own.twice(int) TO "{read}";
REVOKE ALL ON empty FROM "{admin}"; GRANT SELECT ON empty TO PUBLIC;
GRANT USAGE ON TYPE mood TO "{write}"; GRANT USAGE ON SEQUENCE own.odd TO "{write}";
ALTER DEFAULT PRIVILEGES IN SCHEMA own GRANT SELECT ON TABLES TO "{read}";
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO "{read}";
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
