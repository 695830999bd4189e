alter table innkeeper.completion add column usage json;
