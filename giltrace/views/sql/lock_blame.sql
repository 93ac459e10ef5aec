-- Who was blocked, and who ended it: how long in all, for each pair of lines.
create perfetto table lock_blame as
select
  l.upid, l.pid, l.process,
  v.role as victim,                                      -- the role of the threads that were blocked
  ifnull(site, '') as victim_site,                       -- where they stood: function (file:line); '' if not recorded
  cause,                                                 -- by what, as in lock_waits
  ifnull(w.role, '') as waker,                           -- the role of the threads that woke them; '' if nobody did
  ifnull(waker_site, '') as waker_site,                  -- and where these stood
  count() as blocks,
  count(distinct lock) as locks,                         -- how many locks that were
  sum(dur) as dur,                                       -- how long in all
  max(dur) as max_dur,                                   -- the longest
  ifnull(own_line, '') as victim_own_line,               -- your own line that led to where the victim stood
  ifnull(waker_own_line, '') as waker_own_line           -- and where the waker did; the site if none of yours did
from lock_waits l
join _gil_roles v on v.utid = l.utid
left join _gil_roles w on w.utid = l.waker_utid
group by l.upid, v.role, 5, cause, 7, 8, 13, 14
order by dur desc;
