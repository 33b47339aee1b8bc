"""How near each stage of a run comes to what the machine can do: `rvlib bench`.

What is measured is `bench`, on the shapes in `architectures` with random weights and beside the official code's step in
`official`; `rates` turns what was written (`record`) into the shares of a GPU's rates that a plan reckons with. It may
import `cost`, `planning` and `recipe` of this room, and every room that they may import. Start with `command`, then
read `bench.Bench`.
"""
