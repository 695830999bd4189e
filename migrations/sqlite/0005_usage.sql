-- What an attempt has used: time, memory, database, log. Null where its host did not measure it: one of a
-- version before, or one that died meanwhile.
alter table completion add column usage text;
