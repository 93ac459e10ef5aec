-- One row per hand-off: a release at `ts`, followed `dur` ns later by an acquire by another thread.
create perfetto table gil_handoffs as
select
  ts,
  dur,                                                   -- its latency
  upid, pid, process,
  gil,                                                   -- number of the GIL within the process
  utid, tid, thread,                                     -- who gave the GIL up
  forced,                                                -- 1 if a switch request made it do so, else 0
  site,                                                  -- where it stood: function (file:line)
  to_utid, to_tid, to_thread,                            -- who took it
  exists (
    select 1 from gil_waits w where w.upid = h.upid and w.hold = h.to_hold and w.ts <= h.ts
  ) as waited,                                           -- 1 if the taker waited already at the release, else 0
  own_line                                               -- your own line that led to the site
from (
  select
    ts + dur as ts,
    lead(ts) over next - (ts + dur) as dur,
    upid, pid, process, gil, utid, tid, thread, forced, site, own_line,
    lead(utid) over next as to_utid,
    lead(tid) over next as to_tid,
    lead(thread) over next as to_thread,
    lead(hold) over next as to_hold,
    partial,
    lead(partial) over next as to_partial
  from gil_holds
  window next as (partition by upid, gil order by hold)
) h
where utid != to_utid
  and ifnull(partial, '') not glob '*had not ended*'
  and ifnull(to_partial, '') not glob '*began before*'
  -- Where a cut left something out in between, the next hold in the trace may not have been the next one.
  and not exists (
    select 1 from slice s join track k on k.id = s.track_id
    where k.name = 'left out' and s.category = 'cut' and s.ts < h.ts + h.dur and s.ts + s.dur > h.ts
  )
order by ts;
