-- Who waited for whom: how much of the waits at one site fell into the holds of another.

-- The contended time of each GIL on end, numbered: what its holders did meanwhile. Each of the lines belongs to the hold
-- that began last; a hold of which no stack is known is a turn by itself.
create perfetto table _gil_turns as
with
  lines as materialized (
    select
      extract_arg(s.arg_set_id, 'debug.pid') as pid, extract_arg(s.arg_set_id, 'debug.gil') as gil,
      s.ts, s.ts + s.dur as ts_end,
      ifnull(extract_arg(s.arg_set_id, 'debug.leaf'), iif(s.name = 'no Python frame', '', s.name)) as site,
      ifnull(extract_arg(s.arg_set_id, 'debug.own line'), iif(s.name = 'no Python frame', '', s.name)) as own_line
    from slice s join track k on k.id = s.track_id
    where k.name = 'culprits (while others wait)' and s.dur > 0
  ),
  marks as (
    select upid, gil, ts, 0 as rank, hold, utid, iif(stack is null, ts + dur, ts) as ts_end,
      '' as site, '' as own_line
    from gil_holds
    union all
    select upid, gil, ts, 1, null, null, ts_end, site, own_line
    from lines join (select distinct upid, pid, gil from gil_holds) using (pid, gil)
  ),
  ordered as (
    select *, sum(rank = 0) over (partition by upid, gil order by ts, rank, hold rows unbounded preceding) as nth
    from marks
  ),
  owned as materialized (
    select *, first_value(utid) over (partition by upid, gil, nth order by rank, ts) as holder from ordered
  )
select
  row_number() over (order by o.upid, o.gil, o.ts) as turn,
  o.upid, o.gil, o.ts, o.ts_end, role, o.site, o.own_line
from owned o join _gil_roles r on r.utid = o.holder
where o.ts_end > o.ts
order by turn;

-- The first and the last turn that a wait may overlap: those before its begin and its end are counted.
create perfetto table _gil_overlaps as
with
  bases as (select upid, gil, min(turn) as base from _gil_turns group by upid, gil),
  edges as (
    select upid, gil, null as id, ts_end as time, 0 as rank, 1 as turns, 'begin' as edge from _gil_turns
    union all select upid, gil, id, ts, 1, 0, 'begin' from gil_waits
    union all select upid, gil, null, ts, 1, 1, 'end' from _gil_turns
    union all select upid, gil, id, ts + dur, 0, 0, 'end' from gil_waits
  ),
  counted as (
    select upid, gil, id, edge, sum(turns) over (partition by upid, gil, edge order by time, rank
      rows between unbounded preceding and current row) as passed
    from edges
  )
select
  id,
  max(iif(edge = 'begin', base + passed, 0)) as first,
  max(iif(edge = 'end', base + passed - 1, 0)) as last
from counted join bases using (upid, gil)
where id is not null
group by id;

create perfetto table gil_blame as
select
  upid, pid, process,
  victim,                                                -- the role of the threads that waited
  victim_site,                                           -- where they stood: function (file:line); '' if not recorded
  culprit,                                               -- the role of the threads that held the GIL meanwhile
  culprit_site,                                          -- and where, as the waiters saw it
  count() as waits,                                      -- in how many waits
  sum(lost) as dur,                                      -- how long in all
  max(lost) as max_dur,                                  -- most of it in one wait
  victim_own_line,                                       -- your own line that led to where the victim stood
  culprit_own_line                                       -- and where the culprit did; the site if none of yours did
from (
  select
    w.upid, w.pid, w.process, v.role as victim, ifnull(w.site, '') as victim_site,
    t.role as culprit, t.site as culprit_site,
    ifnull(w.own_line, '') as victim_own_line, t.own_line as culprit_own_line,
    sum(min(t.ts_end, w.ts + w.dur) - max(t.ts, w.ts)) as lost
  from _gil_overlaps o
  join gil_waits w using (id)
  join _gil_roles v using (utid)
  join _gil_turns t on t.turn between o.first and o.last
  group by w.id, t.role, t.site, t.own_line
)
group by upid, victim, victim_site, victim_own_line, culprit, culprit_site, culprit_own_line
order by dur desc;
