"""The report of a run: what it has of the teachers, numbers that are computed from it, its tables and its figures.

All are functions of its JSON alone, so it imports neither torch nor transformers, and of this room only `table` and
`teacher_choice`; `run_report` makes the JSON of a run. Start with `report.load`; `tables` has the tables, and `page`
shows all of it.
"""

from rvlib.lm.experiments.report.report import (
    BOOK,
    LABELS,
    MEASURED,
    OUTCOMES,
    Report,
    TeacherRecord,
    correlation_table,
    curves,
    display_name,
    epochs,
    increase,
    increase_against,
    load,
    origin,
    property_columns,
    standard_error,
)
