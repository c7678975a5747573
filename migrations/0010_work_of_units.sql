-- What a unit works on, for fleet_now: with a million tasks it was found among all that the unit ever had.

CREATE INDEX t_app_task_ledger2_unit_working ON t_app_task_ledger2 (site_uid, unit_uid)
    WHERE status IN ('assigned', 'started', 'paused');
