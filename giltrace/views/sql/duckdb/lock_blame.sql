-- Who was blocked, and who ended it: how long in all, for each pair of lines.
create view lock_blame as
select
  b.image as upid, b.pid, getvariable('processes')[b.image + 1] as process,
  v.role as victim,                                      -- the role of the threads that were blocked
  b.site as victim_site,                                 -- where they stood: function (file:line); '' if not recorded
  cause,                                                 -- by what, as in lock_waits
  ifnull(w.role, '') as waker,                           -- the role of the threads that woke them; '' if nobody did
  waker_site,                                            -- and where these stood
  count(*) as blocks,
  count(distinct lock) as locks,                         -- how many locks that were
  sum(b.duration)::bigint as dur,                        -- how long in all
  max(b.duration) as max_dur,                            -- the longest
  b.own_line as victim_own_line,                         -- your own line that led to where the victim stood
  waker_own_line                                         -- and where the waker did; the site if none of yours did
from blocks b
join threads v on v.thread_id = b.thread_id
left join threads w on w.thread_id = b.waker_thread_id
group by all
order by dur desc;
