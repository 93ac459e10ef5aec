-- One row per span of a merged file: what its thread, or the one that asked for it, did with the GIL meanwhile.
create perfetto table _gil_merged as
select
  s.id, s.ts, s.ts + s.dur as ts_end, s.name,
  extract_arg(s.arg_set_id, 'debug.category') as category,
  extract_arg(s.arg_set_id, 'debug.source') as source,
  s.track_id, k.name as track_name, s.parent_id,
  extract_arg(s.arg_set_id, 'debug.tid') as tid,
  extract_arg(s.arg_set_id, 'debug.pid') as pid
from slice s join track k on k.id = s.track_id
where s.category = 'merged' and s.dur >= 0
order by s.id;

-- The threads that are asked about, once each.
create perfetto table _gil_askers as
select pid, tid, min(utid) as utid, min(upid) as upid, min(t.name) as thread, min(p.name) as process
from (select distinct pid, tid from _gil_merged where tid is not null) a
join thread t using (tid) join process p using (upid, pid)
group by pid, tid;

-- All stretches that are asked about: the spans, and the gaps between those that are work and not around it.
create perfetto table _gil_stretches as
with
  work as (
    select *,
      max(ts_end) over (partition by track_id order by ts, id rows between unbounded preceding and 1 preceding)
        as idle_from,
      lag(id) over (partition by track_id order by ts, id) as before_id
    from _gil_merged
    where ifnull(category, '') not in ('user_annotation', 'gpu_user_annotation', 'python_function', 'overhead')
  ),
  asked as (
    select 'span' as kind, id, ts, ts_end, tid, pid, null as before_id from _gil_merged
    union all
    select 'gap', id, idle_from, ts, tid, pid, before_id from work where ts > idle_from
  )
select row_number() over (order by kind, ts, id) as stretch, asked.*, utid, upid, thread, process
from asked left join _gil_askers using (pid, tid)
order by stretch;

-- The waits of each thread on end, numbered: those that one stretch overlaps are a range of these.
create perfetto table _gil_waits_on_end as
select row_number() over (order by utid, ts) as nth, utid, ts, ts + dur as ts_end, dur,
  culprit, culprit_site, culprit_own_line
from gil_waits
order by nth;

-- How long a thread had waited for a GIL and held one, up to each edge of the stretches.
create perfetto table _gil_until as
with
  edges as (
    select stretch, utid, 'begin' as edge, ts as time from _gil_stretches where utid is not null
    union all select stretch, utid, 'end', ts_end from _gil_stretches where utid is not null
  ),
  marks as (
    select utid, ts as time, 0 as rank, dur as waited, ts + dur as wait_end, 1 as waits, 0 as held, null as hold_end,
      null as stretch, null as edge
    from gil_waits
    union all select utid, ts, 0, 0, null, 0, dur, ts + dur, null, null from gil_holds where dur >= 0
    union all select utid, time, 1, 0, null, 0, 0, null, stretch, edge from edges
  ),
  counted as (
    select stretch, edge, time, utid,
      sum(waited) over passed as waited, max(wait_end) over passed as wait_end, sum(waits) over passed as waits,
      sum(held) over passed as held, max(hold_end) over passed as hold_end
    from marks
    window passed as (partition by utid order by time, rank rows unbounded preceding)
  )
select stretch, edge, utid,
  waited - max(ifnull(wait_end, time) - time, 0) as waited,
  held - max(ifnull(hold_end, time) - time, 0) as held,
  waits, ifnull(wait_end, time) > time as in_wait
from counted
where stretch is not null;

create perfetto table _gil_told as
with
  bases as (select utid, min(nth) - 1 as base from _gil_waits_on_end group by utid),
  paired as (
    select stretch, utid,
      sum(iif(edge = 'end', waited, -waited)) as waited, sum(iif(edge = 'end', held, -held)) as held,
      sum(iif(edge = 'begin', waits + iif(in_wait, 0, 1), 0)) as first_wait, sum(iif(edge = 'end', waits, 0)) as last_wait
    from _gil_until
    group by stretch
  )
select stretch, waited, held, base + first_wait as first_wait, base + last_wait as last_wait
from paired left join bases using (utid)
order by stretch;

-- Who held the GIL for the most of a stretch's waits, and where.
create perfetto table _gil_culprits as
with
  parts as (
    select s.stretch, culprit, culprit_site, culprit_own_line, count() as waits,
      sum(min(w.ts_end, s.ts_end) - max(w.ts, s.ts)) as lost
    from _gil_told t
    join _gil_stretches s using (stretch)
    join _gil_waits_on_end w on w.nth between t.first_wait and t.last_wait
    where t.waited > 0
    group by s.stretch, culprit, culprit_site, culprit_own_line
  )
select stretch, sum(waits) as waits, culprit, culprit_site, culprit_own_line, max(lost) as culprit_ns
from parts
group by stretch
order by stretch;

create perfetto table gil_spans as
select
  m.id,                                                  -- of the slice
  m.ts,
  m.ts_end - m.ts as dur,
  m.name,
  m.category,                                            -- as the file has it; null if it has none
  m.source,                                              -- the label under which the file was merged
  m.track_id, m.track_name as track,
  s.utid, m.tid, s.thread,                               -- the thread that it is of, or that asked for it
  s.upid, m.pid, s.process,
  t.waited,                                              -- how long that thread waited for the GIL; null if not known
  t.held,                                                -- how long it had the GIL
  m.ts_end - m.ts - t.waited - t.held as off,            -- how long it did without
  ifnull(c.waits, iif(t.waited is null, null, 0)) as waits, -- in how many waits
  c.culprit,                                             -- who held the GIL in the waits that cost most of it
  c.culprit_site,                                        -- and where
  c.culprit_own_line,
  c.culprit_ns                                           -- and what these cost
from _gil_stretches s
join _gil_merged m using (id)
left join _gil_told t using (stretch)
left join _gil_culprits c using (stretch)
where s.kind = 'span'
order by m.ts;
