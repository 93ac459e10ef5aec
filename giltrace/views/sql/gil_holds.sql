-- One row per hold: a thread had the GIL from `ts` for `dur` ns.
create perfetto table gil_holds as
select
  id,                                                    -- of the slice on its thread's GIL track
  hold,                                                  -- its number within its process, by time
  ts,
  dur,
  utid, tid, thread,                                     -- who held it
  upid, pid, process,
  gil,                                                   -- number of the GIL within the process
  core,                                                  -- at the acquire; null if unknown
  release = 'forced' as forced,                          -- 1 if a switch request ended it, else 0
  substr(stack, 1, instr(stack || ' < ', ' < ') - 1) as site, -- where it stood: function (file:line)
  stack,                                                 -- that line and its callers; null if not recorded
  partial,                                               -- in words, if its begin or its end is not on record
  ifnull(own_line, substr(stack, 1, instr(stack || ' < ', ' < ') - 1)) as own_line, -- your own line that led there
  -- How it is known where it stood: 'seen' by a waiter, or in holds 'alike'; else where it 'let go', or was 'taken'.
  case stack when seen then 'seen' when alike then 'alike' when let_go then 'let go' when taken then 'taken' end
    as known_by
from (
  select *, coalesce(seen, alike, let_go, taken) as stack
  from (
    select
      s.id,
      extract_arg(s.arg_set_id, 'debug.hold') as hold,
      s.ts, s.dur,
      utid, t.tid, t.name as thread,
      upid, p.pid, p.name as process,
      extract_arg(s.arg_set_id, 'debug.gil') as gil,
      extract_arg(s.arg_set_id, 'debug.core') as core,
      extract_arg(s.arg_set_id, 'debug.release') as release,
      extract_arg(s.arg_set_id, 'debug.own line') as own_line,
      extract_arg(s.arg_set_id, 'debug.stack') as seen,
      extract_arg(s.arg_set_id, 'debug.stack of like holds') as alike,
      extract_arg(s.arg_set_id, 'debug.let go at') as let_go,
      extract_arg(s.arg_set_id, 'debug.taken at') as taken,
      extract_arg(s.arg_set_id, 'debug.partial') as partial
    from slice s
    join thread_track k on k.id = s.track_id
    join thread t using (utid)
    join process p using (upid)
    where s.name = 'holds GIL' and s.category = 'gil'
  )
)
order by ts;
