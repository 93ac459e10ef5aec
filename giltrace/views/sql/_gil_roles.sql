-- The role of each thread: those of a process whose names differ in their numbers only share one.
create perfetto table _gil_roles as
select utid, case when name = 'thread ' || tid then 'tid ' || tid when shared > 1 then pattern else name end as role
from (
  select utid, tid, name, pattern, count() over (partition by upid, pattern) as shared
  from (
    -- Every run of digits becomes one asterisk: first every digit, then every two asterisks one.
    select utid, upid, tid, name, replace(replace(replace(replace(replace(starred,
      '**', '*'), '**', '*'), '**', '*'), '**', '*'), '**', '*') as pattern
    from (
      select utid, upid, tid, name, replace(replace(replace(replace(replace(replace(replace(replace(replace(replace(
        name, '0', '*'), '1', '*'), '2', '*'), '3', '*'), '4', '*'), '5', '*'), '6', '*'), '7', '*'), '8', '*'),
        '9', '*') as starred
      from thread where upid is not null
    )
  )
);
