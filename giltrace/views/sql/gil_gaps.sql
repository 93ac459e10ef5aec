-- One row per gap between the work of a merged file's track: from `ts` for `dur` ns nothing ran there.
create perfetto table gil_gaps as
select
  s.ts,
  s.ts_end - s.ts as dur,
  b.name as before,                                      -- the span after which it began
  m.name as after,                                       -- and the one that ended it
  m.id as after_id,                                      -- whose slice has that id
  m.source,                                              -- the label under which the file was merged
  m.track_id, m.track_name as track,
  s.utid, s.tid, s.thread,                               -- the thread that asked for the span that ended it
  s.upid, s.pid, s.process,
  t.waited,                                              -- how long that thread waited for the GIL; null if not known
  t.held,                                                -- how long it had the GIL
  s.ts_end - s.ts - t.waited - t.held as off,            -- how long it did without
  round(1.0 * t.waited / (s.ts_end - s.ts), 4) as gil_share, -- what part of the gap is the GIL's
  ifnull(c.waits, iif(t.waited is null, null, 0)) as waits, -- in how many waits
  c.culprit,                                             -- who held the GIL in the waits that cost most of it
  c.culprit_site,                                        -- and where
  c.culprit_own_line,
  c.culprit_ns                                           -- and what these cost
from _gil_stretches s
join _gil_merged m using (id)
left join _gil_merged b on b.id = s.before_id
left join _gil_told t using (stretch)
left join _gil_culprits c using (stretch)
where s.kind = 'gap'
order by s.ts;
