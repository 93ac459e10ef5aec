-- One row per block: a thread slept in one of the interpreter's own locks from `ts` for `dur` ns.
create perfetto table lock_waits as
select
  id,                                                    -- of the slice on its thread's GIL track
  ts,
  dur,
  utid, tid, thread,                                     -- who was blocked
  upid, pid, process,
  cause,                                                 -- by what: 'lock', 'queue', 'join', 'import-lock', ...
  cast(substr(lock, 7) as int) as lock,                  -- number of the lock within the process, from 1 on
  ended,                                                 -- 'woken', 'timed-out', 'interrupted', 'failed', or 'open'
  substr(stack, 1, instr(stack || ' < ', ' < ') - 1) as site, -- where it stood: function (file:line)
  ifnull(own_line, substr(stack, 1, instr(stack || ' < ', ' < ') - 1)) as own_line, -- your own line that led there
  stack,                                                 -- the site and its callers; null if not recorded
  waker_utid, waker_tid, waker,                          -- the thread that woke it; null if nobody did
  ts + dur - wake_up as woken,                           -- when
  substr(waker_stack, 1, instr(waker_stack || ' < ', ' < ') - 1) as waker_site, -- and where that stood
  ifnull(waker_own_line, substr(waker_stack, 1, instr(waker_stack || ' < ', ' < ') - 1)) as waker_own_line,
  waker_stack
from (
  select
    s.id,
    s.ts, s.dur,
    t.utid, t.tid, t.name as thread,
    t.upid, p.pid, p.name as process,
    substr(s.name, 10) as cause,
    extract_arg(s.arg_set_id, 'debug.lock') as lock,
    extract_arg(s.arg_set_id, 'debug.ended') as ended,
    extract_arg(s.arg_set_id, 'debug.own line') as own_line,
    extract_arg(s.arg_set_id, 'debug.stack') as stack,
    w.utid as waker_utid,
    extract_arg(s.arg_set_id, 'debug.waker tid') as waker_tid,
    extract_arg(s.arg_set_id, 'debug.waker') as waker,
    extract_arg(s.arg_set_id, 'debug.wake-up (ns)') as wake_up,
    extract_arg(s.arg_set_id, 'debug.waker own line') as waker_own_line,
    extract_arg(s.arg_set_id, 'debug.waker stack') as waker_stack
  from slice s
  join thread_track k on k.id = s.track_id
  join thread t using (utid)
  join process p using (upid)
  left join (select upid, tid, min(utid) as utid from thread group by upid, tid) w
    on w.upid = t.upid and w.tid = extract_arg(s.arg_set_id, 'debug.waker tid')
  where s.category = 'block' and s.name glob 'blocked: *'
)
order by ts;
