-- What is kept of the history is bounded from here on (docs/history.md), so that rows are removed
-- that were only inserted before. SQLite needs no settings for that: the pages that become free
-- are used for what is written next, and the file stays as large as it once had to be. (Giving
-- them back, `auto_vacuum`, can only be chosen for a new file, and moves pages at each commit.)

select 1;
