-- One row per hand-off: a release at `ts`, followed `dur` ns later by an acquire by another thread.
create view gil_handoffs as
select
  "end" as ts,
  handoff_ns as dur,                                     -- its latency
  image as upid, pid, getvariable('processes')[image + 1] as process,
  gil,                                                   -- number of the GIL within the process
  thread_id as utid, tid, thread,                        -- who gave the GIL up
  forced::bigint as forced,                              -- 1 if a switch request made it do so, else 0
  nullif(site, '') as site,                              -- where it stood: function (file:line)
  to_thread_id as to_utid, to_tid, to_thread,            -- who took it
  to_waited::bigint as waited,                           -- 1 if the taker waited already at the release, else 0
  nullif(own_line, '') as own_line                       -- your own line that led to the site
from holds
where handoff_ns >= 0;
