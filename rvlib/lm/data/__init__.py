"""What policies are asked: prompts, pairs of replies and demonstrations, from packages, the hub, files and the tiny
world.

This room may import `rvlib.files` alone. Start with `prompts.Prompt` and `sources.load_examples`.
"""
