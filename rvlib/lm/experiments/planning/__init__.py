"""What a run will need before it begins: memory, hours and disk, and what is missing here.

It may import `cost`, `recipe` and `table` of this room, and asks torch about this machine alone. Start with
`plan.plan`, which puts together the stages that `planned_stages` reckons; `dry_run` prints them.
"""
