-- One row per block: a thread slept in one of the interpreter's own locks from `ts` for `dur` ns.
create view lock_waits as
select
  null::bigint as id,                                    -- of a slice: there are none here
  start as ts,
  duration as dur,
  thread_id as utid, tid, thread,                        -- who was blocked
  image as upid, pid, getvariable('processes')[image + 1] as process,
  cause,                                                 -- by what: 'lock', 'queue', 'join', 'import-lock', ...
  lock,                                                  -- number of the lock within the process, from 1 on
  ended,                                                 -- 'woken', 'timed-out', 'interrupted', 'failed', or 'open'
  nullif(site, '') as site,                              -- where it stood: function (file:line)
  nullif(own_line, '') as own_line,                      -- your own line that led there
  getvariable('stacks')[stack + 1] as stack,             -- the site and its callers; null if not recorded
  nullif(waker_thread_id, -1) as waker_utid, nullif(waker_tid, -1) as waker_tid, -- the thread that woke it
  nullif(waker, '') as waker,                            -- null if nobody did
  nullif(woken, -1) as woken,                            -- when
  nullif(waker_site, '') as waker_site,                  -- and where that stood
  nullif(waker_own_line, '') as waker_own_line,
  getvariable('stacks')[waker_stack + 1] as waker_stack
from blocks;
