-- Who waited for whom: how much of the waits at one site fell into the holds of another.
create view gil_blame as
select
  image as upid, pid, getvariable('processes')[image + 1] as process,
  victim,                                                -- the role of the threads that waited
  victim_site,                                           -- where they stood: function (file:line); '' if not recorded
  culprit,                                               -- the role of the threads that held the GIL meanwhile
  culprit_site,                                          -- and where, as the waiters saw it
  waits,                                                 -- in how many waits
  duration as dur,                                       -- how long in all
  max_duration as max_dur,                               -- most of it in one wait
  victim_own_line,                                       -- your own line that led to where the victim stood
  culprit_own_line                                       -- and where the culprit did; the site if none of yours did
from blame;
