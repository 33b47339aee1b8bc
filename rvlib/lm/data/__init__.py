"""What policies are asked: prompts, pairs of replies, demonstrations; from packages, the hub, files, the tiny world.

This room imports no torch, and of rvlib only what reads files, checks arguments and writes sentences. Start with
`prompts.Prompt`, then `files.read_examples` for a file of yours, or `sources.load_examples` for the book's data.
"""
