-- One row per wait: a thread wanted the GIL from `ts` for `dur` ns, and did not have it.
create view gil_waits as
select
  null::bigint as id,                                    -- of a slice: there are none here
  tid || '@' || start as wait,                           -- its id, for `giltrace view --at`
  start as ts,
  duration as dur,
  thread_id as utid, tid, thread,                        -- who waited
  image as upid, pid, getvariable('processes')[image + 1] as process,
  gil,                                                   -- number of the GIL within the process
  timeouts,                                              -- timed waits that ran out; after each it asks for the GIL
  if(hold < 0, null, hold - getvariable('first_holds')[image + 1]) as hold, -- number of the hold that it led to
  nullif(culprit, '') as culprit,                        -- the thread that held the GIL for the most of it
  nullif(culprit_site, '') as culprit_site,              -- and where
  nullif(site, '') as site,                              -- where the waiter stood: function (file:line)
  getvariable('stacks')[stack + 1] as stack,             -- that line and its callers; null if not recorded
  partial_in_words(partial_start, partial_end) as partial, -- if its begin or its end is not on record
  nullif(own_line, '') as own_line,                      -- your own line that led there
  nullif(culprit_own_line, '') as culprit_own_line,      -- the same of the culprit
  nullif(culprit_known_by, '') as culprit_known_by,      -- how it is known where the culprit stood: as in gil_holds
  nullif(culprit_ns, 0) as culprit_ns,                   -- how long the culprit held the GIL meanwhile
  if(culprit_ns = 0, null, culprit_share) as culprit_share, -- and what part of the wait that is
  nullif(second_culprit, '') as second_culprit,          -- who held it for the most of the rest; null if nobody
  nullif(second_culprit_ns, 0) as second_culprit_ns,
  nullif(third_culprit, '') as third_culprit,            -- and who after that
  nullif(third_culprit_ns, 0) as third_culprit_ns
from waits;
