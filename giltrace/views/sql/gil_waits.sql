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
  culprit,                                               -- the thread that held the GIL for the most of it
  substr(culprit_stack, 1, instr(culprit_stack || ' < ', ' < ') - 1) as culprit_site, -- and where
  substr(stack, 1, instr(stack || ' < ', ' < ') - 1) as site, -- where the waiter stood: function (file:line)
  stack,                                                 -- that line and its callers; null if not recorded
  partial,                                               -- in words, if its begin or its end is not on record
  ifnull(own_line, substr(stack, 1, instr(stack || ' < ', ' < ') - 1)) as own_line, -- your own line that led there
  -- The same of the culprit.
  ifnull(culprit_own_line, substr(culprit_stack, 1, instr(culprit_stack || ' < ', ' < ') - 1)) as culprit_own_line,
  -- How it is known where the culprit stood: as in gil_holds.
  case culprit_stack when seen then 'seen' when alike then 'alike' when let_go then 'let go' when taken then 'taken' end
    as culprit_known_by,
  culprit_ns,                                            -- how long the culprit held the GIL meanwhile
  round(1.0 * culprit_ns / dur, 4) as culprit_share,     -- and what part of the wait that is
  second_culprit, second_culprit_ns,                     -- who held it for the most of the rest; null if nobody
  third_culprit, third_culprit_ns                        -- and who after that
from (
  select *, coalesce(seen, alike, let_go, taken) as culprit_stack
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
      extract_arg(s.arg_set_id, 'debug.culprit ns') as culprit_ns,
      extract_arg(s.arg_set_id, 'debug.culprit own line') as culprit_own_line,
      extract_arg(s.arg_set_id, 'debug.culprit stack') as seen,
      extract_arg(s.arg_set_id, 'debug.culprit stack of like holds') as alike,
      extract_arg(s.arg_set_id, 'debug.culprit let go at') as let_go,
      extract_arg(s.arg_set_id, 'debug.culprit taken at') as taken,
      extract_arg(s.arg_set_id, 'debug.also held by[0].thread') as second_culprit,
      extract_arg(s.arg_set_id, 'debug.also held by[0].ns') as second_culprit_ns,
      extract_arg(s.arg_set_id, 'debug.also held by[1].thread') as third_culprit,
      extract_arg(s.arg_set_id, 'debug.also held by[1].ns') as third_culprit_ns,
      extract_arg(s.arg_set_id, 'debug.own line') as own_line,
      extract_arg(s.arg_set_id, 'debug.stack') as stack,
      extract_arg(s.arg_set_id, 'debug.partial') as partial
    from slice s
    join thread_track k on k.id = s.track_id
    join thread t using (utid)
    join process p using (upid)
    where s.name = 'waits for GIL' and s.category = 'gil'
  )
)
order by ts;
