alter table completion add column usage text;
