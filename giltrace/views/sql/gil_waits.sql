-- One row per wait: a thread wanted the GIL from `ts` for `dur` ns, and did not have it.
create perfetto table gil_waits as
select
  id,                                                    -- of the slice on its thread's GIL track
  tid || '@' || ts as wait,                              -- its id, for `giltrace view --at`
  ts,
  dur,
  utid, tid, thread,                                     -- who waited
  upid, pid, process,
  gil,                                                   -- number of the GIL within the process
  timeouts,                                              -- timed waits that ran out; after each it asks for the GIL
  hold,                                                  -- number of the hold that it led to; null if none
  culprit,                                               -- the thread whose hold took most of the wait
  substr(culprit_stack, 1, instr(culprit_stack || ' < ', ' < ') - 1) as culprit_site, -- and where
  substr(stack, 1, instr(stack || ' < ', ' < ') - 1) as site, -- where the waiter stood: function (file:line)
  stack,                                                 -- that line and its callers; null if not recorded
  partial                                                -- in words, if its begin or its end is not on record
from (
  select
    s.id,
    s.ts, s.dur,
    utid, t.tid, t.name as thread,
    upid, p.pid, p.name as process,
    cast(substr(k.name, 5) as int) as gil,
    extract_arg(s.arg_set_id, 'debug.timeouts') as timeouts,
    extract_arg(s.arg_set_id, 'debug.led to hold') as hold,
    extract_arg(s.arg_set_id, 'debug.culprit') as culprit,
    extract_arg(s.arg_set_id, 'debug.culprit stack') as culprit_stack,
    extract_arg(s.arg_set_id, 'debug.stack') as stack,
    extract_arg(s.arg_set_id, 'debug.partial') as partial
  from slice s
  join thread_track k on k.id = s.track_id
  join thread t using (utid)
  join process p using (upid)
  where s.name = 'waits for GIL' and s.category = 'gil'
)
order by ts;
