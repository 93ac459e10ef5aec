-- One row per hold: a thread had the GIL from `ts` for `dur` ns.
create view gil_holds as
select
  null::bigint as id,                                    -- of a slice: there are none here
  hold - getvariable('first_holds')[image + 1] as hold,  -- its number within its process, by time
  start as ts,
  duration as dur,
  thread_id as utid, tid, thread,                        -- who held it
  image as upid, pid, getvariable('processes')[image + 1] as process,
  gil,                                                   -- number of the GIL within the process
  nullif(core, -1) as core,                              -- at the acquire; null if unknown
  forced::bigint as forced,                              -- 1 if a switch request ended it, else 0
  nullif(site, '') as site,                              -- where it stood: function (file:line)
  getvariable('stacks')[stack + 1] as stack,             -- that line and its callers; null if not recorded
  partial_in_words(partial_start, partial_end) as partial, -- if its begin or its end is not on record
  nullif(own_line, '') as own_line,                      -- your own line that led there
  -- How it is known where it stood: 'seen' by a waiter, or in holds 'alike'; else where it 'let go', or was 'taken'.
  nullif(known_by, '') as known_by
from holds;
